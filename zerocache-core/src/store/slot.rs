//! One stored entry: its slot, and the block with key, metadata and value.

use alloc::boxed::Box;
use core::ops::Deref;

use bytes::Bytes;

use super::{
    backend::Pages,
    log::{BlockAddress, Log},
};
use crate::{
    entry::Entry,
    key::KeyHash,
    limits::{KEY_BYTES_WIRE_MAX, METADATA_BYTES_MAX},
    purge::is_reserved,
    time::Instant,
    version::{Incarnation, Version},
};

/// Bytes charged for an entry beyond its payload: slot, table, expiry index, and header in the log.
///
/// A release build on 64-bit Linux took 86 to 87 bytes with 100,000 to a million entries, depending on how
/// full the tables were (keys of 32 bytes, values of 100, lifetimes spread over an hour, half of the entries
/// read).
pub const ENTRY_OVERHEAD_BYTES: u64 = 90;

/// Bytes charged for the handle of a shared block and its reference count.
const SHARED_OVERHEAD_BYTES: u64 = 80;

/// The page size of memory for shared blocks, in bytes.
const PAGE_BYTES: usize = 4 * 1024;

/// The size of a segment as a fraction of the budget (1/1024): segments that are not full waste little of the
/// budget, and their number is bounded.
const SEGMENT_FRACTION: u64 = 1_024;

/// The bounds of the size of a segment.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// The largest entry in a segment as a fraction of the segment (1/8), so that little is wasted at its end.
const PACKED_FRACTION: u64 = 8;

/// The largest entry in a segment in bytes, because readers copy entries in segments. It is larger if the
/// budget is so large that entries of this size would need too many memory mappings (Linux allows 65,530 by
/// default).
const COPIED_BYTES_MAX: u64 = 48 << 10;
const MAPPINGS_MAX: u64 = 32_768;

/// The sizes of segments, and of the entries stored in them. They follow from the budget.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The size of a segment in bytes.
    pub segment_bytes: usize,
    packed_bytes_max: usize,
}

impl Sizes {
    /// Returns the sizes for a store of `bytes_max`.
    #[must_use]
    pub fn of(bytes_max: u64) -> Self {
        let segment = (bytes_max / SEGMENT_FRACTION).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let copied = COPIED_BYTES_MAX.max(bytes_max / MAPPINGS_MAX);
        let packed = (segment / PACKED_FRACTION).min(copied);
        Self { segment_bytes: segment as usize, packed_bytes_max: packed as usize }
    }

    /// Returns whether an entry with this payload is stored in a segment with others.
    #[inline]
    #[must_use]
    pub const fn is_packed(self, payload_bytes: usize) -> bool {
        payload_bytes <= self.packed_bytes_max
    }

    /// Returns the bytes charged for an entry with this payload.
    #[must_use]
    pub const fn weight_of(self, payload_bytes: usize) -> u64 {
        if self.is_packed(payload_bytes) {
            packed_weight(payload_bytes)
        } else {
            shared_weight(payload_bytes)
        }
    }
}

const fn packed_weight(payload_bytes: usize) -> u64 {
    payload_bytes as u64 + ENTRY_OVERHEAD_BYTES
}

const fn shared_weight(payload_bytes: usize) -> u64 {
    let pages = payload_bytes.next_multiple_of(PAGE_BYTES) as u64;
    pages + ENTRY_OVERHEAD_BYTES + SHARED_OVERHEAD_BYTES
}

/// No slot: the end of a queue.
pub const NOWHERE: u32 = u32::MAX;

/// The class of an entry, and the queue that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Never read here. Unread entries are evicted first. With [`EvictionPolicy::Lru`] all entries.
    ///
    /// [`EvictionPolicy::Lru`]: super::EvictionPolicy::Lru
    Unread,
    /// Read at least once, or stored again soon after it was evicted unread.
    Read,
    /// Written by nodes alone: purges. Neither read nor evicted.
    Reserved,
}

impl Class {
    /// The number of classes.
    pub const COUNT: usize = 3;
    /// All classes.
    pub const ALL: [Self; Self::COUNT] = [Self::Unread, Self::Read, Self::Reserved];

