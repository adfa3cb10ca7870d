//! What is answered without the state machine: whose requests are taken, and reads.

use alloc::string::String;

use crate::{
    entry::Lookup,
    key::Key,
    store::{LockFamily, Store},
    time::Now,
    version::Incarnation,
    wire::{Envelope, RefusalCode, Request, Response, cluster_id},
};

/// Which cluster and node a request must mean to be taken here.
#[derive(Clone, Debug)]
pub struct Identity {
    cluster: String,
    pub(super) cluster_id: u64,
    incarnation: Incarnation,
}

impl Identity {
    pub(super) fn new(cluster: &str, incarnation: Incarnation) -> Self {
        Self { cluster: cluster.into(), cluster_id: cluster_id(cluster), incarnation }
    }

    /// The refusal of a request that is meant for another cluster or another node.
    #[must_use]
    pub fn refusal(&self, envelope: &Envelope, request: &Request) -> Option<Response> {
        if envelope.cluster != self.cluster_id {
            let text = alloc::format!("this is a node of the cluster {:?}", self.cluster);
            return Some(Response::refused(RefusalCode::WrongCluster, text));
        }
        let meant = envelope.to.is_none_or(|to| to == self.incarnation);
        if !meant && !matches!(request, Request::Hello(_)) {
            return Some(Response::refused(RefusalCode::WrongNode, "another node stands here now"));
        }
        None
    }
}

/// Reads a key from a node's store and says it as a response.
pub fn read<L: LockFamily>(store: &Store<L>, key: &Key, now: Now, is_final: bool) -> Response {
    match store.get(key, now) {
        Lookup::Hit(entry) => Response::Found {
            value: entry.value,
            metadata: entry.metadata,
            version: entry.version,
            remaining_ms: entry.expires.since_ms(now.mono),
        },
        Lookup::Miss => missed(is_final),
    }
}

/// What a node says of a key for which it has no value: whether others may have one.
#[must_use]
pub fn missed(is_final: bool) -> Response {
    Response::NotFound { warming: !is_final }
}
