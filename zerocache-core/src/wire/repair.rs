//! Messages of repair and of the copy at start: digests, versions and items.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{
    field::{DecodeError, Field, Reader, Writer},
    replication::read_key,
};
use crate::{
    entry::{Change, Record},
    key::{KeyHash, SHARDS},
    limits::{METADATA_BYTES_MAX, VALUE_BYTES_WIRE_MAX},
    store::{CopyCursor, CopyRange, KeyVersion, StoredItem},
    time::Instant,
    ttl::Ttl,
    version::{Incarnation, Version},
};

/// Seconds per block of digests. Blocks begin at multiples of it.
pub const BLOCK_SECONDS: u64 = 64;

/// The most seconds that a window may span. A retention has 3,600, and clocks differ a little.
pub const WINDOW_SECONDS_MAX: u64 = 4_096;

/// The most blocks, seconds or buckets that one request may select.
pub const SELECTORS_MAX: usize = 4_096;

/// The most keys that one request may name.
pub const KEYS_MAX: usize = 4_096;

/// The encoded size of a [`KeyVersion`] in bytes: the hash of a key and a version.
pub const KEY_VERSION_BYTES: usize = 32;

/// The most versions in one response.
pub const VERSIONS_MAX: usize = 1 << 20;

/// The most items in one response.
pub const ITEMS_MAX: usize = 8_192;

/// The most [`SyncAge`]s in one response.
pub const SYNC_AGES_MAX: usize = 1_024;

/// A range of version seconds, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The first second since the Unix epoch.
    pub from: u64,
    /// The last second.
    pub to: u64,
}

impl Window {
    /// Iterates over the numbers of the blocks that overlap the window.
    pub fn blocks(&self) -> impl Iterator<Item = u64> + use<> {
        self.from / BLOCK_SECONDS..=self.to / BLOCK_SECONDS
    }

    /// Returns the part of the window within a block.
    #[must_use]
    pub fn of_block(&self, block: u64) -> Self {
        let first = block.saturating_mul(BLOCK_SECONDS);
        let last = first.saturating_add(BLOCK_SECONDS - 1);
        Self { from: self.from.max(first), to: self.to.min(last) }
    }
}

/// One second of versions in one shard of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    /// The second since the Unix epoch.
    pub second: u64,
    /// The shard.
    pub shard: u8,
}

/// The resolution of the requested digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// One digest per block of the window.
    Blocks,
    /// One digest per second of the window within these blocks.
    Seconds(Vec<u64>),
    /// One digest per shard in each of these seconds.
    Shards(Vec<u64>),
}

/// Digests of the versions that a node knows, and its replication state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// The first second that the digests cover: the start of the window, or the first second about which
    /// this node knows everything, if that is later.
    pub from_second: u64,
    /// The digests.
    pub digests: Vec<u64>,
    /// The time since this node last had everything that each other node knew. Sent only with digests of
    /// blocks.
    pub sync_ages: Vec<SyncAge>,
    /// How long this node may have known versions that no other node knows, in milliseconds: since its
    /// start, or since its last full copy from another node.
    pub lived_ms: u64,
    /// The origin of this node's data. Sent only with digests of blocks.
    pub lineage: Option<Lineage>,
    /// The placement for which this node has handed over what others own, as
    /// [`Placement::id`](crate::cluster::Placement::id). Sent only with digests of blocks.
    pub placed: u64,
}

/// The time since a node last had everything that another node knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncAge {
    /// The other node.
    pub node: Incarnation,
    /// The time since then, in milliseconds.
    pub age_ms: u64,
    /// The time that the other node has lived by now, if it still does, in milliseconds.
    pub lived_ms: u64,
}

/// A chain of nodes that copied from one another, back to one that started alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The node that started alone.
    pub origin: Incarnation,
    /// How long the lineage has been in sync, in milliseconds.
    pub age_ms: u64,
}

/// An item sent to a node that requested it. Its remaining lifetime counts from the sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchedItem {
    /// A value.
    Value {
        /// The record. Its expiry is an instant of a clock that starts at 0 when the item is sent.
        record: Record,
    },
    /// The last version of a key without a value.
    Tombstone(KeyHash, Version),
}

impl FetchedItem {
    /// Converts a stored item for sending at `now`.
    #[must_use]
    pub fn of(item: StoredItem, now: Instant) -> Self {
        match item {
            StoredItem::Tombstone(hash, version) => Self::Tombstone(hash, version),
            StoredItem::Value(mut record) => {
                if let Change::Put { expires, .. } = &mut record.change {
                    *expires = Instant::from_millis(expires.since_ms(now));
                }
                Self::Value { record }
            }
        }
    }

