//! The protocol of framed connections, over any byte stream.
//!
//! A framed connection carries many requests at once, in both directions, each answered in its own time.
//! [`FrameReader`] and [`FrameWriter`] are its two directions, and serve both sides. The calling side adds
//! a table of calls and a driver task. `docs/protocol.md` describes the bytes.

mod calls;
mod connection;
mod reader;
mod request;
mod sync;
#[cfg(test)]
pub(super) mod tests;
mod writer;

pub(super) use self::{
    connection::{Connection, FramedCall, drive},
    reader::BoxedRead,
};
pub use self::{
    reader::{FrameReader, Incoming, MemoryBudget, MemoryReservation, UnlimitedMemory},
    request::{CallResult, Completion, FastRequest, Unsent},
    writer::{BoxedWrite, Encode, Flush, FrameWriter},
};

/// The value of the `Upgrade` header of framed connections.
pub const UPGRADE_TOKEN: &str = "zerocache/1";

/// The header in which either side states when it sent its part of the upgrade: its monotonic clock in
/// milliseconds, modulo 2³².
pub const SENT_HEADER: &str = "zerocache-sent-ms";

/// The id of the node's first message on a framed connection: its answer to the handshake.
pub const HANDSHAKE_ID: u32 = 0;
