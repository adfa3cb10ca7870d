//! One stored entry: what stands in a part's table, and the bytes beside it.

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
    time::Instant,
    version::{Incarnation, Version},
};

/// Bytes charged for an entry beyond its own: slot, table, agenda, header in the log.
///
/// A release build on 64-bit Linux took 86 to 87 of them with 100,000 to a million entries (keys of 32
/// bytes, values of 100, lifetimes spread over an hour, half of the entries read), depending on how
/// full the tables were.
pub const ENTRY_OVERHEAD_BYTES: u64 = 90;

/// Bytes charged for what lets an entry be shared: the handle and its count.
const SHARED_OVERHEAD_BYTES: u64 = 80;

/// Memory of an entry's own comes in pages of this many bytes.
const PAGE_BYTES: usize = 4 * 1024;

/// Segments are this fraction of the budget (1/1024), so that those that are not full take little of it,
/// and their number has a bound.
const SEGMENT_FRACTION: u64 = 1_024;

/// Segments are not smaller and not larger than this.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// An entry in a segment takes at most this fraction of it (1/8), so that little is left at its end.
const PACKED_FRACTION: u64 = 8;

/// Entries in segments are copied by their readers, so they have at most this many bytes; more where the
/// budget is so large that entries of this size would have too many mappings of their own (of 65,530 that
/// Linux allows by default).
const COPIED_BYTES_MAX: u64 = 48 << 10;
const MAPPINGS_MAX: u64 = 32_768;

/// Which entries lie where, by the budget.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of a segment.
    pub segment_bytes: usize,
    packed_bytes_max: usize,
}

impl Sizes {
    /// For a store of so many bytes.
    #[must_use]
    pub fn of(bytes_max: u64) -> Self {
        let segment = (bytes_max / SEGMENT_FRACTION).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let copied = COPIED_BYTES_MAX.max(bytes_max / MAPPINGS_MAX);
        let packed = (segment / PACKED_FRACTION).min(copied);
        Self { segment_bytes: segment as usize, packed_bytes_max: packed as usize }
    }

    /// Whether an entry with this much of its own lies in a segment with others.
    #[inline]
    #[must_use]
    pub const fn is_packed(self, payload_bytes: usize) -> bool {
        payload_bytes <= self.packed_bytes_max
    }

    /// Bytes charged for an entry with this much of its own.
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

/// No place: the end of a queue.
pub const NOWHERE: u32 = u32::MAX;

/// Whether an entry was read since it was stored here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Stored and never read here: goes first.
    Unread,
    /// Read at least once.
    Read,
}

impl Class {
    /// Both classes, in the order in which they go.
    pub const ALL: [Self; 2] = [Self::Unread, Self::Read];
}

/// A stored entry, with its place among the others of its part. One cache line.
#[derive(Debug)]
#[repr(align(64))]
pub struct Slot {
    /// Where key, metadata and value are.
    pub block: Block,
    /// The write that it comes from.
    pub version: Version,
    /// The moment from which it is no longer served.
    pub expires: Instant,
    /// What the table knows the key by; set when it is put in.
    pub table_bits: u32,
    /// The neighbour in the queue that goes before this one.
    pub older: u32,
    /// The neighbour in the queue that goes after this one.
    pub newer: u32,
    /// When it was put at the end of its queue: the store's counter, not a clock.
    pub tick: u32,
    key_bytes: u32,
    metadata_bytes: u16,
    /// In which queue it is.
    pub class: Class,
    /// Whether it was read since it was put at the end of its queue.
    pub is_used: bool,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Slot>() == 64);
