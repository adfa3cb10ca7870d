//! A client without the feature `metrics` publishes nothing.

use std::time::Duration;

use super::engine::Engine;

/// The interval of [`Engine::publish`], in milliseconds: an hour, because there is nothing to do.
pub(super) const PUBLISH_MS: u64 = 3_600_000;

/// Nothing is published.
#[derive(Debug, Default)]
pub(super) struct Published {}

impl Engine {
    pub(super) fn publish(&self) {
        let Published {} = &self.published;
    }

    pub(super) fn probe_took(&self, _is_local: bool, _time: Duration) {}
}
