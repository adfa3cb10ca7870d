//! What is measured of requests: durations, sizes of values, outcomes of writes.

use zerocache_core::wire::{Response, Status, Written};

use super::{
    counters::Counter,
    histogram::{DURATIONS_US, Histogram, SIZES},
};

/// The requests whose durations are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimedOperation {
    /// A read.
    Get,
    /// A write of a value.
    Put,
    /// A delete.
    Delete,
    /// A batch of writes from another node.
    Replicate,
    /// A request for a lease, or for the value that its holder computes.
    Lease,
    /// A read of a value from disk, without the time that it waited for its turn.
    Disk,
}

/// What is measured of requests. Durations are in microseconds, sizes in bytes.
#[derive(Debug)]
pub struct RequestMetrics {
    durations: [Histogram; TimedOperation::ALL.len()],
    /// Values that clients wrote.
    pub(super) bytes_in: Histogram,
    /// Values that reads returned.
    pub(super) bytes_out: Histogram,
    writes: [Counter; WriteOutcome::COUNT],
}

/// The end of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    operation: TimedOperation,
    micros: u64,
    /// None unless it is a write.
    outcome: Option<WriteOutcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteOutcome {
    Stored,
    Superseded,
    Refused,
    NotMet,
    Unconfirmed,
}

impl WriteOutcome {
    const COUNT: usize = 5;

    const fn of(response: &Response) -> Self {
        match response {
            Response::Written(Written { status: Status::Stored, .. }) => Self::Stored,
            Response::Written(Written { status: Status::Superseded, .. }) => Self::Superseded,
            Response::Taken(_) => Self::Stored,
            Response::NotMet { .. } => Self::NotMet,
            Response::Unconfirmed => Self::Unconfirmed,
            _ => Self::Refused,
        }
    }
}

impl Completion {
    /// The end of a request that took so many microseconds, with this response.
    pub(crate) fn new(operation: TimedOperation, micros: u64, response: &Response) -> Self {
        let is_write = matches!(operation, TimedOperation::Put | TimedOperation::Delete);
        Self { operation, micros, outcome: is_write.then(|| WriteOutcome::of(response)) }
    }
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            durations: [const { Histogram::new(&DURATIONS_US) }; TimedOperation::ALL.len()],
            bytes_in: Histogram::new(&SIZES),
            bytes_out: Histogram::new(&SIZES),
            writes: Default::default(),
        }
    }
}

impl RequestMetrics {
    /// Returns the durations of an operation.
    #[must_use]
    pub fn duration(&self, operation: TimedOperation) -> &Histogram {
        &self.durations[operation as usize]
    }

    /// Returns the outcomes of writes.
    #[must_use]
    pub fn writes(&self) -> WriteCounts {
        let counts = self.writes.each_ref().map(Counter::get);
        let [stored, superseded, refused, not_met, unconfirmed] = counts;
        WriteCounts { stored, superseded, refused, not_met, unconfirmed }
    }

    /// Counts so many requests that ended alike.
    pub(crate) fn record(&self, completion: Completion, count: u64) {
        let Completion { operation, micros, outcome } = completion;
        self.duration(operation).record(micros, count);
        if let Some(outcome) = outcome {
            self.writes[outcome as usize].add_many(count);
        }
    }

    /// Counts the sizes of values that clients wrote.
    pub(crate) fn record_in(&self, sizes: impl Iterator<Item = usize>) {
        self.bytes_in.record_all(sizes.map(|bytes| bytes as u64));
    }

    /// Counts the size of a value that was returned, which stands for `weight` values.
    pub(crate) fn record_out(&self, bytes: usize, weight: u64) {
        self.bytes_out.record(bytes as u64, weight);
    }
}

impl TimedOperation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Get, Self::Put, Self::Delete, Self::Replicate, Self::Lease, Self::Disk];

    /// Returns the value of the label `operation`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Replicate => "replicate",
            Self::Lease => "lease",
            Self::Disk => "disk",
        }
    }
}

/// Writes of clients that this node answered, by their outcome.
#[derive(Clone, Copy, Debug)]
pub struct WriteCounts {
    /// Stored.
    pub stored: u64,
    /// Lost to a newer write meanwhile.
    pub superseded: u64,
    /// Not carried out.
    pub refused: u64,
    /// Not made, because their condition did not hold.
    pub not_met: u64,
    /// Passed on to an owner that did not answer: they may have been made.
    pub unconfirmed: u64,
}