const _: () = assert!(METADATA_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(KEY_BYTES_WIRE_MAX <= u32::MAX as usize);

/// Key, metadata and value, one after the other: nothing larger (a read buffer, say) is kept alive by them.
#[derive(Debug)]
pub enum Block {
    /// In a segment with others; copied by readers.
    Packed(BlockAddress),
    /// In memory of their own, which readers share.
    // Behind a box, so that the small ones need no more than their own two words.
    Shared(Box<Bytes>),
}

/// What is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its metadata, at most 64 KiB.
    pub metadata: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The write that it comes from.
    pub version: Version,
    /// The moment from which it is no longer served.
    pub expires: Instant,
}

impl<'a> NewEntry<'a> {
    /// What the block is made of.
    #[must_use]
    pub const fn contents(&self) -> [&'a [u8]; 3] {
        [self.key, self.metadata, self.value]
    }

    /// How much it has of its own.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.key.len() + self.metadata.len() + self.value.len()
    }
}

/// An entry where it lies.
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

/// An entry as a reader sees it where it lies.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    /// The value, possibly empty.
    pub value: &'a [u8],
    /// Tagged fields that nodes forward unchanged.
    pub metadata: &'a [u8],
    /// The write that it comes from.
    pub version: Version,
    /// The moment from which it is no longer served.
    pub expires: Instant,
    shared: Option<&'a Bytes>,
    value_at: usize,
}

impl Default for Slot {
    /// A place that no entry has.
    fn default() -> Self {
        Self {
            block: Block::Shared(Box::default()),
            version: Version::new(0, Incarnation(0)),
            expires: Instant::default(),
            table_bits: 0,
            older: NOWHERE,
            newer: NOWHERE,
            tick: 0,
            key_bytes: 0,
            metadata_bytes: 0,
            class: Class::Unread,
            is_used: false,
        }
    }
}

impl Slot {
    /// A slot for what lies in a block.
    ///
    /// # Panics
    /// If the metadata is longer than 64 KiB, or the key than 4 GiB.
    #[must_use]
    pub fn new(entry: &NewEntry<'_>, block: Block, table_bits: u32) -> Self {
        let metadata_bytes = u16::try_from(entry.metadata.len());
        let key_bytes = u32::try_from(entry.key.len());
        let (Ok(metadata_bytes), Ok(key_bytes)) = (metadata_bytes, key_bytes) else {
            panic!("{} bytes of key, {} of metadata", entry.key.len(), entry.metadata.len());
        };
        Self {
            block,
            version: entry.version,
            expires: entry.expires,
            table_bits,
            key_bytes,
            metadata_bytes,
            ..Self::default()
        }
    }

    /// Bytes charged for this entry.
    #[must_use]
    pub fn weight(&self) -> u64 {
        match &self.block {
            Block::Packed(address) => packed_weight(address.bytes()),
            Block::Shared(bytes) => shared_weight(bytes.len()),
        }
    }

    /// Whether it may no longer be served at `now`.
    #[inline]
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires <= now
    }
}

impl Block {
    /// In memory of its own.
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
    /// An entry whose block may be in `log`.
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

    /// The whole key.
    #[inline]
    #[must_use]
    pub fn key(self) -> &'a [u8] {
        &self.bytes()[..self.slot.key_bytes as usize]
    }

    /// The hash of the key.
    #[must_use]
    pub fn hash(self) -> KeyHash {
        KeyHash::of(self.key())
    }

    /// What a reader gets to see.
    #[inline]
    #[must_use]
    pub fn entry(self) -> EntryRef<'a> {
        let bytes = self.bytes();
        let metadata_at = self.slot.key_bytes as usize;
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
    /// Whether [`EntryRef::to_value`] copies.
    #[must_use]
    pub const fn is_copied(&self) -> bool {
        self.shared.is_none()
    }

    /// The value to keep: a copy of a small one, a further reference to a large one.
    #[must_use]
    pub fn to_value(&self) -> Bytes {
        match self.shared {
            None => Bytes::copy_from_slice(self.value),
            Some(bytes) => bytes.slice(self.value_at..),
        }
    }

    /// The entry to keep, its value as [`EntryRef::to_value`] has it.
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
