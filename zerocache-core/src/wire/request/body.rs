//! Fields as they come, and the request that they make.

use alloc::{boxed::Box, vec::Vec};

use bytes::Bytes;

use super::{
    Ack, Request, SHIPMENTS_MAX,
    tags::{kind, tag},
};
use crate::{
    key::{Key, KeyHash, PARTS},
    limits::{METADATA_BYTES_MAX, VALUE_BYTES_WIRE_MAX},
    store::Stretch,
    time::Instant,
    ttl::Ttl,
    version::Version,
    wire::{
        datagram::CONTENT_BYTES_MAX,
        field::{DecodeError, Field},
        hello::Hello,
        record::{Shipment, read_key},
        repair::{
            Cell, Grain, PLACES_MAX, Window, place_from, read_cells, read_hashes, read_numbers,
        },
    },
};

/// The fields of any request, before its kind says which of them matter.
#[derive(Default)]
pub(super) struct Body {
    hello: Option<Hello>,
    key: Option<Key>,
    value: Option<Bytes>,
    metadata: Bytes,
    ttl: Option<Ttl>,
    ack: Ack,
    shipments: Vec<Shipment>,
    gossip: Bytes,
    view: u64,
    window: Window,
    grain: u64,
    places: Vec<u64>,
    had_ms: Option<u64>,
    cells: Vec<Cell>,
    hashes: Vec<KeyHash>,
    part: Option<u8>,
    last_part: Option<u8>,
    colder_than: Option<u64>,
    since_tick: Option<u32>,
    life_ms: u64,
    wait_ms: u64,
    token: Option<Version>,
    failed: bool,
    since: u64,
    over: Option<Version>,
}

impl Body {
    pub(super) fn take(&mut self, field: &Field<'_>, now: Instant) -> Result<(), DecodeError> {
        match field.tag {
            tag::HELLO => self.hello = Some(Hello::read(field.reader())?),
            tag::KEY => self.key = Some(read_key(field)?),
            tag::VALUE => self.value = Some(field.bounded(VALUE_BYTES_WIRE_MAX)?),
            tag::METADATA => self.metadata = field.bounded(METADATA_BYTES_MAX)?,
            tag::TTL_MS => {
                self.ttl = Some(Ttl::from_millis(field.number()?).map_err(|_| field.invalid())?);
            }
            tag::ACK => self.ack = Ack::from_field(field)?,
            tag::SHIPMENT if self.shipments.len() < SHIPMENTS_MAX => {
                self.shipments.push(Shipment::read(field.reader(), now)?);
            }
            tag::VIEW => self.view = field.number()?,
            tag::GOSSIP => self.gossip = field.bounded(CONTENT_BYTES_MAX)?,
            tag::SHIPMENT => return Err(DecodeError::TooMany(field.tag)),
            tag::FROM_SECOND => self.window.from = field.number()?,
            tag::TO_SECOND => self.window.to = field.number()?,
            tag::GRAIN => self.grain = field.number()?,
            tag::PLACES => self.places = read_numbers(field, PLACES_MAX)?,
            tag::HAD_MS => self.had_ms = Some(field.number()?),
            tag::CELLS => self.cells = read_cells(field)?,
            tag::HASHES => self.hashes = read_hashes(field)?,
            tag::PART => self.part = Some(read_part(field)?),
            tag::LAST_PART => self.last_part = Some(read_part(field)?),
            tag::COLDER_THAN => self.colder_than = Some(field.number()?),
            tag::SINCE_TICK => {
                let tick = u32::try_from(field.number()?).map_err(|_| field.invalid())?;
                self.since_tick = Some(tick);
            }
            tag::LIFE_MS => self.life_ms = field.number()?,
            tag::WAIT_MS => self.wait_ms = field.number()?,
            tag::TOKEN => self.token = Some(Version::from_bytes(field.array()?)),
            tag::FAILED => self.failed = field.number()? != 0,
            tag::SINCE => self.since = field.number()?,
            tag::OVER => self.over = Some(Version::from_bytes(field.array()?)),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn into_request(self, kind: u64) -> Result<Request, DecodeError> {
        let key = self.key.ok_or(DecodeError::Missing(tag::KEY));
        Ok(match kind {
            kind::HELLO => {
                Request::Hello(Box::new(self.hello.ok_or(DecodeError::Missing(tag::HELLO))?))
            }
            kind::PING => Request::Ping,
            kind::GOODBYE => Request::Goodbye,
            kind::GET => Request::Get { key: key? },
            kind::PUT => Request::Put {
                key: key?,
                value: self.value.ok_or(DecodeError::Missing(tag::VALUE))?,
                metadata: self.metadata,
                ttl: self.ttl.ok_or(DecodeError::Missing(tag::TTL_MS))?,
                ack: self.ack,
                token: self.token,
            },
            kind::DELETE => Request::Delete { key: key?, ack: self.ack },
            kind::REPLICATE => Request::Replicate(self.shipments),
            kind::WATCH => Request::Watch { view: self.view },
            kind::LEASE => Request::Lease {
                key: key?,
                life_ms: self.life_ms,
                wait_ms: self.wait_ms,
                over: self.over,
            },
            kind::RELEASE => Request::Release {
                key: key?,
                token: self.token.ok_or(DecodeError::Missing(tag::TOKEN))?,
                failed: self.failed,
            },
            kind::FOLLOW => Request::Follow { since: self.since },
            kind::GOSSIP => Request::Gossip(self.gossip),
            kind::SUMS => Request::Sums {
                window: self.window,
                grain: match self.grain {
                    0 => Grain::Blocks,
                    1 => Grain::Seconds(self.places),
                    2 => Grain::Parts(self.places),
                    _ => return Err(DecodeError::Invalid(tag::GRAIN)),
                },
                had_ms: self.had_ms,
            },
            kind::ROWS_OF => Request::RowsOf(self.cells),
            kind::VERSIONS_OF => Request::VersionsOf(self.hashes),
            kind::FETCH => Request::Fetch(self.hashes),
            kind::COPY => Request::Copy {
                part: self.part.ok_or(DecodeError::Missing(tag::PART))?,
                last: self.last_part.or(self.part).unwrap_or_default(),
                stretch: Stretch {
                    colder_than: self.colder_than.map(place_from),
                    since: self.since_tick,
                },
            },
            unknown => return Err(DecodeError::UnknownKind(unknown)),
        })
    }
}

fn read_part(field: &Field<'_>) -> Result<u8, DecodeError> {
    let part = u8::try_from(field.number()?).ok().filter(|part| usize::from(*part) < PARTS);
    part.ok_or(field.invalid())
}
