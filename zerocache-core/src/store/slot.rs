//! One stored entry: what stands in a part's table, and the bytes beside it.

use alloc::{boxed::Box, vec::Vec};

use bytes::Bytes;

use crate::{
    entry::Entry,
    key::KeyHash,
    limits::{KEY_BYTES_WIRE_MAX, METADATA_BYTES_MAX},
    time::Instant,
    version::{Incarnation, Version},
};

/// Bytes charged for an entry beyond its own: slot, table, agenda, allocator.
///
/// A release build on 64-bit Linux took 88 to 90 of them with 100,000 to a million entries (keys of 32
/// bytes, values of 100, lifetimes spread over an hour, half of the entries read), depending on how
/// full the tables were.
pub const ENTRY_OVERHEAD_BYTES: u64 = 90;

/// Key, metadata and value of more bytes than this are shared with their readers; less is copied,
/// which costs a reader no more than counting it and saves the memory of the count.
const COPIED_BYTES_MAX: usize = 4 * 1024;

/// Bytes charged for what lets an entry be shared: the handle and its count.
const SHARED_OVERHEAD_BYTES: u64 = 80;

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
    block: Block,
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

/// Key, metadata and value, in one allocation of their size: nothing larger (a read buffer, say) is
/// kept alive by them.
#[derive(Debug)]
enum Block {
    Copied(Box<[u8]>),
    // Behind a box, so that the small ones need no more than their own two words.
    Shared(Box<Bytes>),
}

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
    block: &'a Block,
    value_at: usize,
}

impl Default for Slot {
    /// A place that no entry has.
    fn default() -> Self {
        Self {
            block: Block::Copied(Box::default()),
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
    /// Copies an entry into its own allocation: into `spare`, if that is of its size.
    ///
    /// # Panics
    /// If the metadata is longer than 64 KiB, or the key than 4 GiB.
    #[must_use]
    pub fn new(
        key: &[u8],
        metadata: &[u8],
        value: &[u8],
        (version, expires): (Version, Instant),
        spare: Option<Box<[u8]>>,
    ) -> Self {
        let metadata_bytes = u16::try_from(metadata.len());
        let key_bytes = u32::try_from(key.len());
        let (Ok(metadata_bytes), Ok(key_bytes)) = (metadata_bytes, key_bytes) else {
            panic!("{} bytes of key, {} of metadata", key.len(), metadata.len());
        };
        Self {
            block: Block::new([key, metadata, value], spare),
            version,
            expires,
            key_bytes,
            metadata_bytes,
            ..Self::default()
        }
    }

    /// Takes the allocation out, if it is nobody else's; the slot is to be replaced then.
    pub fn take_allocation(&mut self) -> Option<Box<[u8]>> {
        match &mut self.block {
            Block::Copied(bytes) => Some(core::mem::take(bytes)),
            Block::Shared(_) => None,
        }
    }

    /// Bytes charged for an entry with this much of its own.
    #[must_use]
    pub const fn weight_of(payload_bytes: usize) -> u64 {
        let shared = if payload_bytes > COPIED_BYTES_MAX { SHARED_OVERHEAD_BYTES } else { 0 };
        payload_bytes as u64 + ENTRY_OVERHEAD_BYTES + shared
    }

    /// Bytes charged for this entry.
    #[must_use]
    pub fn weight(&self) -> u64 {
        Self::weight_of(self.block.bytes().len())
    }

    /// The whole key.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.block.bytes()[..self.key_bytes as usize]
    }

    /// The hash of the key.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.key())
    }

    /// What a reader gets to see.
    #[inline]
    #[must_use]
    pub fn entry(&self) -> EntryRef<'_> {
        let bytes = self.block.bytes();
        let metadata_at = self.key_bytes as usize;
        let value_at = metadata_at + usize::from(self.metadata_bytes);
        EntryRef {
            value: &bytes[value_at..],
            metadata: &bytes[metadata_at..value_at],
            version: self.version,
            expires: self.expires,
            block: &self.block,
            value_at,
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
    fn new(contents: [&[u8]; 3], spare: Option<Box<[u8]>>) -> Self {
        let bytes = contents.iter().map(|content| content.len()).sum();
        // A value is most often replaced by one of the same size.
        let spare = spare.filter(|spare| spare.len() == bytes);
        let mut data = spare.map_or_else(|| Vec::with_capacity(bytes), Vec::from);
        data.clear();
        contents.iter().for_each(|content| data.extend_from_slice(content));
        if data.len() > COPIED_BYTES_MAX {
            Self::Shared(Box::new(Bytes::from(data)))
        } else {
            Self::Copied(data.into_boxed_slice())
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl EntryRef<'_> {
    /// The value to keep: a copy of a small one, a further reference to a large one.
    #[must_use]
    pub fn to_value(&self) -> Bytes {
        match self.block {
            Block::Copied(_) => Bytes::copy_from_slice(self.value),
            Block::Shared(bytes) => bytes.slice(self.value_at..),
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
