//! Records that nodes replicate to each other. A lifetime travels as its remaining milliseconds.

use bytes::Bytes;

use super::field::{DecodeError, Field, Reader, Writer};
use crate::{
    entry::{Change, Record},
    key::Key,
    limits::{KEY_BYTES_WIRE_MAX, METADATA_BYTES_MAX, VALUE_BYTES_WIRE_MAX},
    time::Instant,
    ttl::Ttl,
    version::Version,
};

/// A record that is replicated to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicatedRecord {
    /// The write.
    pub record: Record,
    /// The receiver is the relay of its region and forwards the record to its local peers.
    pub relay: bool,
    /// The receiver is a witness of the key: it takes the version, and gets no value.
    pub witness: bool,
}

/// What a witness gets in place of a value.
static NO_VALUE: Bytes = Bytes::new();

mod tag {
    pub(super) const KEY: u32 = 1;
    pub(super) const VERSION: u32 = 2;
    pub(super) const VALUE: u32 = 3;
    pub(super) const METADATA: u32 = 4;
    pub(super) const REMAINING_MS: u32 = 5;
    pub(super) const RELAY: u32 = 6;
    pub(super) const WITNESS: u32 = 8;
}

impl ReplicatedRecord {
    pub(super) fn write(&self, out: &mut Writer<'_>, now: Instant) {
        out.bytes(tag::KEY, self.record.key.as_bytes());
        out.bytes(tag::VERSION, &self.record.version.to_bytes());
        if let Change::Put { value, metadata, expires } = &self.record.change {
            out.shared(tag::VALUE, if self.witness { &NO_VALUE } else { value });
            if !metadata.is_empty() {
                out.bytes(tag::METADATA, metadata);
            }
            out.number(tag::REMAINING_MS, expires.since_ms(now));
        }
        if self.relay {
            out.number(tag::RELAY, 1);
        }
        if self.witness {
            out.number(tag::WITNESS, 1);
        }
    }

    pub(super) fn read(reader: Reader<'_>, now: Instant) -> Result<Self, DecodeError> {
        let (mut key, mut version, mut value) = (None, None, None);
        let (mut metadata, mut remaining_ms) = (Bytes::new(), None);
        let (mut relay, mut witness) = (false, false);
        reader.each(|field| {
            match field.tag {
                tag::KEY => key = Some(read_key(&field)?),
                tag::VERSION => version = Some(Version::from_bytes(field.array()?)),
                tag::VALUE => value = Some(field.bounded(VALUE_BYTES_WIRE_MAX)?),
                tag::METADATA => metadata = field.bounded(METADATA_BYTES_MAX)?,
                tag::REMAINING_MS => remaining_ms = Some(field.number()?),
                tag::RELAY => relay = field.number()? != 0,
                tag::WITNESS => witness = field.number()? != 0,
                _ => {}
            }
            Ok(())
        })?;
        let change = match value {
            None => Change::Delete,
            Some(value) => {
                let remaining = remaining_ms.ok_or(DecodeError::Missing(tag::REMAINING_MS))?;
                if remaining > Ttl::MAX.as_millis() {
                    return Err(DecodeError::Invalid(tag::REMAINING_MS));
                }
                Change::Put { value, metadata, expires: now.plus_ms(remaining) }
            }
        };
        let record = Record {
            key: key.ok_or(DecodeError::Missing(tag::KEY))?,
            version: version.ok_or(DecodeError::Missing(tag::VERSION))?,
            change,
        };
        Ok(Self { record, relay, witness })
    }
}

pub(super) fn read_key(field: &Field<'_>) -> Result<Key, DecodeError> {
    let bytes = field.bounded(KEY_BYTES_WIRE_MAX).map_err(|_| field.invalid())?;
    Key::within(bytes, KEY_BYTES_WIRE_MAX).map_err(|_| field.invalid())
}

/// Returns whether [`read_key`] accepts `bytes`.
pub(super) fn is_key(bytes: &[u8]) -> bool {
    Key::check(bytes, KEY_BYTES_WIRE_MAX).is_ok()
}
