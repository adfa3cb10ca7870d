//! The environment of a store: locks and memory.

use alloc::{boxed::Box, vec};
use core::{cell::RefCell, fmt::Debug};

/// The environment of a store: [`SingleThread`] for tests and simulations, another one for a server.
pub trait Backend {
    /// The lock around a `T`.
    type Lock<T>: Lock<T>;
    /// The memory of entries.
    type Pages: Pages;
}

/// Memory that is returned to the system when it is dropped, not kept by an allocator. A process that uses
/// it needs no more memory than it holds, whatever the sizes of its earlier values were.
pub trait Pages: AsRef<[u8]> + AsMut<[u8]> + Debug + Send + Sync + Sized + 'static {
    /// Allocates zeroed memory that is written gradually, from the beginning on.
    fn zeroed(bytes: usize) -> Self;

    /// Allocates zeroed memory all of which is written at once.
    fn to_fill(bytes: usize) -> Self {
        Self::zeroed(bytes)
    }

    /// Tells the processor that `items[index]` is read soon. Does nothing where there is no such hint.
    #[inline]
    fn prefetch<T>(items: &[T], index: usize) {
        let _no_hint = (items, index);
    }
}

/// Memory of the allocator, which may keep it.
impl Pages for Box<[u8]> {
    fn zeroed(bytes: usize) -> Self {
        vec![0; bytes].into_boxed_slice()
    }
}

/// Exclusive access to a value behind a shared reference.
pub trait Lock<T> {
    /// Creates a lock around `value`.
    fn new(value: T) -> Self;
    /// Runs `f` with exclusive access to the value. `f` must not take the same lock again.
    fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R;
}

/// The environment of a store on one thread: locks are `RefCell`s.
#[derive(Debug)]
pub struct SingleThread;

impl Backend for SingleThread {
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
