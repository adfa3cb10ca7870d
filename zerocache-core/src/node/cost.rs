//! The cost of a request at most: how long it keeps the node busy, and how much its response copies.
//!
//! Invariant: every kind of request has a cost. The match is exhaustive, so that a new kind does not
//! compile without one.

use super::repair::{ITEMS_BYTES_MAX, VERSIONS_PER_RESPONSE};
use crate::{
    condition::ConditionalOp,
    key::SHARDS,
    locate::Spread,
    wire::{
        BLOCK_SECONDS, CHANGE_ROW_BYTES, CHANGES_MAX, CONTENT_BYTES_MAX, KEY_VERSION_BYTES,
        Request, Resolution,
    },
};

/// The cost of any request: one lookup in the store, and a response without a payload.
const BASE: usize = 256;

/// A value in a response; a larger one is shared with the store, and not copied.
const VALUE: usize = 48 << 10;

/// A value that is digested: values have up to some megabytes, and few are as large.
const DIGESTED: usize = 512 << 10;

/// A value that is stored again; as above.
const STORED_AGAIN: usize = 512 << 10;

/// The members in the response to a handshake.
const HELLO: usize = 64 << 10;

/// The copies that the nodes of a cluster have.
const LOCATED: usize = 64 << 10;

/// One change of the feed, encoded.
const CHANGE: usize = 16;

/// One digest.
const DIGEST: usize = 8;

/// Upper bounds of the cost of a request. The caller of a node sums them up, to bound how long it holds the
/// node's lock and what one connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// The bytes that its response copies.
    pub response_bytes: usize,
    /// The remaining work, in bytes: those that are copied into the store, and 256 for each key that is
    /// looked up. A byte stands for about a nanosecond.
    pub work: usize,
}

impl Cost {
    /// Returns the cost of `request`.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        let (response, work) = match request {
            Request::Ping
            | Request::Goodbye
            | Request::Watch { .. }
            | Request::Release { .. }
            | Request::Purge { .. }
            | Request::Delete { .. } => (0, 0),
            Request::Hello(_) => (HELLO, 0),
            Request::Get { .. } | Request::Lease { .. } => (VALUE, 0),
            Request::Put { value, metadata, .. } => (0, value.len() + metadata.len()),
            Request::Conditional(write) => match &write.op {
                ConditionalOp::Put { value, metadata, .. } => {
                    (0, BASE + value.len() + metadata.len())
                }
                ConditionalOp::Delete => (0, BASE),
                ConditionalOp::Touch { .. } | ConditionalOp::Use => (0, STORED_AGAIN),
                ConditionalOp::Take => (VALUE, BASE),
            },
            Request::Replicate(records) => {
                (0, records.iter().map(|one| BASE + one.record.payload_bytes()).sum())
            }
            Request::Follow { .. } => (CHANGE * CHANGES_MAX, 0),
            Request::Listen { .. } => (CHANGE_ROW_BYTES * CHANGES_MAX, 0),
            Request::Gossip(content) => (CONTENT_BYTES_MAX, 16 * content.len()),
            Request::Digests { window, resolution, .. } => {
                let places = match resolution {
                    Resolution::Blocks => {
                        let seconds = window.to.saturating_sub(window.from);
                        usize::try_from(seconds).unwrap_or(usize::MAX)
                    }
                    Resolution::Seconds(blocks) => blocks.len() * BLOCK_SECONDS as usize,
                    Resolution::Shards(seconds) => DIGEST * seconds.len(),
                };
                (0, SHARDS.saturating_mul(places))
            }
            Request::BucketVersions(_) => (KEY_VERSION_BYTES * VERSIONS_PER_RESPONSE, 0),
            Request::KeyVersions(keys) => (KEY_VERSION_BYTES * keys.len(), BASE * keys.len()),
            Request::Fetch(keys) | Request::Adopt(keys) => (ITEMS_BYTES_MAX, BASE * keys.len()),
            Request::Copy { .. } => (ITEMS_BYTES_MAX, 0),
            Request::Offer(versions) => (KEY_VERSION_BYTES * versions.len(), BASE * versions.len()),
            Request::Locate { keys, digest, spread } => {
                let response = if *spread == Spread::Node { BASE * keys.len() } else { LOCATED };
                (response, keys.len() * if *digest { DIGESTED } else { BASE })
            }
        };
        Self { response_bytes: response + BASE, work }
    }

    /// The sum of both.
    #[must_use]
    pub const fn total(self) -> usize {
        self.response_bytes.saturating_add(self.work)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::{key::KeyHash, store::CopyRange, wire::Window};

    #[test]
    fn small_request_for_much_data_costs_much() {
        assert_eq!(Cost::of(&Request::Ping).total(), BASE);
        let window = Window { from: 0, to: u64::MAX };
        let large = [
            Request::Copy {
                first_shard: 0,
                last_shard: 63,
                range: CopyRange::default(),
                owned: false,
            },
            Request::Fetch(vec![KeyHash(1)]),
            Request::BucketVersions(vec![]),
            Request::Digests { window, resolution: Resolution::Blocks, last_sync_ms: None },
        ];
        for request in large {
            assert!(Cost::of(&request).total() >= 512 << 10, "{request:?}");
        }
    }
}
