//! What bypasses the state machine: the check of requests, and reads.

use alloc::string::String;

use crate::{
    key::Key,
    store::{Backend, Lookup, Store},
    time::Now,
    version::{Incarnation, Version},
    wire::{Envelope, RefusalCode, Request, Response, cluster_id},
};

/// A miss names what was stamped within this time, in milliseconds. An older version is below that of what is
/// computed after the miss, whichever clocks stamp them.
const KNOWN_MS: u64 = 5_000;

/// The cluster and node that a request must be addressed to.
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

    /// Returns the refusal of a request that is meant for another cluster or another node.
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

/// What reads of a node's store may be answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadPolicy {
    /// Whether a miss means that no local peer has the key either.
    pub misses_are_authoritative: bool,
    /// Whether a value may be served. A node that was suspended serves none until it has what it missed:
    /// the value may have been deleted or replaced meanwhile.
    pub values_are_current: bool,
}

impl ReadPolicy {
    /// Returns whether a miss means that no local peer has the key either. A node that serves no values
    /// cannot tell.
    #[must_use]
    pub const fn is_miss_authoritative(&self) -> bool {
        self.values_are_current && self.misses_are_authoritative
    }

    /// Returns the result of a read at `now` as a response.
    #[must_use]
    pub fn response(&self, lookup: Lookup, now: Now) -> Response {
        match lookup {
            Lookup::Hit(entry) => Response::Found {
                value: entry.value,
                metadata: entry.metadata,
                version: entry.version,
                remaining_ms: entry.expires.since_ms(now.mono),
            },
            // It could not be read from disk in time, or at all.
            Lookup::OnDisk => Response::NotFound { warming: true, known: 0 },
            Lookup::Miss { known } => {
                let warming = !self.is_miss_authoritative();
                Response::NotFound { warming, known: recent(known, now) }
            }
        }
    }
}

/// Returns the stamp that a miss names: that of what is known of the key, if it is recent; else 0.
pub(super) const fn recent(known: u64, now: Now) -> u64 {
    let is_recent = (known >> Version::COUNTER_BITS) + KNOWN_MS >= now.wall_ms;
    if is_recent { known } else { 0 }
}

/// Reads a key from a node's store, as a response.
pub fn read<B: Backend>(store: &Store<B>, key: &Key, now: Now, policy: ReadPolicy) -> Response {
    let lookup =
        if policy.values_are_current { store.get(key, now) } else { Lookup::Miss { known: 0 } };
    policy.response(lookup, now)
}
