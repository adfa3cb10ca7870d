//! Writes on a condition as values: put if absent, compare and set, touch, get and delete.
//!
//! The rules are in `zerocache_core::client::ConditionalOperation`.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use zerocache_core::{
    client::{Action, ConditionalOperation, ConditionalResult, Event},
    condition::{Condition, ConditionalOp, ConditionalWrite as Message},
    key::Key,
    ttl::Ttl,
    version::Version,
    wire::{Ack, Request, Status, Written},
};
use zerocache_net::clock;

use super::{
    Running, ZerocacheClient,
    engine::Engine,
    entry::Entry,
    prepared::Prepared,
    timings::{End, Operation},
    valid,
    writes::WriteRequest,
};
use crate::{Error, lifetime::Lifetime, wait};

/// The outcome of a write on a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConditionalOutcome {
    /// The condition held, and the write is stored.
    Stored(Written),
    /// The condition did not hold. Nothing was written.
    NotMet {
        /// The version of the value that the judging node has; none if it has none.
        /// [`at_least`](crate::ops::Get::at_least) reads that value or a newer one.
        current: Option<Version>,
    },
    /// The condition held, and something newer has won already: another write while this one waited for replicas,
    /// or a purge that holds.
    Superseded,
    /// No node judged the condition: those that could be asked are starting or overloaded, or had not received the
    /// version that it names. Nothing was written.
    Refused,
    /// No answer came: the write may have been made or not. Made again, its condition would be judged against its
    /// own effect.
    Unknown,
}

impl ConditionalOutcome {
    /// Returns whether the condition held and the write is stored.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }

    /// Returns the version of the write if it is stored.
    #[must_use]
    pub const fn version(&self) -> Option<Version> {
        match self {
            Self::Stored(written) => written.version,
            _ => None,
        }
    }
}

/// The outcome of [`ZerocacheClient::get_and_delete`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Taken {
    /// The value, which this call deleted.
    Entry(Box<Entry>),
    /// The node had no fresh value, and nothing was written; or it had, and deleted, one that this release cannot
    /// read.
    Missing,
    /// As [`ConditionalOutcome::Superseded`]: a purge holds that ended the value.
    Superseded,
    /// As [`ConditionalOutcome::Refused`].
    Refused,
    /// No answer came: the value may be deleted or not.
    Unknown,
}

impl Taken {
    /// Returns the entry, if this call deleted one.
    #[must_use]
    pub fn entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(*entry),
            _ => None,
        }
    }
}

/// Writes a key on a condition; from [`Write::if_absent`](super::Write::if_absent) and its siblings, and
/// [`ZerocacheClient::touch`].
///
/// A condition holds among the writes of the node that judges it. All clients of a region ask the same node for a
/// key, as long as they know the same nodes and none of these fails, starts or leaves; then one of many that race
/// wins. Otherwise two nodes can both say *stored*, and the higher version wins.
///
/// # Cancellation
/// Nothing is written before it is first polled. From then on the write continues even if it is dropped.
#[must_use = "operations do nothing unless they are awaited"]
pub struct ConditionalWrite {
    call: ConditionalCall,
}

/// Deletes a key and returns its value; from [`ZerocacheClient::get_and_delete`].
///
/// # Cancellation
/// As of [`ConditionalWrite`]: dropped, it may delete a value that nobody gets.
#[must_use = "operations do nothing unless they are awaited"]
pub struct GetAndDelete {
    call: ConditionalCall,
}

impl ConditionalWrite {
    pub(super) fn new(
        client: ZerocacheClient,
        ack: Ack,
        deadline: Option<Duration>,
        (prepared, condition): (Result<Prepared, Error>, Condition),
    ) -> Self {
        let compress_above = client.compress_above();
        let request = prepared.and_then(|prepared| prepared.request(ack, compress_above));
        let message = request.map(|WriteRequest { key, value, ack }| {
            let op = value.map_or(ConditionalOp::Delete, |value| ConditionalOp::Put {
                value: value.value,
                metadata: value.metadata,
                ttl: value.life,
            });
            Message { key, condition, op, ack }
        });
        Self { call: ConditionalCall { client, message, deadline, running: None } }
    }

