//! What follows the envelope, as bytes.

use super::{
    Request,
    tags::{kind, tag},
};
use crate::{
    time::Instant,
    wire::{
        field::Writer,
        repair::{Grain, write_cells, write_hashes, write_numbers, write_stretch},
    },
};

impl Request {
    pub(super) const fn kind(&self) -> u64 {
        match self {
            Self::Hello(_) => kind::HELLO,
            Self::Ping => kind::PING,
            Self::Goodbye => kind::GOODBYE,
            Self::Get { .. } => kind::GET,
            Self::Put { .. } => kind::PUT,
            Self::Delete { .. } => kind::DELETE,
            Self::Replicate(_) => kind::REPLICATE,
            Self::Watch { .. } => kind::WATCH,
            Self::Gossip(_) => kind::GOSSIP,
            Self::Lease { .. } => kind::LEASE,
            Self::Release { .. } => kind::RELEASE,
            Self::Follow { .. } => kind::FOLLOW,
            Self::Sums { .. } => kind::SUMS,
            Self::RowsOf(_) => kind::ROWS_OF,
            Self::VersionsOf(_) => kind::VERSIONS_OF,
            Self::Fetch(_) => kind::FETCH,
            Self::Copy { .. } => kind::COPY,
        }
    }

    /// Whether it may be sent again although it may have arrived.
    #[must_use]
    pub const fn is_repeatable(&self) -> bool {
        matches!(self, Self::Get { .. })
    }

    pub(super) fn payload_bytes(&self) -> usize {
        match self {
            Self::Put { key, value, metadata, .. } => {
                key.as_bytes().len() + value.len() + metadata.len()
            }
            Self::Replicate(shipments) => {
                shipments.iter().map(|s| s.record.payload_bytes() + 48).sum()
            }
            Self::Hello(hello) => hello.size_hint(),
            Self::Gossip(content) => content.len(),
            Self::Get { key }
            | Self::Delete { key, .. }
            | Self::Lease { key, .. }
            | Self::Release { key, .. } => key.as_bytes().len(),
            Self::Ping
            | Self::Goodbye
            | Self::Copy { .. }
            | Self::Watch { .. }
            | Self::Follow { .. } => 0,
            Self::Sums { grain: Grain::Blocks, .. } => 32,
            Self::Sums { grain: Grain::Seconds(places) | Grain::Parts(places), .. } => {
                32 + 8 * places.len()
            }
            Self::RowsOf(cells) => 8 * cells.len(),
            Self::VersionsOf(keys) | Self::Fetch(keys) => 16 * keys.len(),
        }
    }

    pub(super) fn write(&self, out: &mut Writer<'_>, now: Instant) {
        match self {
            Self::Hello(hello) => out.nested(tag::HELLO, |out| hello.write(out)),
            Self::Ping | Self::Goodbye => {}
            Self::Get { key } => out.bytes(tag::KEY, key.as_bytes()),
            Self::Put { key, value, metadata, ttl, ack, token } => {
                out.bytes(tag::KEY, key.as_bytes());
                out.shared(tag::VALUE, value);
                if !metadata.is_empty() {
                    out.bytes(tag::METADATA, metadata);
                }
                out.number(tag::TTL_MS, ttl.as_millis());
                out.number(tag::ACK, ack.to_number());
                if let Some(token) = token {
                    out.bytes(tag::TOKEN, &token.to_bytes());
                }
            }
            Self::Delete { key, ack } => {
                out.bytes(tag::KEY, key.as_bytes());
                out.number(tag::ACK, ack.to_number());
            }
            Self::Lease { key, life_ms, wait_ms, over } => {
                out.bytes(tag::KEY, key.as_bytes());
                out.number(tag::LIFE_MS, *life_ms);
                out.number(tag::WAIT_MS, *wait_ms);
                if let Some(over) = over {
                    out.bytes(tag::OVER, &over.to_bytes());
                }
            }
            Self::Release { key, token, failed } => {
                out.bytes(tag::KEY, key.as_bytes());
                out.bytes(tag::TOKEN, &token.to_bytes());
                if *failed {
                    out.number(tag::FAILED, 1);
                }
            }
            Self::Follow { since } => out.number(tag::SINCE, *since),
            Self::Watch { view } => out.number(tag::VIEW, *view),
            Self::Gossip(content) => out.bytes(tag::GOSSIP, content),
            Self::Replicate(shipments) => {
                for shipment in shipments {
                    out.nested(tag::SHIPMENT, |out| shipment.write(out, now));
                }
            }
            Self::Sums { window, grain, had_ms } => {
                out.number(tag::FROM_SECOND, window.from);
                out.number(tag::TO_SECOND, window.to);
                match grain {
                    Grain::Blocks => {}
                    Grain::Seconds(blocks) => {
                        out.number(tag::GRAIN, 1);
                        write_numbers(out, tag::PLACES, blocks);
                    }
                    Grain::Parts(seconds) => {
                        out.number(tag::GRAIN, 2);
                        write_numbers(out, tag::PLACES, seconds);
                    }
                }
                if let Some(had_ms) = had_ms {
                    out.number(tag::HAD_MS, *had_ms);
                }
            }
            Self::RowsOf(cells) => write_cells(out, tag::CELLS, cells),
            Self::VersionsOf(keys) | Self::Fetch(keys) => write_hashes(out, tag::HASHES, keys),
            Self::Copy { part, last, stretch } => {
                out.number(tag::PART, u64::from(*part));
                if last != part {
                    out.number(tag::LAST_PART, u64::from(*last));
                }
                let tags = [tag::COLDER_THAN, tag::SINCE_TICK];
                write_stretch(out, tags, *stretch);
            }
        }
    }
}
