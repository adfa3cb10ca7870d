//! The messages between nodes, and between clients and nodes.
//!
//! A message is `kind ‖ fields`: the kind as a varint, the fields as in [`field`]. Every request
//! starts with an [`Envelope`]. `docs/protocol.md` lists kinds and tags; tests pin their bytes.

mod changes;
mod datagram;
pub mod field;
pub mod frame;
mod hello;
mod lateness;
mod outcome;
mod record;
mod repair;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use self::{
    changes::{CHANGES_MAX, ChangeRow},
    datagram::{CONTENT_BYTES_MAX, DATAGRAM_BYTES_MAX, Datagram, DatagramKind, SessionKey},
    field::{DecodeError, Writer},
    hello::{ADDRESSES_MAX, Hello, MEMBERS_MAX, NodeInfo, NodeState, PROTOCOL, features},
    lateness::Lateness,
    outcome::{Receipt, Refusal, RefusalCode, Status, Sums, Written},
    record::Shipment,
    repair::{
        AGES_MAX, Age, BLOCK_SECONDS, Cell, Grain, KEYS_MAX, Line, PLACES_MAX, Parcel, ROW_BYTES,
        ROWS_MAX, WINDOW_SECONDS_MAX, Window,
    },
    request::{Ack, Envelope, Request, RequestMessage, SHIPMENTS_MAX},
    response::{Response, value_too_large},
};

/// What a message takes at most beyond the values in it, in bytes.
pub const MESSAGE_OVERHEAD_BYTES: usize = 256 * 1024;

/// A number that stands for a cluster's name in every request.
#[must_use]
pub fn cluster_id(name: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}
