//! Requests on the fast path: encoded straight into a frame, without a [`Request`] in between.
//!
//! [`Request`]: zerocache_core::wire::Request

use zerocache_core::{
    ttl::Ttl,
    version::VersionSource,
    wire::{Ack, RequestMessage, Writer},
};
use zerocache_net::transport::framed::Encode;

/// What a request takes at most beside its key, value and metadata, in bytes.
const OVERHEAD_BYTES: usize = 64;

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
        version: VersionSource,
    },
    /// Deletes a key.
    Delete {
        /// The highest stamp that the client has seen.
        seen: u64,
        key: &'a [u8],
        ack: Ack,
    },
}

impl FastOp<'_> {
    /// Whether it may be sent again although it may have arrived.
    pub(super) fn is_repeatable(&self) -> bool {
        matches!(self, Self::Get { .. })
    }
}

impl Encode for FastOp<'_> {
    #[inline]
    fn encode(&self, out: &mut Writer<'_>) {
        match *self {
            Self::Get { key } => RequestMessage::encode_get(out, key),
            Self::Put { seen, key, value, metadata, ttl, ack, version } => {
                let parts = (key, value, metadata);
                RequestMessage::encode_put(out, seen, parts, (ttl, ack), version);
            }
            Self::Delete { seen, key, ack } => RequestMessage::encode_delete(out, seen, key, ack),
        }
    }

    #[inline]
    fn size_hint(&self) -> usize {
        let bytes = match self {
            Self::Get { key } | Self::Delete { key, .. } => key.len(),
            Self::Put { key, value, metadata, .. } => key.len() + value.len() + metadata.len(),
        };
        bytes + OVERHEAD_BYTES
    }
}