    /// Converts an item received at `now` for storing.
    #[must_use]
    pub fn into_stored(self, now: Instant) -> StoredItem {
        match self {
            Self::Tombstone(hash, version) => StoredItem::Tombstone(hash, version),
            Self::Value { mut record } => {
                if let Change::Put { expires, .. } = &mut record.change {
                    *expires = now.plus_ms(expires.as_millis());
                }
                StoredItem::Value(record)
            }
        }
    }

    /// The payload size in bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Value { record } => record.payload_bytes(),
            Self::Tombstone(..) => 16,
        }
    }

    /// Subtracts the delay of the message from the remaining lifetime.
    pub(super) fn shorten_by(&mut self, delay_ms: u64) {
        if let Self::Value { record } = self
            && let Change::Put { expires, .. } = &mut record.change
        {
            *expires = expires.minus_ms(delay_ms);
        }
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) {
        match self {
            Self::Tombstone(hash, version) => {
                out.bytes(tag::HASH, &hash.0.to_le_bytes());
                out.bytes(tag::VERSION, &version.to_bytes());
            }
            Self::Value { record } => {
                out.bytes(tag::KEY, record.key.as_bytes());
                out.bytes(tag::VERSION, &record.version.to_bytes());
                if let Change::Put { value, metadata, expires } = &record.change {
                    out.shared(tag::VALUE, value);
                    if !metadata.is_empty() {
                        out.bytes(tag::METADATA, metadata);
                    }
                    out.number(tag::REMAINING_MS, expires.as_millis());
                }
            }
        }
    }

    pub(super) fn read(reader: Reader<'_>) -> Result<Self, DecodeError> {
        let (mut key, mut hash, mut version, mut value) = (None, None, None, None);
        let (mut metadata, mut remaining_ms) = (Bytes::new(), None);
        reader.each(|field| {
            match field.tag {
                tag::KEY => key = Some(read_key(&field)?),
                tag::HASH => hash = Some(KeyHash(u128::from_le_bytes(field.array()?))),
                tag::VERSION => version = Some(Version::from_bytes(field.array()?)),
                tag::VALUE => value = Some(field.bounded(VALUE_BYTES_WIRE_MAX)?),
                tag::METADATA => metadata = field.bounded(METADATA_BYTES_MAX)?,
                tag::REMAINING_MS => remaining_ms = Some(field.number()?),
                _ => {}
            }
            Ok(())
        })?;
        let version = version.ok_or(DecodeError::Missing(tag::VERSION))?;
        let Some(value) = value else {
            let hash = hash.or(key.map(|key| key.hash()));
            return Ok(Self::Tombstone(hash.ok_or(DecodeError::Missing(tag::HASH))?, version));
        };
        let remaining_ms = remaining_ms.ok_or(DecodeError::Missing(tag::REMAINING_MS))?;
        if remaining_ms > Ttl::MAX.as_millis() {
            return Err(DecodeError::Invalid(tag::REMAINING_MS));
        }
        let expires = Instant::from_millis(remaining_ms);
        let change = Change::Put { value, metadata, expires };
        let key = key.ok_or(DecodeError::Missing(tag::KEY))?;
        Ok(Self::Value { record: Record { key, version, change } })
    }
}

/// The field tags of an item: those of a replicated record, and a hash in place of a key.
mod tag {
    pub(super) const KEY: u32 = 1;
    pub(super) const VERSION: u32 = 2;
    pub(super) const VALUE: u32 = 3;
    pub(super) const METADATA: u32 = 4;
    pub(super) const REMAINING_MS: u32 = 5;
    pub(super) const HASH: u32 = 7;
}

/// Writes numbers as 8 bytes each, little-endian.
pub(super) fn write_numbers(out: &mut Writer<'_>, tag: u32, numbers: &[u64]) {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    out.bytes(tag, &bytes);
}

/// Reads the numbers of [`write_numbers`], at most `most`.
pub(super) fn read_numbers(field: &Field<'_>, most: usize) -> Result<Vec<u64>, DecodeError> {
    let numbers = chunks::<8>(field, most)?;
    Ok(numbers.map(u64::from_le_bytes).collect())
}

pub(super) fn write_hashes(out: &mut Writer<'_>, tag: u32, hashes: &[KeyHash]) {
    let bytes: Vec<u8> = hashes.iter().flat_map(|hash| hash.0.to_le_bytes()).collect();
    out.bytes(tag, &bytes);
}

pub(super) fn read_hashes(field: &Field<'_>) -> Result<Vec<KeyHash>, DecodeError> {
    let hashes = chunks::<16>(field, KEYS_MAX)?;
    Ok(hashes.map(|bytes| KeyHash(u128::from_le_bytes(bytes))).collect())
}