    /// Returns the class of a new entry with this key.
    #[inline]
    #[must_use]
    pub fn of_new(key: &[u8]) -> Self {
        if is_reserved(key) { Self::Reserved } else { Self::Unread }
    }
}

/// The fixed part of a stored entry. One cache line.
#[derive(Debug)]
#[repr(align(64))]
pub struct Slot {
    /// Key, metadata and value.
    pub block: Block,
    /// The version of the write.
    pub version: Version,
    /// The time from which the entry is no longer served.
    pub expires: Instant,
    /// Bits of the table hash of the key.
    pub table_bits: u32,
    /// The neighbour in the queue that is evicted before this entry.
    pub older: u32,
    /// The neighbour in the queue that is evicted after this entry.
    pub newer: u32,
    tick_low: u32,
    tick_high: u16,
    /// The length of the key, less one: no key is empty, and the longest one has 64 KiB.
    key_bytes_less_one: u16,
    metadata_bytes: u16,
    /// The queue of the entry.
    pub class: Class,
    /// How often the entry was read since it was put at the end of its queue, up to [`USES_MAX`]; one less for
    /// each time that it was spared since.
    pub uses: u8,
}

/// The most uses that an entry counts. More say little about its future, and keep what nobody reads any more for
/// longer.
pub const USES_MAX: u8 = 3;

/// The bits of a tick that a slot stores: they wrap around after nine years of a million ticks per second.
pub const TICK_BITS: u32 = 48;

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Slot>() == 64);
const _: () = assert!(METADATA_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(KEY_BYTES_WIRE_MAX <= u16::MAX as usize + 1);

/// Key, metadata and value, one after the other, in memory of the store: a block does not keep a larger
/// buffer alive.
#[derive(Debug)]
pub enum Block {
    /// In a segment with others. Readers copy it.
    Packed(BlockAddress),
    /// In memory of its own, which readers share.
    // Boxed, so that the enum takes no more than two words.
    Shared(Box<Bytes>),
}

/// An entry to store.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The metadata, at most 64 KiB.
    pub metadata: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The version of the write.
    pub version: Version,
    /// The time from which the entry is no longer served.
    pub expires: Instant,
}

impl<'a> NewEntry<'a> {
    /// Returns the contents of the block.
    #[must_use]
    pub const fn contents(&self) -> [&'a [u8]; 3] {
        [self.key, self.metadata, self.value]
    }

    /// Returns the payload in bytes.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.key.len() + self.metadata.len() + self.value.len()
    }
}

/// A stored entry in place.
#[derive(Debug)]
pub struct SlotRef<'a, P> {
    slot: &'a Slot,
    log: &'a Log<P>,
}

impl<P> Clone for SlotRef<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for SlotRef<'_, P> {}

/// The value, metadata and version of a stored entry, in place.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    /// The value, possibly empty.
    pub value: &'a [u8],
    /// Tagged fields that nodes forward unchanged.
    pub metadata: &'a [u8],
    /// The version of the write.
    pub version: Version,
    /// The time from which the entry is no longer served.
    pub expires: Instant,
    shared: Option<&'a Bytes>,
    value_at: usize,
}

impl Default for Slot {
    /// The content of unused slots.
    fn default() -> Self {
        Self {
            block: Block::Shared(Box::default()),
            version: Version::new(0, Incarnation(0)),
            expires: Instant::default(),
            table_bits: 0,
            older: NOWHERE,
            newer: NOWHERE,
            tick_low: 0,
            tick_high: 0,
            key_bytes_less_one: 0,
            metadata_bytes: 0,
            class: Class::Unread,
            uses: 0,
        }
    }
}

impl Slot {
    /// Creates the slot of an entry in `block`.
    ///
    /// # Panics
    /// If the metadata or the key is longer than 64 KiB, or the key empty.
    #[must_use]
    pub fn new(entry: &NewEntry<'_>, block: Block, table_bits: u32) -> Self {
        let metadata_bytes = u16::try_from(entry.metadata.len());
        let key_bytes_less_one = u16::try_from(entry.key.len().wrapping_sub(1));
        let (Ok(metadata_bytes), Ok(key_bytes_less_one)) = (metadata_bytes, key_bytes_less_one)
        else {
            panic!("{} bytes of key, {} of metadata", entry.key.len(), entry.metadata.len());
        };
        Self {
            block,
            version: entry.version,
            expires: entry.expires,
            table_bits,
            key_bytes_less_one,
            metadata_bytes,
            ..Self::default()
        }
    }

