//! Reports of calls.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use zerocache_net::clock;

use super::call::Call;
use super::origin::Blocking;
use crate::client::{ReadReport, ReportedNode};
use crate::codec::CodecError;
use crate::{Error, Version, Written, wait};

/// The outcome of a memoized call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// A node had a value within its lifetime.
    Hit,
    /// The near cache had the value.
    Near,
    /// The value is past its lifetime; another caller, or the background, refreshes it meanwhile.
    Stale,
    /// No node could be reached; the near cache had the value.
    Outage,
    /// There was a servable value; this call refreshed it.
    Refreshed,
    /// There was no usable value; this call computed it.
    Miss,
    /// Another caller, in this process or under a lease, computed it meanwhile.
    Coalesced,
    /// Computing failed; the value is the previous one.
    StaleOnError,
    /// The call did not use the cache: by request, or because it has no key.
    Uncached,
}

impl CallOutcome {
    /// Returns the outcome's name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Near => "near",
            Self::Stale => "stale",
            Self::Outage => "outage",
            Self::Refreshed => "refreshed",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::StaleOnError => "stale-on-error",
            Self::Uncached => "uncached",
        }
    }
}

/// The outcome of a lease request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseOutcome {
    /// This call got the lease and computed.
    Granted,
    /// Another process computed the value meanwhile.
    Found,
    /// Another process had the lease, and was not done in time.
    Busy,
    /// No node could be asked.
    Unavailable,
}

/// The outcome of storing a computed value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallWrite {
    /// A node answered the write.
    Written(Written),
    /// The value was not to be stored: it is an error, its lifetime is zero, `cache_if` rejected it, or the
    /// key was deleted meanwhile.
    NotStored,
    /// The value could not be stored.
    Failed(Error),
}

/// The reason why a call could not use the value under its key. That entry is kept for functions that can
/// decode it; the call uses a shape entry of its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Mismatch {
    /// The error of decoding: usually another release has written the value with another shape.
    pub error: CodecError,
    /// The version of the entry.
    pub version: Version,
    /// The outcome of reading the shape entry.
    pub shape_entry: ShapeEntryOutcome,
    /// The report of that read; `None` if the shape entry was not read.
    pub read: Option<ReadReport>,
}

/// The outcome of reading a shape entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShapeEntryOutcome {
    /// The shape entry had the call's value.
    Found,
    /// There was no shape entry.
    NotFound,
    /// The shape entry belongs to an earlier version of the base entry, which was deleted or replaced since.
    Outdated,
    /// No node answered.
    Unreachable,
    /// It was not read: the call requested a lease first.
    NotRead,
}

impl ShapeEntryOutcome {
    /// Returns the outcome's name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotFound => "not found",
            Self::Outdated => "of an earlier version",
            Self::Unreachable => "unreachable",
            Self::NotRead => "not read",
        }
    }
}

/// The report of a memoized call; from [`Call::explain`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallReport {
    /// The outcome.
    pub outcome: CallOutcome,
    /// The report of the read; `None` if the cache was not read, or another caller of this process read it.
    pub read: Option<ReadReport>,
    /// The reason why the entry under the call's key could not be used; `None` if there is no such entry.
    pub mismatch: Option<Mismatch>,
    /// The outcome of the lease request; `None` if the call requested no lease.
    pub lease: Option<LeaseOutcome>,
    /// The duration of the lease request, including the wait for another process.
    pub lease_time: Option<Duration>,
    /// The node that answered the lease request.
    pub lease_node: Option<ReportedNode>,
    /// The duration of the function; `None` if it did not run.
    pub compute_time: Option<Duration>,
    /// The outcome of storing the value; `None` if nothing was computed.
    pub write: Option<CallWrite>,
    /// The duration of the write; `None` if nothing was written.
    pub write_time: Option<Duration>,
    /// The node that accepted the write.
    pub write_node: Option<ReportedNode>,
    /// The duration of the call, from its first poll.
    pub total: Duration,
}

impl CallReport {
    pub(crate) fn new() -> Self {
        CallReport {
            outcome: CallOutcome::Uncached,
            read: None,
            mismatch: None,
            lease: None,
            lease_time: None,
            lease_node: None,
            compute_time: None,
            write: None,
            write_time: None,
            write_node: None,
            total: Duration::ZERO,
        }
    }
}

