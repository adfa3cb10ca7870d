//! The backend of the core's store: a mutex around each shard, and entries in memory mappings.

use memmap2::{MmapMut, MmapOptions};
use parking_lot::Mutex;
use prefetch_index::prefetch_index;
use zerocache_core::store::{self, Backend};

/// Locks for many threads.
#[derive(Debug)]
pub struct Mutexes;

/// A `parking_lot` mutex as the core wants it.
pub struct ShardLock<T>(Mutex<T>);

impl Backend for Mutexes {
    type Lock<T> = ShardLock<T>;
    type Pages = Mapping;
}

/// Memory that comes from the system and returns to it. An allocator keeps memory that is freed between
/// live objects, where values of another size do not fit.
#[derive(Debug)]
pub enum Mapping {
    /// An anonymous mapping.
    Mapped(MmapMut),
    /// Memory of the allocator, when the system has no more mappings for this process.
    Allocated(Box<[u8]>),
}

impl AsRef<[u8]> for Mapping {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Allocated(bytes) => bytes,
        }
    }
}

impl AsMut<[u8]> for Mapping {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Mapped(bytes) => bytes,
            Self::Allocated(bytes) => bytes,
        }
    }
}

impl Mapping {
    fn map(options: &MmapOptions, bytes: usize) -> Self {
        match options.map_anon() {
            Ok(mapped) => Self::Mapped(mapped),
            Err(_) => Self::Allocated(store::Pages::zeroed(bytes)),
        }
    }
}

impl store::Pages for Mapping {
    fn zeroed(bytes: usize) -> Self {
        Self::map(MmapOptions::new().len(bytes), bytes)
    }

    #[inline]
    fn prefetch<T>(items: &[T], index: usize) {
        prefetch_index(items, index);
    }

    fn to_fill(bytes: usize) -> Self {
        // Populates all pages with one call instead of one fault each.
        Self::map(MmapOptions::new().len(bytes).populate(), bytes)
    }
}

impl<T> store::Lock<T> for ShardLock<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.lock())
    }
}

/// The store of a node.
pub type Storage = store::Store<Mutexes>;
