//! What becomes of operations that nodes deny this client, or for which no node can be asked.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use zerocache_core::access::Denial;
use zerocache_net::clock;

use super::engine::Engine;
use crate::Error;

impl Engine {
    /// Counts an operation that a node denied, and returns its error.
    pub(super) fn denied(&self, denial: Denial, text: String) -> Error {
        self.counters.denied();
        self.warn_of_denial(denial, &text);
        Error::Denied { reason: denial.into(), text }
    }

    /// Counts an operation for which no node could be asked, or none answered, and returns its error: that of a
    /// denial where nodes are there and have nothing to do with this client.
    pub(super) fn unreachable(&self, timed_out: bool) -> Error {
        match self.denial() {
            Some((denial, text)) => self.denied(denial, text),
            None => {
                self.counters.unreachable();
                Error::Unreachable { timed_out }
            }
        }
    }

    /// The reason why nodes deny this client everything, if that is why none can be asked.
    pub(super) fn denial(&self) -> Option<(Denial, String)> {
        let state = self.state.lock();
        state.denial(clock::mono()).map(|(denial, text)| (denial, text.to_owned()))
    }

    /// Logs that nodes deny this client something, once in a process for each reason: every operation would
    /// say it again.
    pub(super) fn warn_of_denial(&self, denial: Denial, text: &str) {
        static LOGGED: AtomicU8 = AtomicU8::new(0);
        let bit = 1 << denial as u8;
        if LOGGED.fetch_or(bit, Relaxed) & bit != 0 {
            return;
        }
        let (region, cluster) = (&self.config.region, &self.config.cluster);
        tracing::warn!(
            region,
            cluster,
            reason = denial.as_str(),
            text,
            "a node denies this client what it asks for: memoized functions compute what they may not read"
        );
    }
}
