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

/// A batch that waits for what it writes.
struct OpenBatch {
    outcomes: Shared<BoxFuture<BatchOutcomes>>,
    start: oneshot::Sender<BatchInput>,
    puts: Vec<BatchedPut>,
    earlier: Vec<SharedWrite>,
}

impl OpenBatch {
    fn new(client: &ZerocacheClient, options: ManyOptions) -> Self {
        let (start, input) = oneshot::channel();
        let outcomes = Box::pin(run_batch(client.clone(), input, options)) as BoxFuture<_>;
        let (puts, earlier) = (Vec::new(), Vec::new());
        OpenBatch { outcomes: outcomes.shared(), start, puts, earlier }
    }

    /// Gives the batch what it writes.
    fn start(self) -> Shared<BoxFuture<BatchOutcomes>> {
        // The receiver is in the batch.
        let _ = self.start.send((self.puts, self.earlier));
        self.outcomes
    }
}

/// Stores computed values, each with the key of its call, unless their keys were invalidated since the computation
/// began. The result waits until they are stored; they are stored without it too.
pub(super) fn store_many(
    client: &ZerocacheClient,
    writes: Vec<(Bytes, ReadyWrite)>,
    options: ManyOptions,
) -> BoxFuture<()> {
    // Only keys with earlier writes wait for these.
    let [mut at_once, mut later] = [(); 2].map(|()| OpenBatch::new(client, options));
    let Some(runtime) = client.runtime() else {
        // Nobody waits for the writes of a client that cannot work.
        let batched = |(_, ReadyWrite { put, context, .. })| batched(put, &context);
        at_once.puts = writes.into_iter().map(batched).collect();
        let outcomes = at_once.start();
        return Box::pin(async move { drop(outcomes.await) });
    };
    let group = client.memo_counters().flight_group();
    let mut pending_writes = Vec::new();
    for (call_key, ready) in writes.into_iter().filter(|(_, ready)| !ready.is_superseded) {
        let ReadyWrite { put, context, unshared, .. } = ready;
        let put = batched(put, &context);
        let WriteContext { invalidation, leader, .. } = context;
        let write = flight::begin_write(group, &call_key, &invalidation, |pending, sent| {
            let batch = if sent.is_empty() { &mut at_once } else { &mut later };
            batch.earlier.extend(sent);
            let (at, outcomes) = (batch.puts.len(), batch.outcomes.clone());
            batch.puts.push(put);
            let work = Box::pin(async move {
                let outcome = outcomes.await.get(at).cloned().flatten();
                drop((pending, leader));
                outcome
            });
            OnClientRuntime { runtime: runtime.clone(), work }.shared()
        });
        // The table holds the pending write instead of the computation.
        drop(unshared);
        pending_writes.extend(write);
    }
    // The pending writes keep the batches.
    drop([at_once.start(), later.start()]);
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

#[cfg(test)]
mod tests {
    use std::future;

    use zerocache_core::metadata::Metadata;
    use zerocache_net::clock;
    use zerocache_server::EmbeddedNode;
    use zerocache_server::config::{DiscoverySet, ServerConfig};

    use super::*;
    use crate::memo::flight::Role;

    /// After this long the test hangs.
    const MOST: Duration = Duration::from_secs(20);

    fn ready(group: u64, key: &Bytes) -> (Bytes, ReadyWrite) {
        let Role::Leader(leader) = flight::join(group, key, false) else { panic!("it leads") };
        let put = ComputedPut {
            key: key.clone(),
            bytes: Bytes::from_static(b"v"),
            fresh: Duration::from_secs(60),
            metadata: Metadata::default(),
            from: None,
            unstored: None,
        };
        let context = WriteContext {
            invalidation: leader.invalidation().clone(),
            leader: Some(leader),
            grant: None,
            is_shape_entry: false,
        };
        (key.clone(), ReadyWrite { put, context, unshared: None, is_superseded: false })
    }

    #[test]
    fn values_do_not_wait_for_an_earlier_write_of_another_key() {
        let mut config = ServerConfig::new("london");
        config.cluster = "writing-many".to_owned();
        config.addresses = vec![[127, 0, 0, 1].into()];
        (config.port, config.max_bytes) = (0, 64 << 20);
        config.discovery = DiscoverySet::NONE;
        let node = EmbeddedNode::start(config, MOST).expect("a node on a free port");
        let client = ZerocacheClient::builder("london").cluster("writing-many").mdns(false);
        let client = client.seed(node.address().to_string()).build().expect("allowed");
        client.wait_ready(MOST).expect("knows the node");
        let group = client.memo_counters().flight_group();
        let [held, free] = ["held", "free"].map(|key| Bytes::from_static(key.as_bytes()));
        // A write of one key that does not end, and was invalidated since.
        let Role::Leader(leader) = flight::join(group, &held, false) else { panic!("it leads") };
        let runtime = client.runtime().expect("works");
        let never = flight::begin_write(group, &held, leader.invalidation(), |pending, _| {
            let work = Box::pin(async move {
                future::pending::<()>().await;
                drop(pending);
                None
            });
            OnClientRuntime { runtime: runtime.clone(), work }.shared()
        });
        assert_eq!(flight::invalidate(group, &held).len(), 1);
        let options = ManyOptions { ack: Ack::default(), deadline: None, is_near: false };
        let writes = vec![ready(group, &held), ready(group, &free)];
        let stored = store_many(&client, writes, options);
        let until = clock::elapsed() + MOST;
        while client.get("free").wait().expect("reads").is_none() {
            assert!(clock::elapsed() < until, "it waits");
        }
        assert_eq!(client.get("held").wait().expect("reads"), None);
        drop((stored, never, leader));
    }
}
