//! Framed connections: one kind of connection for everything between clients and nodes.
//!
//! `Upgrade: zerocache/1` turns an HTTP connection into one that carries many requests at once, in
//! both directions, each answered in its own time. [`FramedTransport`] is the calling side; the node
//! uses [`Inbox`] and [`Line`] for its own. `docs/protocol.md` describes the bytes.

mod calls;
mod connection;
mod dial;
mod inbox;
mod line;
mod pool;
#[cfg(test)]
mod tests;
mod transport;

pub(crate) use self::connection::FramedCall;
pub use self::{
    inbox::{Charge, Inbox, Incoming, Memory, Unmetered},
    line::{BoxedWrite, Encode, Flush, Line},
    transport::{Connections, FramedTransport, Introduce},
};

/// What the `Upgrade` header says.
pub const UPGRADE_TOKEN: &str = "zerocache/1";

/// The header in which either side says when it sent its part of the upgrade: its monotonic clock in
/// milliseconds, modulo 2³².
pub const SENT_HEADER: &str = "zerocache-sent-ms";

/// The id of the node's first message on a framed connection: its answer to the handshake.
pub const HANDSHAKE_ID: u32 = 0;
