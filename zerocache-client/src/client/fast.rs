//! Requests on the fast path: sent by the caller's own task, over a connection that is open.

use zerocache_core::{ttl::Ttl, wire::Ack};
use zerocache_net::transport::What;

/// A read or write on the fast path.
#[derive(Clone, Copy, Debug)]
pub(super) enum FastOp<'a> {
    /// Reads a key.
    Get { key: &'a [u8] },
    /// Writes a value.
    Put {
        /// The highest stamp that the client has seen.
        seen: u64,
        key: &'a [u8],
        value: &'a [u8],
        metadata: &'a [u8],
        ttl: Ttl,
        ack: Ack,
    },
    /// Deletes a key.
    Delete {
        /// The highest stamp that the client has seen.
        seen: u64,
        key: &'a [u8],
        ack: Ack,
    },
}

impl<'a> FastOp<'a> {
    pub(super) fn parts(self) -> (&'a [u8], What<'a>, u64) {
        match self {
            Self::Get { key } => (key, What::Get, 0),
            Self::Put { seen, key, value, metadata, ttl, ack } => {
                (key, What::Put(value, metadata, ttl, ack), seen)
            }
            Self::Delete { seen, key, ack } => (key, What::Delete(ack), seen),
        }
    }
}
