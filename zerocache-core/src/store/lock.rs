//! The lock around a part of the store, chosen by whoever runs it.

use core::cell::RefCell;

/// A family of locks: one kind for single-threaded use, another for a server.
pub trait LockFamily {
    /// The lock around a `T`.
    type Lock<T>: Lock<T>;
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
}

impl<T> Lock<T> for RefCell<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.borrow_mut())
    }
}
