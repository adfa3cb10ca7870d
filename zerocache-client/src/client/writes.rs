//! Writes of one key or many: what is sent, and the driver's side of their outcome.

use bytes::Bytes;
use zerocache_core::{
    client::{WriteResult, WriteRules},
    key::Key,
    ttl::Ttl,
    wire::{Ack, Request, Status, Written},
};
use zerocache_net::clock;

use super::{
    batch::Outcomes,
    drive::{FirstAttempt, Unsent},
    engine::Engine,
    fast::FastOp,
    prepared::WriteVersion,
    reads::complete,
    timings::{End, Operation},
};
use crate::Error;

/// A write to be sent, possibly to several nodes in turn.
#[derive(Clone, Debug)]
pub(super) struct WriteRequest {
    pub(super) key: Key,
    /// None for a delete.
    pub(super) value: Option<StoredValue>,
    pub(super) ack: Ack,
}

/// A value as nodes store it.
#[derive(Clone, Debug)]
pub(super) struct StoredValue {
    pub(super) value: Bytes,
    pub(super) metadata: Bytes,
    /// The whole life of the entry, with the times for which it may be served stale.
    pub(super) life: Ttl,
    /// Where its version comes from.
    pub(super) version: WriteVersion,
}

impl WriteRequest {
    /// The rules of the write.
    pub(super) fn rules(&self) -> WriteRules {
        let bytes = self.value.as_ref().map(|value| value.value.len() as u64);
        WriteRules::new(self.key.as_bytes(), bytes, self.ack)
    }

    fn message(&self) -> Request {
        let Self { key, value, ack } = self.clone();
        match value {
            Some(StoredValue { value, metadata, life, version }) => {
                let version = version.source();
                Request::Put { key, value, metadata, ttl: life, ack, version }
            }
            None => Request::Delete { key, ack },
        }
    }

    /// The write on the fast path.
    pub(super) fn fast(&self, seen: u64) -> FastOp<'_> {
        let (key, ack) = (&self.key.as_bytes()[..], self.ack);
        match &self.value {
            Some(StoredValue { value, metadata, life, version }) => {
                let version = version.source();
                FastOp::Put { seen, key, value, metadata, ttl: *life, ack, version }
            }
            None => FastOp::Delete { seen, key, ack },
        }
    }

    /// What it counts as among those that are timed.
    pub(super) fn operation(&self) -> Operation {
        if self.value.is_some() { Operation::Put } else { Operation::Delete }
    }
}

impl Engine {
    /// Writes within `total_ms`.
    pub(super) async fn write(
        &self,
        request: WriteRequest,
        total_ms: u64,
    ) -> Result<Written, Error> {
        self.near_writing(&request.key);
        let write = self.begin(request.rules(), total_ms);
        self.finish_write(request, write).await
    }

    /// Drives a write to its end.
    pub(super) async fn finish_write(
        &self,
        request: WriteRequest,
        write: Unsent<WriteRules>,
    ) -> Result<Written, Error> {
        let started = write.started;
        let outcome = self.drive(write, || request.message(), None).await;
        let written = self.write_outcome(&request.key, outcome);
        self.timings.ended(request.operation(), End::of_write(&written), started);
        written
    }

    /// Drives a write whose first request has been sent to its end.
    pub(super) async fn finish_sent_write(
        &self,
        request: WriteRequest,
        write: FirstAttempt<WriteRules>,
    ) -> Result<Written, Error> {
        let started = write.started;
        let outcome = self.drive_sent(write, || request.message()).await;
        let written = self.write_outcome(&request.key, outcome);
        self.timings.ended(request.operation(), End::of_write(&written), started);
        written
    }

    /// Writes or deletes keys within `total_ms`.
    pub(super) async fn write_many(
        &self,
        requests: Vec<WriteRequest>,
        total_ms: u64,
    ) -> Outcomes<Written> {
        if requests.is_empty() {
            return Vec::new();
        }
        let started = clock::elapsed();
        requests.iter().for_each(|request| self.near_writing(&request.key));
        let deletes = requests.first().is_some_and(|request| request.value.is_none());
        let operation = if deletes { Operation::DeleteMany } else { Operation::PutMany };
        let keys = requests.iter().map(WriteRequest::rules).enumerate().collect();
        let message = |index: usize| requests[index].message();
        let mut outcomes: Vec<_> = requests.iter().map(|_| None).collect();
        for (index, outcome) in self.drive_batch(keys, total_ms, message).await {
            outcomes[index] = Some(self.write_outcome(&requests[index].key, outcome));
        }
        self.timed_many(operation, &outcomes, started);
        complete(outcomes)
    }

    /// Counts the outcome of a write, and tells the near cache. Returns its result.
    pub(super) fn write_outcome(&self, key: &Key, outcome: WriteResult) -> Result<Written, Error> {
        match outcome {
            WriteResult::Written(written) => {
                self.near_written(key, written.version);
                self.counters.written(written.status);
                Ok(written)
            }
            WriteResult::Unknown => {
                self.near_written(key, None);
                Ok(self.not_stored(Status::Unknown))
            }
            WriteResult::Refused => Ok(self.not_stored(Status::Refused)),
            WriteResult::TooLarge { text, is_sent } => {
                self.counters.too_large(is_sent);
                Err(Error::Refused(text))
            }
            WriteResult::Invalid(text) => Err(Error::Refused(text)),
            WriteResult::Denied(denial, text) => Err(self.denied(denial, text)),
            WriteResult::Unreachable => {
                self.near_written(key, None);
                Err(self.unreachable(false))
            }
        }
    }

    fn not_stored(&self, status: Status) -> Written {
        self.counters.written(status);
        Written { status, replicas: 0, replicas_wanted: 0, version: None }
    }
}
