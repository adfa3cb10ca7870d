//! The steps of a running call: from its first poll to its value.
//!
//! Look, or wait for who looks; compute; publish to those who wait; store. What a step needs of the
//! function is in its [`Policy`]; none of it is bound to the future that computes.

use bytes::Bytes;

use super::counters::count;
use super::flight::{self, Lead, Outcome};
use super::key::{self, Arguments, FunctionId};
use super::leading;
use super::look::{Looked, look};
use super::operation::BoxFuture;
use super::rule::Policy;
use super::site::Site;
use super::target::Target;
use super::ttl::TtlRule;
use crate::error::Error;
use crate::{Ack, Status, Written, ZerocacheClient};
use zerocache_core::metadata::Metadata;

/// Where a call's value is.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) site: &'static Site,
    pub(super) target: Target,
    /// None for a call that cannot have a key.
    pub(super) identity: Option<(FunctionId, Arguments)>,
}

impl Entry {
    pub(super) fn key(&self, client: &ZerocacheClient) -> Option<Bytes> {
        let (function, arguments) = self.identity.as_ref()?;
        Some(key::compose(client.namespace(), *function, arguments))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Cached,
    Refresh,
    Uncached,
}

/// The client and key that a running call uses.
pub(super) struct Run {
    site: &'static Site,
    client: ZerocacheClient,
    key: Bytes,
}

pub(super) enum Stage<T> {
    Start,
    Looking(BoxFuture<Looked>),
    Computing(Option<Lead>),
    Storing { put: BoxFuture<Result<Written, Error>>, value: Option<T>, _lead: Option<Lead> },
    Done,
}

/// The next stage, or the call's value.
pub(super) enum Step<T> {
    Next(Stage<T>),
    Value(T),
}

impl Run {
    pub(super) fn enter(&self) -> leading::Entered {
        leading::enter(self.client.memo_counters().flight_group(), &self.key)
    }

    pub(super) fn count_written(&self, written: Result<Written, Error>) {
        let counters = self.client.memo_counters();
        match written {
            Ok(Written { status: Status::Stored | Status::Superseded, .. }) => {
                count(&counters.stored);
            }
            Ok(Written { status, .. }) => {
                count(&counters.write_errors);
                tracing::debug!(status = status.as_str(), "a memoized value was not stored");
            }
            Err(error) => {
                count(&counters.write_errors);
                tracing::debug!(%error, "storing a memoized value failed");
            }
        }
    }
}

/// The client and key, unless the call goes without the cache.
pub(super) fn start(entry: &Entry, mode: Mode) -> Option<Run> {
    if mode == Mode::Uncached {
        return None;
    }
    let client = entry.target.resolve();
    match entry.key(&client) {
        Some(key) => Some(Run { site: entry.site, client, key }),
        None => {
            count(&client.memo_counters().unkeyed);
            None
        }
    }
}

pub(super) fn first_stage<T>(run: Option<&Run>, mode: Mode, blocking: bool) -> Stage<T> {
    let Some(Run { client, key, .. }) = run else {
        return Stage::Computing(None);
    };
    let group = client.memo_counters().flight_group();
    if mode == Mode::Refresh {
        flight::void(group, key);
        return Stage::Computing(None);
    }
    if leading::contains(group, key) {
        // Our own caller computes this key: waiting for it would be waiting for ourselves.
        return Stage::Computing(None);
    }
    Stage::Looking(Box::pin(look(client.clone(), key.clone(), blocking)))
}

pub(super) fn found<T>(looked: Looked, run: Option<&Run>, policy: &Policy<T>) -> Step<T> {
    let Some(run) = run else {
        return Step::Next(Stage::Computing(None));
    };
    let counters = run.client.memo_counters();
    match looked {
        Looked::Stored(bytes, lead) => match (policy.decode)(&bytes) {
            Ok(value) => {
                count(&counters.hits);
                if let Some(lead) = lead {
                    lead.publish(Outcome::Value(bytes));
                }
                Step::Value(value)
            }
            Err(error) => {
                count(&counters.mismatched);
                count(&counters.misses);
                tracing::debug!(%error, "a stored value is replaced");
                Step::Next(Stage::Computing(lead))
            }
        },
        Looked::Joined(bytes) => match (policy.decode)(&bytes) {
            Ok(value) => {
                count(&counters.joined);
                Step::Value(value)
            }
            Err(_) => Step::Next(Stage::Computing(None)),
        },
        Looked::Failed(error) => match (policy.sharing.unshare)(&error) {
            Some(value) => {
                count(&counters.joined);
                Step::Value(value)
            }
            None => Step::Next(Stage::Computing(None)),
        },
        Looked::Absent(lead) => {
            count(&counters.misses);
            Step::Next(Stage::Computing(lead))
        }
    }
}

pub(super) fn computed<T>(
    value: T,
    lead: Option<Lead>,
    run: Option<&Run>,
    policy: &Policy<T>,
    ttl: &TtlRule<T>,
    ack: Option<Ack>,
) -> Step<T> {
    let Some(run) = run else {
        return Step::Value(value);
    };
    let counters = run.client.memo_counters();
    count(&counters.computed);
    let publish = |outcome| {
        if let Some(lead) = &lead {
            lead.publish(outcome);
        }
    };
    let bytes = match (policy.encode)(&value) {
        None => {
            let shared = (policy.sharing.share)(&value);
            publish(shared.map_or(Outcome::Nothing, Outcome::Failed));
            return Step::Value(value);
        }
        Some(Err(error)) => {
            count(&counters.write_errors);
            tracing::debug!(%error, "a memoized value cannot be stored");
            publish(Outcome::Nothing);
            return Step::Value(value);
        }
        Some(Ok(bytes)) => bytes,
    };
    if !run.site.reads_back(|| (policy.decode)(&bytes).map(drop)) {
        count(&counters.write_errors);
        publish(Outcome::Nothing);
        return Step::Value(value);
    }
    let Some(lifetime) = ttl.apply(&value, counters) else {
        publish(Outcome::Nothing);
        return Step::Value(value);
    };
    publish(Outcome::Value(bytes.clone()));
    if lead.as_ref().is_some_and(Lead::is_void) {
        return Step::Value(value);
    }
    let put = run.client.raw_put(run.key.clone(), bytes, lifetime, Metadata::default());
    let put = put.ack(ack.unwrap_or_default());
    Step::Next(Stage::Storing { put: Box::pin(put), value: Some(value), _lead: lead })
}
