//! One stored entry: its slot, and the block with key, metadata and value.

use alloc::boxed::Box;
use core::ops::Deref;

use bytes::Bytes;

use super::{
    backend::Pages,
    disk::{DISK_COPY_BYTES, DiskCopy, EntryOnDisk},
    log::{BlockAddress, Log},
    sizes::{packed_weight, shared_weight},
};
use crate::{
    entry::Entry,
    key::KeyHash,
    limits::{KEY_BYTES_WIRE_MAX, METADATA_BYTES_MAX},
    purge::is_reserved,
    time::Instant,
    version::{Incarnation, Version},
};

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
    /// Evicted from memory: its value is on disk, or still in memory until it has been written there.
    Disk,
}

impl Class {
    /// The number of classes.
    pub const COUNT: usize = 4;
    /// All classes.
    #[cfg(test)]
    pub const ALL: [Self; Self::COUNT] = [Self::Unread, Self::Read, Self::Reserved, Self::Disk];
    /// Those whose values are in memory.
    pub const IN_MEMORY: [Self; 3] = [Self::Unread, Self::Read, Self::Reserved];

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

/// The uses of an entry that came back from disk for a read, which is not counted as another one.
pub const RESTORED: u8 = u8::MAX;

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
    Shared(Box<SharedBlock>),
    /// As `Packed`, followed by the place of a copy on disk.
    Copied(BlockAddress),
    /// Key and metadata in a segment with others, followed by the place of all on disk, where the value is.
    OnDisk(BlockAddress),
}

/// A block in memory of its own.
#[derive(Debug)]
pub struct SharedBlock {
    bytes: Bytes,
    copy: Option<DiskCopy>,
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
            block: Block::Packed(BlockAddress::NOWHERE),
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
            Block::Packed(address) | Block::Copied(address) | Block::OnDisk(address) => {
                packed_weight(address.bytes())
            }
            Block::Shared(block) => shared_weight(block.bytes.len()),
        }
    }

    /// Returns whether the value is on disk alone.
    #[inline]
    #[must_use]
    pub const fn is_on_disk(&self) -> bool {
        matches!(self.block, Block::OnDisk(_))
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
    pub fn shared<P: Pages>(contents: [&[u8]; 3], copy: Option<DiskCopy>) -> Self {
        let mut pages = P::to_fill(contents.iter().map(|content| content.len()).sum());
        let mut room = pages.as_mut();
        for content in contents {
            let (here, rest) = room.split_at_mut(content.len());
            here.copy_from_slice(content);
            room = rest;
        }
        Self::Shared(Box::new(SharedBlock { bytes: Bytes::from_owner(pages), copy }))
    }

    /// Returns the address of a block in a segment with others.
    #[must_use]
    pub const fn packed(&self) -> Option<BlockAddress> {
        match self {
            Self::Packed(address) | Self::Copied(address) | Self::OnDisk(address) => Some(*address),
            Self::Shared(_) => None,
        }
    }

    /// Returns the block at another address of the same log.
    ///
    /// # Panics
    /// If it is not in a segment with others.
    #[must_use]
    pub fn moved_to(&self, address: BlockAddress) -> Self {
        match self {
            Self::Packed(_) => Self::Packed(address),
            Self::Copied(_) => Self::Copied(address),
            Self::OnDisk(_) => Self::OnDisk(address),
            Self::Shared(_) => panic!("a shared block does not move"),
        }
    }

    /// Sets the place of the copy on disk of a block in memory of its own.
    pub fn set_copy(&mut self, copy: Option<DiskCopy>) {
        if let Self::Shared(block) = self {
            block.copy = copy;
        }
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
            Block::Packed(address) | Block::Copied(address) | Block::OnDisk(address) => {
                self.log.bytes(*address)
            }
            Block::Shared(block) => &block.bytes,
        }
    }

    /// Returns the bytes that follow the value in the block.
    #[inline]
    const fn trailer_bytes(self) -> usize {
        match &self.slot.block {
            Block::Packed(_) | Block::Shared(_) => 0,
            Block::Copied(_) | Block::OnDisk(_) => DISK_COPY_BYTES,
        }
    }

    /// Returns the place of the entry on disk, if it is there.
    #[must_use]
    pub fn disk_copy(self) -> Option<DiskCopy> {
        match &self.slot.block {
            Block::Packed(_) => None,
            Block::Shared(block) => block.copy,
            Block::Copied(_) | Block::OnDisk(_) => {
                let (_, trailer) = self.bytes().split_last_chunk()?;
                DiskCopy::decode(*trailer)
            }
        }
    }

    /// Returns where an entry is whose value is on disk alone. `hash` is that of its key.
    #[must_use]
    pub fn on_disk(self, hash: KeyHash) -> Option<EntryOnDisk> {
        let DiskCopy { place, value_bytes, .. } =
            self.disk_copy().filter(|_| self.slot.is_on_disk())?;
        Some(EntryOnDisk { key: hash, version: self.slot.version, place, value_bytes })
    }

    /// Returns the length of the value in bytes.
    #[must_use]
    pub fn value_bytes(self) -> usize {
        match self.disk_copy() {
            Some(copy) if self.slot.is_on_disk() => copy.value_bytes as usize,
            _ => self.entry().value.len(),
        }
    }

    /// Returns the metadata.
    #[inline]
    #[must_use]
    pub fn metadata(self) -> &'a [u8] {
        let from = self.slot.key_bytes();
        &self.bytes()[from..from + usize::from(self.slot.metadata_bytes)]
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

    /// Returns value, metadata and version in place. The value of an entry that is on disk alone is empty.
    #[inline]
    #[must_use]
    pub fn entry(self) -> EntryRef<'a> {
        let bytes = self.bytes();
        let bytes = &bytes[..bytes.len() - self.trailer_bytes()];
        let metadata_at = self.slot.key_bytes();
        let value_at = metadata_at + usize::from(self.slot.metadata_bytes);
        EntryRef {
            value: &bytes[value_at..],
            metadata: &bytes[metadata_at..value_at],
            version: self.slot.version,
            expires: self.slot.expires,
            shared: match &self.slot.block {
                Block::Shared(block) => Some(&block.bytes),
                _ => None,
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
