//! The core's store with a mutex around each of its parts.

use parking_lot::Mutex;
use zerocache_core::store::{self, LockFamily};

/// Locks for many threads.
#[derive(Debug)]
pub struct Mutexes;

/// A `parking_lot` mutex as the core wants it.
pub struct PartLock<T>(Mutex<T>);

impl LockFamily for Mutexes {
    type Lock<T> = PartLock<T>;
}

impl<T> store::Lock<T> for PartLock<T> {
    fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.lock())
    }
}

/// The store of a node.
pub type Storage = store::Store<Mutexes>;
