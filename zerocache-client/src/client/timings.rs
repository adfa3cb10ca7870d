//! Durations of operations: counted in atomics, and published once a second.
//!
//! Only operations that asked nodes are timed: timing an answer of the near cache would cost about as much
//! as the answer. Without the feature `metrics` nothing is timed.

#[cfg(feature = "metrics")]
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use zerocache_core::{
    metadata::Freshness,
    wire::{Status, Written},
};

use super::entry::ReadAnswer;
use crate::Error;
#[cfg(feature = "metrics")]
use zerocache_core::client::buckets::{self, BUCKETS};

/// An operation that is timed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    Get,
    Put,
    Delete,
    GetMany,
    PutMany,
    DeleteMany,
}

#[cfg(feature = "metrics")]
impl Operation {
    const ALL: [Self; 6] =
        [Self::Get, Self::Put, Self::Delete, Self::GetMany, Self::PutMany, Self::DeleteMany];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::GetMany => "get_many",
            Self::PutMany => "put_many",
            Self::DeleteMany => "delete_many",
        }
    }
}

/// The outcome of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Hit,
    Stale,
    Miss,
    Stored,
    Superseded,
    Refused,
    Unknown,
    /// A condition did not hold.
    NotMet,
    /// For many keys: a node answered for at least one.
    Answered,
    Failed,
}

impl End {
    #[cfg(feature = "metrics")]
    const ALL: [Self; 10] = [
        Self::Hit,
        Self::Stale,
        Self::Miss,
        Self::Stored,
        Self::Superseded,
        Self::Refused,
        Self::Unknown,
        Self::NotMet,
        Self::Answered,
        Self::Failed,
    ];

    pub(super) fn of_read(read: &Result<ReadAnswer, Error>) -> Self {
        match read.as_ref().map(|read| &read.entry) {
            Ok(Some(entry)) if entry.freshness == Freshness::Fresh => Self::Hit,
            Ok(Some(_)) => Self::Stale,
            Ok(None) => Self::Miss,
            Err(_) => Self::Failed,
        }
    }

    pub(super) fn of_write(write: &Result<Written, Error>) -> Self {
        match write.as_ref().map(|written| written.status) {
            Ok(Status::Stored) => Self::Stored,
            Ok(Status::Superseded) => Self::Superseded,
            Ok(Status::Refused) => Self::Refused,
            Ok(_) => Self::Unknown,
            Err(_) => Self::Failed,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Stored => "stored",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::NotMet => "not_met",
            Self::Answered => "answered",
            Self::Failed => "failed",
        }
    }
}

/// Histograms of durations by operation and outcome, since they were last published.
#[derive(Debug)]
#[cfg_attr(not(feature = "metrics"), derive(Default))]
pub(super) struct Timings {
    /// The buckets of each outcome of each operation.
    #[cfg(feature = "metrics")]
    counts: Box<[AtomicU32]>,
}

#[cfg(feature = "metrics")]
impl Default for Timings {
    fn default() -> Self {
        let rows = Operation::ALL.len() * End::ALL.len();
        Self { counts: (0..rows * BUCKETS).map(|_| AtomicU32::new(0)).collect() }
    }
}

/// Durations of one operation and outcome, each with its count.
#[cfg(feature = "metrics")]
pub(super) type Times = (&'static str, &'static str, Vec<(Duration, usize)>);

impl Timings {
    #[cfg(feature = "metrics")]
    fn row(&self, operation: Operation, end: End) -> &[AtomicU32] {
        let row = operation as usize * End::ALL.len() + end as usize;
        &self.counts[row * BUCKETS..][..BUCKETS]
    }

    /// Counts an operation that started at `started` and ends now.
    #[cfg(feature = "metrics")]
    pub(super) fn ended(&self, operation: Operation, end: End, started: Duration) {
        self.took(operation, end, zerocache_net::clock::elapsed().saturating_sub(started));
    }

    #[cfg(not(feature = "metrics"))]
    pub(super) fn ended(&self, _operation: Operation, _end: End, _started: Duration) {}

    /// Counts an operation that took `time`.
    #[cfg(feature = "metrics")]
    pub(super) fn took(&self, operation: Operation, end: End, time: Duration) {
        self.row(operation, end)[buckets::of(time)].fetch_add(1, Relaxed);
    }

    #[cfg(not(feature = "metrics"))]
    pub(super) fn took(&self, _operation: Operation, _end: End, _time: Duration) {}

    /// Returns what was counted since the last call.
    #[cfg(feature = "metrics")]
    pub(super) fn take(&self) -> impl Iterator<Item = Times> {
        let ends = |operation| End::ALL.map(|end| (operation, end));
        Operation::ALL.into_iter().flat_map(ends).filter_map(|(operation, end)| {
            let counts = self.row(operation, end).iter().enumerate();
            let counted = counts.filter(|(_, count)| count.load(Relaxed) > 0);
            let times = counted.map(|(bucket, count)| {
                // Of a second's operations.
                (buckets::middle(bucket), count.swap(0, Relaxed) as usize)
            });
            let times: Vec<_> = times.collect();
            (!times.is_empty()).then_some((operation.as_str(), end.as_str(), times))
        })
    }
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use super::*;

    #[test]
    fn take_returns_the_counts_since_the_last_call() {
        let timings = Timings::default();
        let time = Duration::from_micros(100);
        for operation in Operation::ALL {
            for end in End::ALL {
                timings.took(operation, end, time);
                timings.took(operation, end, Duration::MAX);
            }
        }
        timings.took(Operation::Delete, End::Failed, time);
        let told: Vec<_> = timings.take().collect();
        let mut kinds: Vec<_> = told.iter().map(|(operation, end, _)| (operation, end)).collect();
        kinds.dedup();
        assert_eq!(kinds.len(), Operation::ALL.len() * End::ALL.len());
        for (operation, end, times) in &told {
            let [(short, count), (_, 1)] = times[..] else { panic!("{times:?}") };
            assert!(short.abs_diff(time) <= time / 8, "{short:?}");
            let twice = (*operation, *end) == ("delete", "failed");
            assert_eq!(count, if twice { 2 } else { 1 });
        }
        assert_eq!(timings.take().count(), 0);
    }
}
