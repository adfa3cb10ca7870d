//! One write of many computed values.
//!
//! Each key has its pending write in the table, so that whatever invalidates the key waits for it, and the next caller
//! of the key does not compute meanwhile. All of them wait for the one batch that carries the values.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Shared, join_all};
use tokio::sync::oneshot;

use super::BoxFuture;
use super::flight::{self, Invalidation};
use super::writing::{
    OnClientRuntime, ReadyWrite, SharedWrite, WriteContext, WriteOutcome, count_outcome,
    wait_for_writes,
};
use crate::client::ComputedPut;
use crate::{Ack, ZerocacheClient};

/// Options of one write of many values.
#[derive(Clone, Copy)]
pub(super) struct ManyOptions {
    pub(super) ack: Ack,
    pub(super) deadline: Option<Duration>,
    /// The near cache keeps the values.
    pub(super) is_near: bool,
}

/// One of the values of a batch.
struct BatchedPut {
    put: ComputedPut,
    invalidation: Invalidation,
    is_shape_entry: bool,
}

/// What a batch writes, and the writes that have to complete first.
type BatchInput = (Vec<BatchedPut>, Vec<SharedWrite>);

/// The outcomes of a batch, in the order of its values.
type BatchOutcomes = Arc<[WriteOutcome]>;

/// Stores computed values, each with the key of its call, unless their keys were invalidated since the computation
/// began. The result waits until they are stored; they are stored without it too.
pub(super) fn store_many(
    client: &ZerocacheClient,
    writes: Vec<(Bytes, ReadyWrite)>,
    options: ManyOptions,
) -> BoxFuture<()> {
    let (start, input) = oneshot::channel();
    let batch: Shared<BoxFuture<BatchOutcomes>> =
        (Box::pin(run_batch(client.clone(), input, options)) as BoxFuture<_>).shared();
    let Some(runtime) = client.runtime() else {
        // Nobody waits for the writes of a client that cannot work.
        let batched = |(_, ReadyWrite { put, context, .. })| batched(put, &context);
        // The receiver is in the batch.
        let _ = start.send((writes.into_iter().map(batched).collect(), Vec::new()));
        return Box::pin(async move { drop(batch.await) });
    };
    let group = client.memo_counters().flight_group();
    let (mut puts, mut earlier, mut pending_writes) = (Vec::new(), Vec::new(), Vec::new());
    for (call_key, ready) in writes.into_iter().filter(|(_, ready)| !ready.is_superseded) {
        let ReadyWrite { put, context, unshared, .. } = ready;
        let (put, at, batch) = (batched(put, &context), puts.len(), batch.clone());
        let WriteContext { invalidation, leader, .. } = context;
        let write = flight::begin_write(group, &call_key, &invalidation, |pending, sent| {
            earlier.extend(sent);
            puts.push(put);
            let work = Box::pin(async move {
                let outcome = batch.await.get(at).cloned().flatten();
                drop((pending, leader));
                outcome
            });
            OnClientRuntime { runtime: runtime.clone(), work }.shared()
        });
        // The table holds the pending write instead of the computation.
        drop(unshared);
        pending_writes.extend(write);
    }
    // The receiver is in the batch, of which the pending writes are.
    let _ = start.send((puts, earlier));
    // Others depend on the pending writes: a caller that goes away must not delay them.
    let stored = runtime.spawn(join_all(pending_writes));
    Box::pin(async move { drop(stored.await) })
}

fn batched(put: ComputedPut, context: &WriteContext) -> BatchedPut {
    let WriteContext { invalidation, is_shape_entry, .. } = context;
    BatchedPut { put, invalidation: invalidation.clone(), is_shape_entry: *is_shape_entry }
}

/// Writes what has not been invalidated when it is its turn.
async fn run_batch(
    client: ZerocacheClient,
    input: oneshot::Receiver<BatchInput>,
    options: ManyOptions,
) -> BatchOutcomes {
    let Ok((batched, earlier)) = input.await else { return Arc::default() };
    wait_for_writes(&client, earlier).await;
    let mut outcomes: Vec<WriteOutcome> = batched.iter().map(|_| None).collect();
    let valid = batched.into_iter().enumerate().filter(|(_, put)| !put.invalidation.is_set());
    let (mut places, mut puts) = (Vec::new(), Vec::new());
    for (at, BatchedPut { put, is_shape_entry, .. }) in valid {
        places.push((at, is_shape_entry));
        puts.push(put);
    }
    let written = client.write_computed(puts, options.ack, options.deadline, options.is_near);
    for ((at, is_shape_entry), written) in places.into_iter().zip(written.await) {
        outcomes[at] = Some(count_outcome(&client, written, is_shape_entry));
    }
    outcomes.into()
}
