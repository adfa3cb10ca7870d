//! Proofs of the framed connection: its parts alone, and both sides against a model.

mod batching;
mod connection;
mod gathering;
pub(in crate::transport) mod model;
mod reader;
mod schedules;
mod sink;
mod wakers;
mod writer;

use bytes::Bytes;
use zerocache_core::wire::{
    Writer,
    frame::{Frame, Header, Opcode},
};

use super::Encode;

/// A message of these bytes, as one shared field.
struct Message(Bytes);

impl Message {
    /// A message of about `bytes`, each of which is `fill`.
    fn of(fill: u8, bytes: usize) -> Self {
        Self(Bytes::from(vec![fill; bytes]))
    }
}

impl Encode for Message {
    fn encode(&self, out: &mut Writer<'_>) {
        out.shared(1, &self.0);
    }

    fn size_hint(&self) -> usize {
        self.0.len() + 8
    }
}

fn header(id: u32) -> Header {
    Header { opcode: Opcode::Request, more: false, id, sent_ms: 0, timeout_ms: 0 }
}

/// The whole frames in `bytes`: each header with its payload.
fn frames(mut bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(frame) = Frame::parse(bytes).expect("frames") {
        frames.push((frame.header, bytes[frame.payload_from..frame.end].to_vec()));
        bytes = &bytes[frame.end..];
    }
    assert!(bytes.is_empty(), "{} bytes that are no frame", bytes.len());
    frames
}