/// One line for the call, and one for each step.
impl fmt::Display for CallReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.1?}", self.outcome.as_str(), self.total)?;
        if let Some(read) = &self.read {
            write!(f, "\nread: {read}")?;
        }
        if let Some(Mismatch { error, version, shape_entry, read }) = &self.mismatch {
            write!(f, "\nnot used: version {version}: {error}")?;
            write!(f, "\nshape entry: {}", shape_entry.as_str())?;
            if let Some(read) = read {
                write!(f, ": {read}")?;
            }
        }
        if let Some(lease) = self.lease {
            let text = match lease {
                LeaseOutcome::Granted => "granted",
                LeaseOutcome::Found => "computed by another process meanwhile",
                LeaseOutcome::Busy => "held by another process",
                LeaseOutcome::Unavailable => "no node to ask",
            };
            write!(f, "\nlease: {text}")?;
            by(f, self.lease_node.as_ref(), self.lease_time)?;
        }
        if let Some(compute_time) = self.compute_time {
            write!(f, "\ncomputed: {compute_time:.1?}")?;
        }
        match &self.write {
            Some(CallWrite::Written(written)) => {
                write!(f, "\nwrite: {}", written.status.as_str())?;
                write!(f, ", {} of {} nodes", written.replicas, written.replicas_wanted)?;
            }
            Some(CallWrite::NotStored) => f.write_str("\nwrite: not stored")?,
            Some(CallWrite::Failed(error)) => write!(f, "\nwrite: {error}")?,
            None => {}
        }
        by(f, self.write_node.as_ref(), self.write_time)
    }
}

/// Writes the node and the duration of a step.
fn by(
    f: &mut fmt::Formatter<'_>,
    node: Option<&ReportedNode>,
    took: Option<Duration>,
) -> fmt::Result {
    if let Some(node) = node {
        write!(f, ", {node}")?;
    }
    took.map_or(Ok(()), |took| write!(f, ", {took:.1?}"))
}

pin_project! {
    /// A call that reports its steps; from [`Call::explain`].
    #[must_use = "a call does nothing unless it is awaited"]
    pub struct ExplainCall<F: Future> {
        #[pin]
        call: Call<F>,
        started: Option<Duration>,
    }
}

impl<F: Future> ExplainCall<F> {
    pub(super) fn new(call: Call<F>) -> Self {
        ExplainCall { call, started: None }
    }

    /// Runs the call and blocks the thread meanwhile, as [`Call::wait`] does.
    pub fn wait(self) -> (F::Output, CallReport)
    where
        F: Blocking,
    {
        let ExplainCall { call, started } = self;
        wait::block_on(ExplainCall { call: call.blocking(), started })
    }
}

impl<F: Future> Future for ExplainCall<F> {
    type Output = (F::Output, CallReport);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let started = *this.started.get_or_insert_with(clock::elapsed);
        let value = ready!(this.call.as_mut().poll(context));
        let mut report = this.call.take_report();
        report.total = clock::elapsed().saturating_sub(started);
        Poll::Ready((value, report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_shows_why_a_value_was_not_used() {
        let mut report = CallReport::new();
        let version = Version::new(0x10, zerocache_core::version::Incarnation(7));
        let (error, shape_entry) = (CodecError::Shape, ShapeEntryOutcome::Outdated);
        report.mismatch = Some(Mismatch { error, version, shape_entry, read: None });
        let text = format!(
            "uncached, 0.0ns\nnot used: version {version}: the stored value has another shape than the \
             type asked for\nshape entry: of an earlier version"
        );
        assert_eq!(report.to_string(), text);
    }

    #[test]
    fn report_is_displayed_step_by_step() {
        let mut report = CallReport::new();
        report.total = Duration::from_millis(12);
        assert_eq!(report.to_string(), "uncached, 12.0ms");
        report.outcome = CallOutcome::Miss;
        report.lease = Some(LeaseOutcome::Granted);
        report.lease_time = Some(Duration::from_millis(3));
        report.compute_time = Some(Duration::from_millis(8));
        report.write = Some(CallWrite::Failed(Error::Unreachable { timed_out: false }));
        assert_eq!(
            report.to_string(),
            "miss, 12.0ms\nlease: granted, 3.0ms\ncomputed: 8.0ms\nwrite: no node is reachable"
        );
    }
}