    pub(super) fn touch(client: ZerocacheClient, key: &[u8], ttl: impl Lifetime) -> Self {
        let op = Ttl::try_from(ttl.into_duration()).map(|ttl| ConditionalOp::Touch { ttl });
        let op = op.map_err(Error::from);
        Self { call: ConditionalCall::new(client, key, op) }
    }

    /// Writes if the stored value has this version, instead of another condition.
    ///
    /// With it, a [`touch`](ZerocacheClient::touch) also renews a value past its fresh time, as long as that may be
    /// served stale.
    pub fn if_version(mut self, version: Version) -> Self {
        if let Ok(message) = &mut self.call.message {
            message.condition = Condition::Version(version);
        }
        self
    }

    /// Who must have it before it is acknowledged; default the node that judges it.
    pub fn ack(mut self, ack: Ack) -> Self {
        if let Ok(message) = &mut self.call.message {
            message.ack = ack;
        }
        self
    }

    /// How long it may take in all, instead of the client's total; at least 1 ms is taken.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.call.deadline = Some(deadline);
        self
    }

    /// Writes now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it: for invalid input, a denial, no reachable node, and nodes that know no conditions.
    pub fn wait(self) -> Result<ConditionalOutcome, Error> {
        wait::block_on(self)
    }
}

impl GetAndDelete {
    pub(super) fn new(client: ZerocacheClient, key: &[u8]) -> Self {
        Self { call: ConditionalCall::new(client, key, Ok(ConditionalOp::Take)) }
    }

    /// How long it may take in all, instead of the client's total; at least 1 ms is taken.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.call.deadline = Some(deadline);
        self
    }

    /// Takes the value now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As [`ConditionalWrite::wait`].
    pub fn wait(self) -> Result<Taken, Error> {
        wait::block_on(self)
    }
}

impl Future for ConditionalWrite {
    type Output = Result<ConditionalOutcome, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.call.poll(context).map_ok(|result| match result {
            ConditionalResult::Written(written) => match written.status {
                Status::Stored => ConditionalOutcome::Stored(written),
                Status::Superseded => ConditionalOutcome::Superseded,
                Status::Refused => ConditionalOutcome::Refused,
                _ => ConditionalOutcome::Unknown,
            },
            ConditionalResult::NotMet { current } => ConditionalOutcome::NotMet { current },
            ConditionalResult::Refused => ConditionalOutcome::Refused,
            // The rest was returned as an error, or does not answer this request.
            _ => ConditionalOutcome::Unknown,
        })
    }
}

impl Future for GetAndDelete {
    type Output = Result<Taken, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.call.poll(context).map_ok(|result| match result {
            ConditionalResult::Taken(step, item, _) => Entry::unpack(&step, item)
                // A value that cannot be read is none.
                .map_or(Taken::Missing, |entry| Taken::Entry(Box::new(entry))),
            ConditionalResult::NotMet { .. } => Taken::Missing,
            ConditionalResult::Written(Written { status: Status::Superseded, .. }) => {
                Taken::Superseded
            }
            ConditionalResult::Refused => Taken::Refused,
            _ => Taken::Unknown,
        })
    }
}

/// A conditional write that has not begun, or is under way.
struct ConditionalCall {
    client: ZerocacheClient,
    message: Result<Message, Error>,
    deadline: Option<Duration>,
    running: Option<Running<ConditionalResult>>,
}

