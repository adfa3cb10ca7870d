//! The lock around a part of the store, chosen by whoever runs it.

use alloc::{boxed::Box, vec};
use core::{cell::RefCell, fmt::Debug};

/// A family of locks: one kind for single-threaded use, another for a server.
pub trait LockFamily {
    /// The lock around a `T`.
    type Lock<T>: Lock<T>;
    /// Where entries lie.
    type Pages: Pages;
}

/// Memory that is given back to the system when it is dropped, not kept for other uses: where that is so,
/// a process needs no more than it holds, whatever the sizes of its values were before.
pub trait Pages: AsRef<[u8]> + AsMut<[u8]> + Debug + Send + Sync + Sized + 'static {
    /// So many bytes, all zero, which are written from the beginning on, sooner or later.
    fn zeroed(bytes: usize) -> Self;

    /// So many bytes, all zero, all of which are written at once.
    fn to_fill(bytes: usize) -> Self {
        Self::zeroed(bytes)
    }
}

/// Of the allocator, which may keep it.
impl Pages for Box<[u8]> {
    fn zeroed(bytes: usize) -> Self {
        vec![0; bytes].into_boxed_slice()
    }
}

/// Exclusive access to a value behind a shared reference.
pub trait Lock<T> {
    /// A lock around `value`.
    fn new(value: T) -> Self;
    /// Runs `f` with the value to itself. `f` must not take the same lock again.
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R;
}

/// Locks for one thread: `RefCell`.
#[derive(Debug)]
pub struct SingleThread;

impl LockFamily for SingleThread {
    type Lock<T> = RefCell<T>;
    type Pages = Box<[u8]>;
}

impl<T> Lock<T> for RefCell<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.borrow_mut())
    }
}
