//! Messages between nodes, and between clients and nodes.
//!
//! A message is `kind ‖ fields`: the kind is a varint, the fields are encoded as in [`field`]. Every
//! request starts with an [`Envelope`]. `docs/protocol.md` lists kinds and tags; tests pin their bytes.

mod changes;
mod datagram;
mod delay;
pub mod field;
pub mod frame;
mod hello;
mod locate;
mod outcome;
mod repair;
mod replication;
mod request;
mod response;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use self::changes::keys_and_purges;
pub use self::{
    changes::{CHANGE_ROW_BYTES, CHANGES_MAX, ChangeRow, KeyChange},
    datagram::{CONTENT_BYTES_MAX, DATAGRAM_BYTES_MAX, Datagram, DatagramKind},
    delay::DelayEstimator,
    field::{DecodeError, Writer},
    hello::{
        ABSENT_MAX, ADDRESSES_MAX, AbsentNode, Hello, MEMBERS_MAX, NodeInfo, NodeState, PROTOCOL,
        features,
    },
    outcome::{Receipt, Refusal, RefusalCode, Status, Written},
    repair::{
        BLOCK_SECONDS, Bucket, Digests, FetchedItem, KEY_VERSION_BYTES, KEYS_MAX, Lineage,
        Resolution, SELECTORS_MAX, SYNC_AGES_MAX, SyncAge, VERSIONS_MAX, WINDOW_SECONDS_MAX,
        Window,
    },
    replication::ReplicatedRecord,
    request::{Ack, Envelope, REPLICATED_RECORDS_MAX, Request, RequestMessage},
    response::{Response, value_too_large},
    session::{Session, SessionKey},
};

/// The most bytes that a message takes beyond the values in it.
pub const MESSAGE_OVERHEAD_BYTES: usize = 256 * 1024;

/// Returns the number that identifies a cluster in every request: a hash of its name.
#[must_use]
pub fn cluster_id(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}
