//! The rules of a client: which node an operation asks, what an answer means, when the operation is over.
//!
//! Each operation is a state machine over the [`ClientState`] that all operations of a client share:
//!
//! - [`Operation<ReadRules>`](Operation) and [`Operation<WriteRules>`](Operation) for one key,
//! - [`Batch<ReadRules>`](Batch) and [`Batch<WriteRules>`](Batch) for many keys,
//! - [`ConditionalOperation`] for a write on a condition,
//! - [`LeaseRequest`] for the permission to compute a value.
//!
//! Beside them are [`NearRules`] for what a process keeps near, and [`FeedFollower`] for the node whose changes
//! it follows meanwhile.
//!
//! A driver hands in events with the present time and does what comes back: it sends requests, waits, or
//! returns the outcome. The machines do no I/O and read no clock, and nothing in them is random. They hold
//! no keys and values: an [`Outgoing`] request says where to send the driver's own request.
//!
//! Invariants:
//!
//! - Every answer feeds the directory, also one that comes after its operation is over. Only an answer to a
//!   pending attempt can complete an operation: a second answer to the same attempt is ignored, and so is
//!   the answer of another incarnation than the one asked.
//! - A write is sent to another node only if no node can have received it.
//! - An operation completes once.

mod batch;
pub mod buckets;
mod conditional;
mod discovery;
mod feed;
mod hedge;
mod lease;
mod near;
mod operation;
mod outage;
mod own_writes;
mod quantile;
mod read;
mod recent_writes;
mod rules;
mod state;
#[cfg(test)]
mod tests;
mod variant;
mod write;

pub use self::{
    batch::{Batch, BatchAction, BatchReaction, BatchRequest},
    conditional::{ConditionalOperation, ConditionalResult},
    discovery::{HandshakeOutcome, Obstacle, ProbeOutcome},
    feed::{Attachment, FOLLOW_TIMEOUT_MS, FeedEnd, FeedFollower},
    hedge::HedgeShare,
    lease::{LEASE_CHECK_MS, LEASE_WAIT_MS_MAX, LeaseAction, LeaseOutcome, LeaseRequest, Release},
    near::{
        FEED_VALID_MS, FillOutcome, FillPermit, NearItem, NearRules, NearStorage, NearTimes,
        near_hash,
    },
    operation::Operation,
    outage::StrandedEpochs,
    own_writes::{OWN_WRITE_MS, OwnWrite},
    read::{FoundItem, ReadOptions, ReadResult, ReadRules},
    recent_writes::{RECENT_WRITE_MS, RecentWrites},
    rules::KeyRules,
    state::ClientState,
    variant::ClientVariant,
    write::{WriteResult, WriteRules},
};

use alloc::string::String;

use crate::{call::CallResult, route::Step, time::Instant};

/// Names an attempt within its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u32);

/// A request to send. The driver adds what is to be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The attempt that its answer belongs to.
    pub id: AttemptId,
    /// The node to ask.
    pub step: Step,
    /// How long to wait for the answer, in milliseconds, at least 1. After that the answer is
    /// [`CallFailure::NoAnswer`](crate::call::CallFailure::NoAnswer).
    pub timeout_ms: u64,
    /// The highest stamp that the client has seen, for the envelope.
    pub seen: u64,
    /// Whether it is a second request beside a first one that is late.
    pub is_hedge: bool,
}

/// An input of an operation.
#[derive(Debug)]
pub enum Event {
    /// The operation begins.
    Start,
    /// An attempt has ended.
    Answer {
        /// The attempt.
        id: AttemptId,
        /// The response, or why there is none.
        result: CallResult,
        /// The time since the request was sent, in microseconds.
        elapsed_us: u64,
    },
    /// The time that the operation asked for has passed.
    Timer,
    /// The directory may have changed.
    ViewChanged,
    /// The caller has gone: nobody waits for an answer any more.
    Cancelled,
}

/// The result of an event: an attempt that ended, and what to do next.
#[derive(Debug)]
pub struct Reaction<T> {
    /// The attempt that the event ended, for counters and reports.
    pub ended: Option<AttemptReport>,
    /// What to do next.
    pub action: Action<T>,
}

/// What the driver of an [`Operation`] does next.
#[derive(Debug)]
pub enum Action<T> {
    /// Wait for the answers that are pending.
    Wait,
    /// Send this request.
    Send {
        /// The request.
        request: Outgoing,
        /// Deliver [`Event::Timer`] after this time, in microseconds, unless the attempt has ended.
        timer_us: Option<u64>,
    },
    /// No node is known yet, or the one to ask is to be asked later: deliver [`Event::ViewChanged`] when the directory may have changed, and
    /// [`Event::Timer`] at `until`.
    AwaitNodes {
        /// The end of the wait.
        until: Instant,
    },
    /// The operation is over. Answers that are still pending may be dropped or delivered.
    Done(T),
}

impl<T> Reaction<T> {
    pub(self) const fn of(action: Action<T>) -> Self {
        Self { ended: None, action }
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    /// The node that was asked.
    pub step: Step,
    /// Its answer.
    pub result: AttemptResult,
    /// Whether the attempt counts as a failure of the node.
    pub is_error: bool,
    /// Whether the attempt was a hedge whose answer completed the read before the first node answered.
    pub is_hedge_win: bool,
}

/// The answer to an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// A value that the read takes, or the result of the write.
    Answered,
    /// A value older than the read takes.
    Older,
    /// No value.
    NotFound {
        /// Whether the read takes that as a miss without asking others.
        is_authoritative: bool,
    },
    /// A refusal, with its text.
    Refused(String),
    /// No answer in time.
    NoAnswer,
    /// The node could not be asked: there is no connection, another node stands at its address, or its
    /// answer does not fit.
    NotReached,
}

impl AttemptResult {
    /// Whether an attempt that ended so is a failure of its node. A refusal is unless it completes the
    /// operation, because every node would refuse then.
    const fn is_error(&self, completes: bool) -> bool {
        match self {
            Self::NoAnswer | Self::NotReached => true,
            Self::Refused(_) => !completes,
            Self::Answered | Self::Older | Self::NotFound { .. } => false,
        }
    }
}

/// An attempt that is pending.
#[derive(Clone, Copy, Debug)]
struct PendingAttempt {
    id: AttemptId,
    step: Step,
    timeout_ms: u64,
    sent: Instant,
    /// Whether a node that says nothing for a while is silent, and not waiting for others.
    expects_soon: bool,
    /// Whether this is the oldest request that its node has not answered.
    is_oldest: bool,
}
