//! The state machine of a node without peers, with the store of the server.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use zerocache_core::{
    limits::{KEY_BYTES_WIRE_MAX, Limits},
    metadata::Metadata,
    node::{Effect, Input, Node, NodeConfig, RequestId, Write, WriteOp},
    ttl::Ttl,
    version::Incarnation,
    wire::{NodeInfo, NodeState, Response, Status},
};
use zerocache_net::clock;
use zerocache_server::storage::{Mutexes, Storage};

use super::{Name, VALUE_BYTES, put};

/// The lifetime of entries that are written.
pub const TTL_S: u64 = 3_600;

/// Creates a node that is in sync with the cluster of itself.
pub fn start(cluster: &str, store: Arc<Storage>) -> Node<Mutexes> {
    let bytes_max = store.capacity().bytes_max;
    let config = NodeConfig {
        cluster: cluster.into(),
        info: NodeInfo {
            incarnation: Incarnation(1),
            region: "london".into(),
            zone: None,
            addresses: vec![([127, 0, 0, 1], 1).into()],
            state: NodeState::Warming,
            bytes_max,
            name: None,
            replicas: zerocache_core::cluster::Replicas::All,
        },
        limits: Limits { key_bytes_max: KEY_BYTES_WIRE_MAX, value_bytes_max: VALUE_BYTES },
        warm_max_ms: 0,
        outbox_bytes_max: 1 << 20,
        changes_every_ms: NodeConfig::CHANGES_EVERY_MS,
        hot_forwards_per_s: NodeConfig::HOT_FORWARDS_PER_S,
        features: 0,
        requires_tls: false,
        has_snapshot: false,
        secret: [0; 32],
    };
    let mut node = Node::new(config, store, clock::now());
    // There is nobody to set the clock by.
    for input in [Input::DiscoveryComplete, Input::Tick] {
        node.handle(clock::now(), input, &mut Vec::new());
    }
    node
}

/// Panics unless the effects of a write say that it was stored.
pub fn check_stored(effects: &[Effect]) {
    let is_stored = effects.iter().any(|effect| {
        matches!(effect, Effect::Respond { response: Response::Written(written), .. }
            if written.status == Status::Stored)
    });
    assert!(is_stored, "{effects:?}");
}

/// Returns the write of an entry with these metadata, as a client makes it.
pub fn put_of(name: &Name, metadata: &Metadata) -> Write {
    let op = WriteOp::Put {
        value: Bytes::from_static(&[7; VALUE_BYTES]),
        metadata: metadata.encode(),
        ttl: Ttl::from_secs(TTL_S).expect("a lifetime"),
    };
    Write::new(put(name, 0, clock::mono()).key, op)
}

/// Writes an entry as a client does, and returns the microseconds that it took with the wait for the node.
pub fn timed_put(node: &Mutex<Node<Mutexes>>, name: &Name) -> f64 {
    let write = put_of(name, &Metadata::default());
    let mut effects = Vec::new();
    let begin = clock::elapsed();
    node.lock().handle(clock::now(), Input::Write { id: RequestId(0), write }, &mut effects);
    let took = clock::elapsed() - begin;
    check_stored(&effects);
    took.as_nanos() as f64 / 1_000.0
}
