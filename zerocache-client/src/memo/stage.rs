//! The stages of a running call, and their state.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use zerocache_core::metadata::Freshness;
use zerocache_core::version::{Incarnation, Version};
use zerocache_net::clock;

use super::BoxFuture;
use super::flight::{Invalidation, Leader, UnsharedComputation};
use super::lease::{LeaseGrant, LeaseResponse};
use super::limit::{RunPermit, Turn};
use super::lookup::Lookup;
use super::report::CallReport;
use super::stored::{BaseEntry, StoredEntry};
use super::writing::WriteOutcome;
use crate::near::UnstoredPermit;

/// The stage of a call. Large state is boxed: a call is moved about, and most calls end before they need it.
pub(super) enum Stage<T> {
    Start,
    LookingUp(BoxFuture<Lookup>),
    /// The call requests a lease.
    Leasing {
        request: BoxFuture<(LeaseResponse, Option<Incarnation>)>,
        computation: Option<Box<Computation>>,
    },
    /// The call waits because the function runs as often as it may.
    Queued {
        turn: Turn,
        computation: Option<Box<Computation>>,
    },
    Computing(Box<Computation>),
    /// Another task computes; this call waits for it for a while.
    Detached(Box<(Detached<T>, Option<DetachPlan<T>>)>),
    Storing(Box<Storing<T>>),
    Done,
}

impl<T> Stage<T> {
    /// Returns the computation that runs or is about to.
    pub(super) fn computation(&self) -> Option<&Computation> {
        match self {
            Self::Leasing { computation, .. } | Self::Queued { computation, .. } => {
                computation.as_deref()
            }
            Self::Computing(computation) => Some(computation),
            Self::Start
            | Self::LookingUp(_)
            | Self::Detached(_)
            | Self::Storing(_)
            | Self::Done => None,
        }
    }
}

/// The next stage, or the call's value.
pub(super) enum Step<T> {
    Next(Stage<T>),
    Value(T),
}

/// The result of a computation that another task completes, for the caller that waits for it.
pub(super) type DetachedResult<T> = (T, Box<CallReport>);

/// The previous value of a call whose computation moves to another task.
pub(super) struct DetachPlan<T> {
    pub(super) previous: T,
    /// The previous value is fresh.
    pub(super) is_fresh: bool,
    /// The wait for the computation; `None` to serve the previous value at once.
    pub(super) wait: Option<Duration>,
}

/// A wait for a computation in another task.
pub(super) struct Detached<T> {
    pub(super) result: oneshot::Receiver<DetachedResult<T>>,
    /// The end of the wait.
    pub(super) timer: BoxFuture<()>,
}

impl<T> Detached<T> {
    /// Waits for the result; `None` when the wait is over, or there will be no result.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<DetachedResult<T>>> {
        if let Poll::Ready(result) = Pin::new(&mut self.result).poll(context) {
            return Poll::Ready(result.ok());
        }
        ready!(self.timer.as_mut().poll(context));
        Poll::Ready(None)
    }
}

/// The state of a call whose value is being written.
pub(super) struct Storing<T> {
    pub(super) write: BoxFuture<WriteOutcome>,
    pub(super) value: Option<T>,
    /// The key under which the value is stored.
    pub(super) key: Bytes,
    /// The begin of the write, on the process's clock.
    pub(super) started: Duration,
}

/// The state of a call that computes its value.
#[derive(Default)]
pub(super) struct Computation {
    /// The right to publish; `None` for an unshared computation.
    pub(super) leader: Option<Leader>,
    /// The place of an unshared computation in the table, from its begin on.
    pub(super) unshared: Option<UnsharedComputation>,
    /// The entry that may be served meanwhile, or if computing fails.
    pub(super) previous: Option<StoredEntry>,
    /// The base entry of another shape, if the value is to be stored as a shape entry.
    pub(super) base: Option<Box<BaseEntry>>,
    /// The version of an unusable entry under the value's key, which the value replaces.
    pub(super) replaces: Option<Version>,
    /// `None` if no lease was requested.
    pub(super) lease_request: Option<LeaseRequest>,
    pub(super) grant: Option<LeaseGrant>,
    /// The highest stamp of a version that was in force before the function runs, 0 if none is known; `None` for a
    /// refresh, which supersedes what others write meanwhile.
    pub(super) known: Option<u64>,
    /// The place among the runs of the function, if these are limited.
    pub(super) permit: Option<RunPermit>,
    /// The end of the wait for such a place, on the process's clock; `None` before the wait begins.
    pub(super) queue_until: Option<Duration>,
    /// The permission to keep the value near if it cannot be stored.
    pub(super) unstored: Option<UnstoredPermit>,
    /// Set at the first poll of the function.
    pub(super) function_run: Option<FunctionRun>,
}