impl ConditionalCall {
    fn new(client: ZerocacheClient, key: &[u8], op: Result<ConditionalOp, Error>) -> Self {
        let key = valid(Bytes::copy_from_slice(key));
        let message = key.and_then(|key| {
            let (condition, ack) = (Condition::Present, Ack::default());
            Ok(Message { key, condition, op: op?, ack })
        });
        Self { client, message, deadline: None, running: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<ConditionalResult, Error>> {
        let Self { client, message, deadline, running } = self;
        let running = running.get_or_insert_with(|| {
            let total_ms = client.total_ms(*deadline);
            let message = message.clone();
            let work = client.run(move |engine: Arc<Engine>| async move {
                engine.write_if(message?, total_ms).await
            });
            work.continue_in_background()
        });
        Pin::new(running).poll(context)
    }
}

impl Engine {
    /// Makes a write on a condition within `total_ms`.
    async fn write_if(&self, message: Message, total_ms: u64) -> Result<ConditionalResult, Error> {
        self.near_writing(&message.key);
        let started = clock::elapsed();
        let outcome = self.drive_conditional(&message, total_ms).await;
        let is_put = matches!(message.op, ConditionalOp::Put { .. } | ConditionalOp::Touch { .. });
        let operation = if is_put { Operation::Put } else { Operation::Delete };
        let (outcome, end) = self.conditional_outcome(&message.key, outcome);
        self.timings.ended(operation, end, started);
        outcome
    }

    pub(super) async fn drive_conditional(
        &self,
        message: &Message,
        total_ms: u64,
    ) -> ConditionalResult {
        let Message { key, op, ack, .. } = message;
        let now = clock::mono();
        let mut operation = ConditionalOperation::new(key.hash(), op, *ack, now, total_ms);
        let (mut changes, mut event) = (None, Event::Start);
        loop {
            let reaction = operation.on(clock::mono(), event, &mut self.state.lock());
            if let Some(report) = &reaction.ended {
                self.count_attempt(report);
            }
            event = match reaction.action {
                Action::Done(outcome) => return outcome,
                Action::Send { request, .. } => {
                    let conditional = Request::Conditional(Box::new(message.clone()));
                    let (result, elapsed_us) = self.ask(&request, conditional).await;
                    Event::Answer { id: request.id, result, elapsed_us }
                }
                Action::AwaitNodes { until } => self.await_change(&mut changes, until).await,
                // Nothing is pending: it cannot come to this.
                Action::Wait => return ConditionalResult::Unknown,
            };
        }
    }

    /// Counts the outcome of a conditional write, and tells the near cache. Returns its result, and what it counts
    /// as among those that are timed.
    fn conditional_outcome(
        &self,
        key: &Key,
        outcome: ConditionalResult,
    ) -> (Result<ConditionalResult, Error>, End) {
        let counted = |status: Status, end: End| {
            self.counters.written(status);
            end
        };
        let end = match &outcome {
            ConditionalResult::Written(written) => {
                self.near_written(key, written.version);
                self.counters.written(written.status);
                End::of_write(&Ok(*written))
            }
            ConditionalResult::Taken(_, _, deleted) => {
                self.near_written(key, Some(*deleted));
                counted(Status::Stored, End::Stored)
            }
            ConditionalResult::NotMet { current } => {
                // What is older than the value there has been replaced.
                self.near_written(key, *current);
                self.counters.not_met();
                End::NotMet
            }
            ConditionalResult::Unknown => {
                self.near_written(key, None);
                counted(Status::Unknown, End::Unknown)
            }
            ConditionalResult::Refused => counted(Status::Refused, End::Refused),
            ConditionalResult::TooLarge { text, is_sent } => {
                self.counters.too_large(*is_sent);
                return (Err(Error::Refused(text.clone())), End::Failed);
            }
            ConditionalResult::Invalid(text) => {
                return (Err(Error::Refused(text.clone())), End::Failed);
            }
            ConditionalResult::Denied(denial, text) => {
                return (Err(self.denied(*denial, text.clone())), End::Failed);
            }
            ConditionalResult::Unsupported => {
                let text = "the nodes are of a release without conditional writes";
                return (Err(Error::Refused(text.to_owned())), End::Failed);
            }
            ConditionalResult::Unreachable => {
                return (Err(self.unreachable(false)), End::Failed);
            }
        };
        (Ok(outcome), end)
    }
}