pub(super) fn write_versions(out: &mut Writer<'_>, tag: u32, versions: &[KeyVersion]) {
    let mut bytes = Vec::with_capacity(versions.len() * KEY_VERSION_BYTES);
    for (hash, version) in versions {
        bytes.extend_from_slice(&hash.0.to_le_bytes());
        bytes.extend_from_slice(&version.to_bytes());
    }
    out.shared(tag, &bytes.into());
}

pub(super) fn read_versions(field: &Field<'_>) -> Result<Vec<KeyVersion>, DecodeError> {
    read_at_most(field, VERSIONS_MAX)
}

/// Reads the versions that a node offers.
pub(super) fn read_offered(field: &Field<'_>) -> Result<Vec<KeyVersion>, DecodeError> {
    read_at_most(field, KEYS_MAX)
}

fn read_at_most(field: &Field<'_>, most: usize) -> Result<Vec<KeyVersion>, DecodeError> {
    let versions = chunks::<KEY_VERSION_BYTES>(field, most)?;
    let key_version = |bytes: [u8; KEY_VERSION_BYTES]| {
        let (mut hash, mut version) = ([0; 16], [0; 16]);
        hash.copy_from_slice(&bytes[..16]);
        version.copy_from_slice(&bytes[16..]);
        (KeyHash(u128::from_le_bytes(hash)), Version::from_bytes(version))
    };
    Ok(versions.map(key_version).collect())
}

pub(super) fn write_sync_ages(out: &mut Writer<'_>, tag: u32, ages: &[SyncAge]) {
    let numbers: Vec<u64> =
        ages.iter().flat_map(|age| [age.node.0, age.age_ms, age.lived_ms]).collect();
    write_numbers(out, tag, &numbers);
}

pub(super) fn read_sync_ages(field: &Field<'_>) -> Result<Vec<SyncAge>, DecodeError> {
    let numbers = read_numbers(field, 3 * SYNC_AGES_MAX)?;
    let age = |n: &[u64; 3]| SyncAge { node: Incarnation(n[0]), age_ms: n[1], lived_ms: n[2] };
    Ok(numbers.as_chunks().0.iter().map(age).collect())
}

pub(super) fn write_lineage(out: &mut Writer<'_>, tag: u32, lineage: Lineage) {
    write_numbers(out, tag, &[lineage.origin.0, lineage.age_ms]);
}

pub(super) fn read_lineage(field: &Field<'_>) -> Result<Lineage, DecodeError> {
    match read_numbers(field, 2)?[..] {
        [origin, age_ms] => Ok(Lineage { origin: Incarnation(origin), age_ms }),
        _ => Err(field.invalid()),
    }
}

/// Writes buckets as numbers: the second above six bits of the shard.
pub(super) fn write_buckets(out: &mut Writer<'_>, tag: u32, buckets: &[Bucket]) {
    let number = |bucket: &Bucket| (bucket.second << 6) | (u64::from(bucket.shard) % SHARDS as u64);
    let numbers: Vec<u64> = buckets.iter().map(number).collect();
    write_numbers(out, tag, &numbers);
}

pub(super) fn read_buckets(field: &Field<'_>) -> Result<Vec<Bucket>, DecodeError> {
    let bucket = |n: u64| Bucket { second: n >> 6, shard: (n & 63) as u8 };
    Ok(read_numbers(field, SELECTORS_MAX)?.into_iter().map(bucket).collect())
}

/// Converts a cursor to its number on the wire.
pub(super) const fn cursor_number(cursor: CopyCursor) -> u64 {
    ((cursor.is_read as u64) << 32) | cursor.tick as u64
}

pub(super) const fn cursor_from(number: u64) -> CopyCursor {
    CopyCursor { is_read: (number >> 32) & 1 == 1, tick: number as u32 }
}

pub(super) fn write_range(out: &mut Writer<'_>, tags: [u32; 2], range: CopyRange) {
    if let Some(cursor) = range.colder_than {
        out.number(tags[0], cursor_number(cursor));
    }
    if let Some(since) = range.since {
        out.number(tags[1], u64::from(since));
    }
}

fn chunks<'a, const N: usize>(
    field: &Field<'a>,
    most: usize,
) -> Result<impl Iterator<Item = [u8; N]> + 'a, DecodeError> {
    let (chunks, rest) = field.content.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(field.invalid());
    }
    if chunks.len() > most {
        return Err(DecodeError::TooMany(field.tag));
    }
    Ok(chunks.iter().copied())
}
