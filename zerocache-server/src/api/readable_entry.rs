//! Reads over HTTP: an entry, as long as it is fresh, and its decompressed value.

use bytes::Bytes;
use zerocache_core::{
    compression,
    entry::Entry,
    key::Key,
    metadata::{Encoding, Freshness, Metadata},
    store::Lookup,
    version::Version,
    wire::Response,
};
use zerocache_net::clock;

use super::{Api, error::ApiError};
use crate::http::BodyError;

/// An entry as it is served over HTTP.
#[derive(Debug)]
pub(super) struct ReadableEntry {
    /// The value, perhaps compressed.
    stored: Bytes,
    pub(super) version: Version,
    /// The remaining lifetime, in milliseconds.
    pub(super) remaining_ms: u64,
    pub(super) metadata: Metadata,
    pub(super) freshness: Freshness,
}

impl ReadableEntry {
    /// Reads a key. A stale value is a miss unless `allow_stale`; so is an entry with unreadable metadata.
    pub(super) fn read(api: &Api, key: &Key, allow_stale: bool) -> Result<Self, ApiError> {
        let reader = api.driver.reader();
        let context = reader.context();
        let Lookup::Hit(entry) = reader.get(key, context) else {
            return Err(ApiError::not_found(!context.misses_are_authoritative()));
        };
        let remaining_ms = entry.expires.since_ms(context.now.mono);
        Self::of(api, entry, remaining_ms, allow_stale)
    }

    /// Reads a key as [`read`](Self::read) does, at an owner if other nodes own it, or from disk.
    pub(super) async fn read_anywhere(
        api: &Api,
        key: Key,
        allow_stale: bool,
    ) -> Result<Self, ApiError> {
        if !api.driver.is_elsewhere(&key) {
            return Self::read(api, &key, allow_stale);
        }
        match api.driver.read_elsewhere(key).await {
            Response::Found { value, metadata, version, remaining_ms } => {
                let expires = clock::mono().plus_ms(remaining_ms);
                let entry = Entry { value, metadata, version, expires };
                Self::of(api, entry, remaining_ms, allow_stale)
            }
            Response::NotFound { warming, .. } => Err(ApiError::not_found(warming)),
            Response::Refused(refusal) => Err(refusal.into()),
            _ => Err(ApiError::unexpected()),
        }
    }

    fn of(api: &Api, entry: Entry, remaining_ms: u64, allow_stale: bool) -> Result<Self, ApiError> {
        let Ok(metadata) = Metadata::decode(&entry.metadata) else { return Err(unreadable(api)) };
        let freshness = metadata.freshness(remaining_ms);
        if freshness != Freshness::Fresh && !allow_stale {
            api.counters.stale_misses.add();
            return Err(ApiError::not_found(false));
        }
        if freshness != Freshness::Fresh {
            api.counters.stale_hits.add();
        }
        let Entry { value: stored, version, .. } = entry;
        Ok(Self { stored, version, remaining_ms, metadata, freshness })
    }

    /// Returns the decompressed value. An unreadable one is a miss.
    pub(super) fn value(&self, api: &Api) -> Result<Bytes, ApiError> {
        match self.metadata.encoding {
            Encoding::Plain => Ok(self.stored.clone()),
            Encoding::Lz4 => decompress(api, &self.stored),
            // An encoding of a later release.
            _ => Err(unreadable(api)),
        }
    }
}

/// Decompresses a value. Its memory is charged until it is sent.
fn decompress(api: &Api, compressed: &[u8]) -> Result<Bytes, ApiError> {
    let bytes = compression::decompressed_bytes(compressed).map_err(|_| unreadable(api))?;
    if bytes as u64 > api.value_bytes_max {
        return Err(unreadable(api));
    }
    let charge = api.bodies.charge(bytes).ok_or(BodyError::NoMemory)?;
    let value = compression::decompress(compressed).map_err(|_| unreadable(api))?;
    Ok(charged(value, charge))
}

/// Returns the bytes of `value`; `charge` is held until the last handle to them is dropped.
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
    ApiError::unreadable()
}
