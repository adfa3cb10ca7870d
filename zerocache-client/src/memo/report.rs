//! What one call did, for a person who asks why.

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

/// What a memoized call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// A node had a value within its lifetime.
    Hit,
    /// The value was in this process.
    Near,
    /// The value is past its lifetime; somebody computes it anew meanwhile.
    Stale,
    /// There was a value that could have been served; this call computed it anew.
    Refreshed,
    /// There was nothing that could be used; this call computed.
    Miss,
    /// Another caller, in this process or under a lease, computed it meanwhile.
    Coalesced,
    /// Computing failed; the value is an older one.
    StaleOnError,
    /// The call went without the cache: it was asked to, or has no key.
    Uncached,
}

impl CallOutcome {
    /// The outcome's name in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Near => "near",
            Self::Stale => "stale",
            Self::Refreshed => "refreshed",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::StaleOnError => "stale-on-error",
            Self::Uncached => "uncached",
        }
    }
}

/// What asking for a lease came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseOutcome {
    /// This call was the one to compute.
    Granted,
    /// Another process computed the value meanwhile.
    Found,
    /// Another process was at it, and not done in time.
    Busy,
    /// There was no node to ask.
    Unavailable,
}

/// What became of a computed value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallWrite {
    /// A node was told, and said this.
    Written(Written),
    /// It was not to be stored: an error, a lifetime of zero, a refused one, or a key that was
    /// deleted meanwhile.
    Left,
    /// It could not be stored.
    Failed(Error),
}

/// Why the value that a call found under its key was of no use to it. It stays there for those who can
/// read it; the call has its own beside it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Mismatch {
    /// What kept it from being used: most often it has another shape, as those of another release.
    pub error: CodecError,
    /// The version of its entry.
    pub version: Version,
    /// What there was beside it.
    pub beside: Beside,
    /// How that was read; none if it was not.
    pub read: Option<ReadReport>,
}

/// What a call found beside a value that it cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Beside {
    /// Its own value.
    Found,
    /// Nothing.
    Nothing,
    /// A value that belongs to another version of the entry beside which it stands: that one was deleted or
    /// replaced since.
    Outdated,
    /// No node answered.
    NotReached,
    /// It asked for a lease at once.
    NotLookedFor,
}

impl Beside {
    /// The word for it in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Nothing => "none",
            Self::Outdated => "of an earlier version",
            Self::NotReached => "not reached",
            Self::NotLookedFor => "not looked for",
        }
    }
}

/// What a memoized call did; from [`Call::explain`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallReport {
    /// What it came to.
    pub outcome: CallOutcome,
    /// How the cache was read; none if it was not, or another caller of this process did it.
    pub read: Option<ReadReport>,
    /// Why what was found under the call's key could not be used; none where it could, or nothing was.
    pub mismatch: Option<Mismatch>,
    /// What asking for a lease came to; none where the function has none, or needed none.
    pub lease: Option<LeaseOutcome>,
    /// How long that took, waiting for another process included; none if it was not asked for.
    pub leasing: Option<Duration>,
    /// The node that answered to that; none if none did.
    pub lease_node: Option<ReportedNode>,
    /// How long the function ran; none if it did not.
    pub computing: Option<Duration>,
    /// What became of the computed value; none if nothing was computed.
    pub write: Option<CallWrite>,
    /// How long nodes took to store it; none if none was asked to.
    pub writing: Option<Duration>,
    /// The node that took it; none if none did.
    pub write_node: Option<ReportedNode>,
    /// How long the call took, from its first poll.
    pub total: Duration,
}

impl CallReport {
    pub(crate) fn new() -> Self {
        CallReport {
            outcome: CallOutcome::Uncached,
            read: None,
            mismatch: None,
            lease: None,
            leasing: None,
            lease_node: None,
            computing: None,
            write: None,
            writing: None,
            write_node: None,
            total: Duration::ZERO,
        }
    }
}

/// One line for the call, and one for each thing that it did.
impl fmt::Display for CallReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.1?}", self.outcome.as_str(), self.total)?;
        if let Some(read) = &self.read {
            write!(f, "\nread: {read}")?;
        }
        if let Some(Mismatch { error, version, beside, read }) = &self.mismatch {
            write!(f, "\nnot used: version {version}: {error}")?;
            write!(f, "\nits own value beside it: {}", beside.as_str())?;
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
            by(f, self.lease_node.as_ref(), self.leasing)?;
        }
        if let Some(computing) = self.computing {
            write!(f, "\ncomputed: {computing:.1?}")?;
        }
        match &self.write {
            Some(CallWrite::Written(written)) => {
                write!(f, "\nwrite: {}", written.status.as_str())?;
                write!(f, ", {} of {} nodes", written.replicas, written.replicas_wanted)?;
            }
            Some(CallWrite::Left) => f.write_str("\nwrite: not to be stored")?,
            Some(CallWrite::Failed(error)) => write!(f, "\nwrite: {error}")?,
            None => {}
        }
        by(f, self.write_node.as_ref(), self.writing)
    }
}

/// By which node something was done, and how long it took.
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
    /// A call that tells what it did; from [`Call::explain`].
    #[must_use = "a call does nothing unless it is awaited"]
    pub struct ExplainCall<F: Future> {
        #[pin]
        call: Call<F>,
        began: Option<Duration>,
    }
}

impl<F: Future> ExplainCall<F> {
    pub(super) fn new(call: Call<F>) -> Self {
        ExplainCall { call, began: None }
    }

    /// Runs the call and blocks the thread meanwhile, as [`Call::wait`] does.
    pub fn wait(self) -> (F::Output, CallReport)
    where
        F: Blocking,
    {
        let ExplainCall { call, began } = self;
        wait::block_on(ExplainCall { call: call.blocking(), began })
    }
}

impl<F: Future> Future for ExplainCall<F> {
    type Output = (F::Output, CallReport);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let began = *this.began.get_or_insert_with(clock::elapsed);
        let value = ready!(this.call.as_mut().poll(context));
        let mut report = this.call.take_report();
        report.total = clock::elapsed().saturating_sub(began);
        Poll::Ready((value, report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_why_a_value_was_not_used() {
        let mut report = CallReport::new();
        let version = Version::new(0x10, zerocache_core::version::Incarnation(7));
        let (error, beside) = (CodecError::Shape, Beside::Outdated);
        report.mismatch = Some(Mismatch { error, version, beside, read: None });
        let text = format!(
            "uncached, 0.0ns\nnot used: version {version}: the stored value has another shape than the \
             type asked for\nits own value beside it: of an earlier version"
        );
        assert_eq!(report.to_string(), text);
    }

    #[test]
    fn a_report_reads_as_text() {
        let mut report = CallReport::new();
        report.total = Duration::from_millis(12);
        assert_eq!(report.to_string(), "uncached, 12.0ms");
        report.outcome = CallOutcome::Miss;
        report.lease = Some(LeaseOutcome::Granted);
        report.leasing = Some(Duration::from_millis(3));
        report.computing = Some(Duration::from_millis(8));
        report.write = Some(CallWrite::Failed(Error::Unreachable { timed_out: false }));
        assert_eq!(
            report.to_string(),
            "miss, 12.0ms\nlease: granted, 3.0ms\ncomputed: 8.0ms\nwrite: no node is reachable"
        );
    }
}
