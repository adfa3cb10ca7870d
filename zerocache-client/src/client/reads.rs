//! Reads of one key or many: the driver's side of their outcome.

use std::time::Duration;

use zerocache_core::{
    client::{ReadOptions, ReadResult, ReadRules},
    key::Key,
    metadata::Freshness,
    wire::Request,
};
use zerocache_net::clock;

use super::{
    batch::Outcomes,
    drive::Unsent,
    engine::Engine,
    entry::{Entry, ReadAnswer},
    near_read::NearRead,
    report::{AttemptOutcome, ExplainedGet, ReadOutcome, ReadReport},
    timings::{End, Operation},
};
use crate::{Error, ErrorKind};

impl Engine {
    /// Reads a key within `total_ms`.
    pub(super) async fn get(
        &self,
        key: &Key,
        options: ReadOptions,
        total_ms: u64,
    ) -> Result<ReadAnswer, Error> {
        let read = self.begin(ReadRules::new(key.as_bytes(), &options), total_ms);
        self.finish_get(key, options, read).await
    }

    /// Drives a read to its end.
    pub(super) async fn finish_get(
        &self,
        key: &Key,
        options: ReadOptions,
        read: Unsent<ReadRules>,
    ) -> Result<ReadAnswer, Error> {
        let started = read.started;
        let outcome = self.drive(read, || Request::Get { key: key.clone() }, None).await;
        let read = self.read_outcome(&options, outcome).0;
        self.timings.ended(Operation::Get, End::of_read(&read), started);
        read
    }

    /// Reads a key within `total_ms`, and reports how.
    pub(super) async fn explain(
        &self,
        key: &Key,
        options: ReadOptions,
        total_ms: u64,
    ) -> ExplainedGet {
        let (started, mut attempts) = (clock::elapsed(), Vec::new());
        let read = self.begin(ReadRules::new(key.as_bytes(), &options), total_ms);
        let request = || Request::Get { key: key.clone() };
        let outcome = self.drive(read, request, Some(&mut attempts)).await;
        let (read, decoded) = self.read_outcome(&options, outcome);
        if let Some((last, decoded)) = attempts.last_mut().zip(decoded) {
            last.outcome = decoded;
        }
        let known = read.as_ref().map_or(0, |read| read.known);
        let is_doubtful = read.as_ref().is_ok_and(|read| read.is_doubtful);
        let result = read.map(|read| read.entry);
        let outcome = match &result {
            Ok(Some(entry)) if entry.freshness == Freshness::Fresh => ReadOutcome::Hit,
            Ok(Some(_)) => ReadOutcome::Stale,
            Ok(None) => ReadOutcome::Miss,
            Err(_) => ReadOutcome::Failed,
        };
        let total = clock::elapsed().saturating_sub(started);
        let report = ReadReport { outcome, attempts, total };
        ExplainedGet { result, report, known, is_doubtful }
    }

    /// Reads keys within `total_ms`. No node is asked for keys that are [near](crate::ops::Get::near), if that
    /// is wanted.
    pub(super) async fn get_many(
        &self,
        keys: Vec<Key>,
        options: ReadOptions,
        near: NearRead,
        total_ms: u64,
    ) -> Outcomes<ReadAnswer> {
        let started = clock::elapsed();
        let mut nears = vec![near; keys.len()];
        let near = nears.iter_mut().zip(&keys);
        let near = near.map(|(near, key)| near.find(&self.local, key.as_bytes(), options.at_least));
        let mut outcomes: Vec<_> = near.map(|found| found.map(|entry| Ok(entry.into()))).collect();
        let asked = keys.iter().enumerate().filter(|(index, _)| outcomes[*index].is_none());
        let asked = asked.map(|(index, key)| (index, ReadRules::new(key.as_bytes(), &options)));
        let asked: Vec<_> = asked.collect();
        if !asked.is_empty() {
            let request = |index: usize| Request::Get { key: keys[index].clone() };
            for (index, outcome) in self.drive_batch(asked, total_ms, request).await {
                let read = self.read_outcome(&options, outcome).0;
                if let Ok(ReadAnswer { entry, is_doubtful, .. }) = &read {
                    let answer = (entry.as_ref(), *is_doubtful);
                    nears[index].answered(&self.local, keys[index].as_bytes(), answer);
                }
                outcomes[index] = Some(read);
            }
            self.timed_many(Operation::GetMany, &outcomes, started);
        }
        complete(outcomes)
    }

    /// Counts the outcome of a read. Returns its result, and what a report calls the value that was found.
    pub(super) fn read_outcome(
        &self,
        options: &ReadOptions,
        outcome: ReadResult,
    ) -> (Result<ReadAnswer, Error>, Option<AttemptOutcome>) {
        let (step, item) = match outcome {
            ReadResult::Found(step, item) => (step, item),
            ReadResult::Miss { known, is_doubtful } => {
                self.counters.miss();
                return (Ok(ReadAnswer { entry: None, known, is_doubtful }), None);
            }
            ReadResult::Refused(text) => return (Err(Error::Refused(text)), None),
            ReadResult::Denied(denial, text) => return (Err(self.denied(denial, text)), None),
            ReadResult::Unreachable { timed_out } => {
                return (Err(self.unreachable(timed_out)), None);
            }
        };
        let known = item.version.stamp();
        let Some(entry) = Entry::unpack(&step, item) else {
            self.counters.unreadable();
            let answer = ReadAnswer { entry: None, known, is_doubtful: false };
            return (Ok(answer), Some(AttemptOutcome::Unreadable));
        };
        if entry.freshness == Freshness::Fresh {
            self.counters.hit(step.tier);
            return (Ok(entry.into()), Some(AttemptOutcome::Found));
        }
        let accepted = options.stale;
        self.counters.stale(step.tier, accepted);
        let entry = accepted.then_some(entry);
        let answer = ReadAnswer { entry, known, is_doubtful: false };
        (Ok(answer), Some(AttemptOutcome::Stale { accepted }))
    }

    /// Records how long an operation on many keys took.
    pub(super) fn timed_many<T>(
        &self,
        operation: Operation,
        outcomes: &[Option<Result<T, Error>>],
        started: Duration,
    ) {
        let is_lost = |outcome: &Option<Result<_, Error>>| {
            let error = outcome.as_ref().and_then(|outcome| outcome.as_ref().err());
            error.is_some_and(|error| {
                matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Denied)
            })
        };
        let end = if outcomes.iter().all(is_lost) { End::Failed } else { End::Answered };
        self.timings.ended(operation, end, started);
    }
}

/// The outcome of every key: a batch has one for each.
pub(super) fn complete<T>(outcomes: Vec<Option<Result<T, Error>>>) -> Outcomes<T> {
    let lost = || Err(Error::Unreachable { timed_out: false });
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect()
}