/// The request for a lease, which may be repeated.
#[derive(Clone, Copy)]
pub(super) struct LeaseRequest {
    pub(super) attempts: u8,
    /// The first attempt, on the process's clock.
    pub(super) started: Duration,
    /// The end of the wait for a process that has the lease.
    pub(super) wait_until: Duration,
}

/// A run of the memoized function.
pub(super) struct FunctionRun {
    pub(super) span: tracing::Span,
    pub(super) started: Duration,
}

impl Computation {
    pub(super) fn new(
        leader: Option<Leader>,
        previous: Option<StoredEntry>,
        known: u64,
    ) -> Box<Self> {
        Box::new(Computation { leader, previous, known: Some(known), ..Computation::default() })
    }

    /// Records a version under the value's key that was in force before the function runs.
    pub(super) fn note_known(&mut self, version: Version) {
        if let Some(known) = &mut self.known {
            *known = version.stamp().max(*known);
        }
    }

    /// Stores the value as a shape entry, if `base` is an entry of another shape that is kept; otherwise in
    /// place of `base`.
    pub(super) fn with_base(mut self: Box<Self>, base: Option<Box<BaseEntry>>) -> Box<Self> {
        if let Some(base) = &base {
            self.note_known(base.version());
        }
        self.base = base.filter(|base| base.is_kept(clock::mono()));
        self.replaces = self.base.as_ref().and_then(|base| base.replaces);
        self
    }

    /// Returns the key under which the value is stored; `call_key` is the key of the call.
    pub(super) fn key<'a>(&'a self, call_key: &'a Bytes) -> &'a Bytes {
        self.base.as_ref().map_or(call_key, |base| &base.shape_key)
    }

    /// Returns the flag that is set when the key is deleted or replaced.
    pub(super) fn invalidation(&self) -> Invalidation {
        let leader = self.leader.as_ref().map(Leader::invalidation);
        let unshared = self.unshared.as_ref().map(UnsharedComputation::invalidation);
        leader.or(unshared).cloned().unwrap_or_default()
    }

    /// Returns true if the computation has a place for which other calls of the function may wait.
    pub(super) fn has_place(&self) -> bool {
        self.permit.as_ref().is_some_and(RunPermit::has_place)
    }

    /// Returns true if the call may wait for the process that has the lease, and has not because of its place.
    pub(super) fn may_wait_for_lease(&self) -> bool {
        let is_left = |request: LeaseRequest| clock::elapsed() < request.wait_until;
        self.has_place() && self.lease_request.is_some_and(is_left)
    }

    /// Returns true if followers, and this call's own caller, can be served the previous entry meanwhile.
    pub(super) fn is_refresh(&self) -> bool {
        let is_servable = |entry: &StoredEntry| entry.is_servable(clock::mono());
        self.leader.is_some() && self.previous.as_ref().is_some_and(is_servable)
    }

    /// Returns the previous entry, if it is refreshed ahead of its expiry.
    pub(super) fn fresh(&self) -> Option<&StoredEntry> {
        self.previous.as_ref().filter(|entry| entry.freshness(clock::mono()) == Freshness::Fresh)
    }

    /// Returns the entry that may be served while or instead of computing, as its own age permits.
    pub(super) fn usable_previous(&self) -> Option<&StoredEntry> {
        let now = clock::mono();
        let is_usable =
            |entry: &&StoredEntry| entry.is_servable(now) || entry.is_servable_on_error(now);
        self.previous.as_ref().filter(is_usable)
    }

    pub(super) fn start(&mut self, function: &'static str) -> &FunctionRun {
        self.function_run.get_or_insert_with(|| FunctionRun {
            span: tracing::debug_span!("zerocache_compute", function),
            started: clock::elapsed(),
        })
    }
}