    /// Returns the bytes charged for this entry.
    #[must_use]
    pub fn weight(&self) -> u64 {
        match &self.block {
            Block::Packed(address) => packed_weight(address.bytes()),
            Block::Shared(bytes) => shared_weight(bytes.len()),
        }
    }

    /// Returns the length of the key in bytes.
    #[inline]
    const fn key_bytes(&self) -> usize {
        self.key_bytes_less_one as usize + 1
    }

    /// Returns the tick at which the entry was put at the end of its queue: a counter of the store, not a clock.
    #[must_use]
    pub const fn tick(&self) -> u64 {
        (self.tick_high as u64) << 32 | self.tick_low as u64
    }

    /// Sets the tick, of which [`TICK_BITS`] are kept.
    pub const fn set_tick(&mut self, tick: u64) {
        (self.tick_low, self.tick_high) = (tick as u32, (tick >> 32) as u16);
    }

    /// Returns whether the entry is expired at `now`.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires <= now
    }
}

impl Block {
    /// Creates a block in memory of its own.
    #[must_use]
    pub fn shared<P: Pages>(contents: [&[u8]; 3]) -> Self {
        let mut pages = P::to_fill(contents.iter().map(|content| content.len()).sum());
        let mut room = pages.as_mut();
        for content in contents {
            let (here, rest) = room.split_at_mut(content.len());
            here.copy_from_slice(content);
            room = rest;
        }
        Self::Shared(Box::new(Bytes::from_owner(pages)))
    }
}

impl<'a, P: Pages> SlotRef<'a, P> {
    /// Creates the reference to an entry whose block may be in `log`.
    #[inline]
    #[must_use]
    pub const fn new(slot: &'a Slot, log: &'a Log<P>) -> Self {
        Self { slot, log }
    }

    #[inline]
    fn bytes(self) -> &'a [u8] {
        match &self.slot.block {
            Block::Packed(address) => self.log.bytes(*address),
            Block::Shared(bytes) => bytes,
        }
    }

    /// Returns the key.
    #[inline]
    #[must_use]
    pub fn key(self) -> &'a [u8] {
        &self.bytes()[..self.slot.key_bytes()]
    }

    /// Returns the hash of the key.
    #[must_use]
    pub fn hash(self) -> KeyHash {
        KeyHash::of(self.key())
    }

    /// Returns value, metadata and version in place.
    #[inline]
    #[must_use]
    pub fn entry(self) -> EntryRef<'a> {
        let bytes = self.bytes();
        let metadata_at = self.slot.key_bytes();
        let value_at = metadata_at + usize::from(self.slot.metadata_bytes);
        EntryRef {
            value: &bytes[value_at..],
            metadata: &bytes[metadata_at..value_at],
            version: self.slot.version,
            expires: self.slot.expires,
            shared: match &self.slot.block {
                Block::Packed(_) => None,
                Block::Shared(bytes) => Some(bytes),
            },
            value_at,
        }
    }
}

impl<P> Deref for SlotRef<'_, P> {
    type Target = Slot;

    fn deref(&self) -> &Slot {
        self.slot
    }
}

impl EntryRef<'_> {
    /// Returns whether [`EntryRef::to_value`] copies.
    #[must_use]
    pub const fn is_copied(&self) -> bool {
        self.shared.is_none()
    }

    /// Returns an owned value: a copy of a small value, a further reference to a large one.
    #[must_use]
    pub fn to_value(&self) -> Bytes {
        match self.shared {
            None => Bytes::copy_from_slice(self.value),
            Some(bytes) => bytes.slice(self.value_at..),
        }
    }

    /// Returns an owned entry, with the value of [`EntryRef::to_value`].
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        Entry {
            value: self.to_value(),
            metadata: Bytes::copy_from_slice(self.metadata),
            version: self.version,
            expires: self.expires,
        }
    }
}
