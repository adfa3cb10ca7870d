//! What a read found.

use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use zerocache_core::{
    client::FoundItem,
    compression,
    metadata::{Encoding, Freshness, Metadata},
    route::{Step, Tier},
    version::{Incarnation, Version},
};

use crate::{Error, codec};

/// What a read found, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The value, unpacked if it was packed.
    pub value: Bytes,
    /// The version of the write that it comes from.
    pub version: Version,
    /// What remains of its life, in which the times are contained for which it may be served stale.
    pub ttl: Duration,
    /// What its writer said of it.
    pub metadata: Metadata,
    /// How it may be used, by its age; anything but fresh only where stale values were allowed.
    pub freshness: Freshness,
    /// The node that had it.
    pub node: Incarnation,
    /// The tier of that node.
    pub tier: Tier,
}

impl Entry {
    /// Decodes the value as a `T` that was stored as [`Value`](crate::Value).
    ///
    /// # Errors
    /// [`Error::Decode`] if it is another value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Error> {
        Ok(codec::decode(&self.value)?)
    }
}

/// What nodes know of a key.
#[derive(Debug)]
pub(crate) struct ReadAnswer {
    /// The entry that the read takes.
    pub(crate) entry: Option<Entry>,
    /// The highest stamp of a version of the key that they named; 0 if none.
    pub(crate) known: u64,
    /// Whether there is no entry, and none of them could tell that there is none.
    pub(crate) is_doubtful: bool,
}

impl From<Entry> for ReadAnswer {
    fn from(entry: Entry) -> Self {
        Self { known: entry.version.stamp(), entry: Some(entry), is_doubtful: false }
    }
}

impl Entry {
    /// The entry that the node of `step` answered with; none when its metadata or value cannot be
    /// read, which makes it as good as none.
    pub(crate) fn unpack(step: &Step, item: FoundItem) -> Option<Self> {
        let FoundItem { value, metadata, version, remaining_ms } = item;
        let metadata = Metadata::decode(&metadata).ok()?;
        let value = match metadata.encoding {
            Encoding::Plain => value,
            Encoding::Lz4 => compression::decompress(&value).ok()?,
            // What this release cannot unpack does not decode either.
            _ => return None,
        };
        Some(Self {
            freshness: metadata.freshness(remaining_ms),
            ttl: Duration::from_millis(remaining_ms),
            value,
            version,
            metadata,
            node: step.node,
            tier: step.tier,
        })
    }

    /// What remains of its fresh time; zero when that is over.
    #[must_use]
    pub fn fresh_for(&self) -> Duration {
        Duration::from_millis(self.metadata.fresh_ms(super::millis(self.ttl)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> Step {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        Step {
            tier: Tier::Local,
            node: Incarnation(7),
            address,
            bytes_max: 1,
            value_bytes_max: u64::MAX,
        }
    }

    fn found(value: &[u8], metadata: &Metadata, remaining_ms: u64) -> FoundItem {
        let value = Bytes::copy_from_slice(value);
        let version = Version::new(9, Incarnation(7));
        FoundItem { value, metadata: metadata.encode(), version, remaining_ms }
    }

    #[test]
    fn its_age_says_how_it_may_be_used() {
        let mut metadata = Metadata::default();
        (metadata.stale_while_ms, metadata.stale_if_error_ms) = (1_000, 5_000);
        for (remaining_ms, freshness, fresh_ms) in [
            (5_001, Freshness::Fresh, 1),
            (4_500, Freshness::Stale, 0),
            (4_000, Freshness::OnlyOnError, 0),
        ] {
            let entry = Entry::unpack(&step(), found(b"v", &metadata, remaining_ms)).unwrap();
            assert_eq!(entry.freshness, freshness);
            assert_eq!(entry.fresh_for(), Duration::from_millis(fresh_ms));
            assert_eq!(entry.ttl, Duration::from_millis(remaining_ms));
        }
    }

    #[test]
    fn what_was_packed_is_unpacked_and_damage_is_none() {
        let value = b"one of many ".repeat(100);
        let packed = compression::compress(&value).unwrap();
        let mut metadata = Metadata::default();
        metadata.encoding = Encoding::Lz4;
        let entry = Entry::unpack(&step(), found(&packed, &metadata, 1)).unwrap();
        assert_eq!(entry.value, value);
        assert_eq!(Entry::unpack(&step(), found(&packed[1..], &metadata, 1)), None);
        let mut unknown = found(b"v", &metadata, 1);
        unknown.metadata = Bytes::from_static(b"\x04\x01\x09");
        assert_eq!(Entry::unpack(&step(), unknown), None);
    }
}
