//! What readers over HTTP get of an entry: its value, unpacked, as long as it is fresh.

use bytes::Bytes;
use zerocache_core::{
    compression,
    key::Key,
    metadata::{Encoding, Freshness, Metadata},
    version::Version,
    wire::Response,
};

use super::{Api, error::ApiError};
use crate::http::BodyError;

/// An entry as a reader gets it.
#[derive(Debug)]
pub(super) struct Served {
    /// The value, unpacked.
    pub(super) value: Bytes,
    pub(super) version: Version,
    /// What remains of its life, in milliseconds.
    pub(super) remaining_ms: u64,
    pub(super) metadata: Metadata,
    pub(super) freshness: Freshness,
}

impl Served {
    /// Reads a key. What is past its fresh time is a miss, unless stale values are allowed; what
    /// cannot be read is one in any case.
    pub(super) fn read(api: &Api, key: &Key, allow_stale: bool) -> Result<Self, ApiError> {
        let (value, metadata, version, remaining_ms) = match api.driver.read(key) {
            Response::Found { value, metadata, version, remaining_ms } => {
                (value, metadata, version, remaining_ms)
            }
            Response::NotFound { warming } => return Err(ApiError::not_found(warming)),
            _ => return Err(ApiError::unexpected()),
        };
        let Ok(metadata) = Metadata::decode(&metadata) else { return Err(unreadable(api)) };
        let freshness = metadata.freshness(remaining_ms);
        if freshness != Freshness::Fresh && !allow_stale {
            api.counters.stale_misses.add();
            return Err(ApiError::not_found(false));
        }
        let value = match metadata.encoding {
            Encoding::Plain => value,
            Encoding::Lz4 => unpacked(api, &value)?,
            // What this release cannot unpack does not decode either.
            _ => return Err(unreadable(api)),
        };
        if freshness != Freshness::Fresh {
            api.counters.stale_hits.add();
        }
        Ok(Self { value, version, remaining_ms, metadata, freshness })
    }
}

/// A packed value for a reader who cannot unpack. Its memory is charged until it is sent.
fn unpacked(api: &Api, packed: &[u8]) -> Result<Bytes, ApiError> {
    let bytes = compression::decompressed_bytes(packed).map_err(|_| unreadable(api))?;
    if bytes as u64 > api.value_bytes_max {
        return Err(unreadable(api));
    }
    let charge = api.bodies.charge(bytes).ok_or(BodyError::NoMemory)?;
    let value = compression::decompress(packed).map_err(|_| unreadable(api))?;
    Ok(charged(value, charge))
}

/// The bytes of `value`, whose memory stays charged until the last of them is dropped.
pub(super) fn charged<C: Send + 'static>(value: Bytes, charge: C) -> Bytes {
    Bytes::from_owner(Charged { value, _charge: charge })
}

struct Charged<C> {
    value: Bytes,
    _charge: C,
}

impl<C> AsRef<[u8]> for Charged<C> {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

fn unreadable(api: &Api) -> ApiError {
    api.counters.values_unreadable.add();
    ApiError::not_found(false)
}
