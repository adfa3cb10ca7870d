//! Values that belong to one process and not to processes forked from it.
//!
//! A forked process has one thread: the one that forked. All other threads are gone, with the runtimes, timers
//! and connection drivers that ran on them; locks that they held stay locked, and sockets are shared with the
//! parent. A child therefore neither uses nor drops its parent's values, and creates its own. A handler of
//! `fork(3)` detects the fork; a bare `clone(2)` escapes it.

use std::{
    mem,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
};

use forkguard::Guard;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The identity of a process. Comparing it with the current process takes no system call.
#[derive(Clone, Debug)]
pub struct Process(Option<Guard>);

impl Process {
    /// Returns the current process.
    #[must_use]
    pub fn current() -> Self {
        // Without a handler, which the system refuses only for lack of memory, forks are not detected.
        Self(Guard::try_new().ok())
    }

    /// Whether this is the current process.
    #[must_use]
    #[inline]
    pub fn is_current(&self) -> bool {
        // Cloning copies a number; the check changes the guard.
        self.0.clone().is_none_or(|mut guard| !guard.detected_fork())
    }
}

/// A value that belongs to the process that created it. A forked child cannot access it, and forgets it instead
/// of dropping it: dropping could wait for a lock that nobody releases, or close what the parent still uses.
#[derive(Debug)]
pub struct ProcessOwned<T> {
    process: Process,
    /// None after a drop in a child.
    value: Option<T>,
}

impl<T> ProcessOwned<T> {
    /// Creates a value of this process.
    pub fn new(value: T) -> Self {
        Self { process: Process::current(), value: Some(value) }
    }

    /// Returns the value in the process that created it.
    #[inline]
    pub fn value(&self) -> Option<&T> {
        if self.process.is_current() { self.value.as_ref() } else { None }
    }

    /// Returns the value in the process that created it.
    #[inline]
    pub fn value_mut(&mut self) -> Option<&mut T> {
        if self.process.is_current() { self.value.as_mut() } else { None }
    }
}

impl<T> Drop for ProcessOwned<T> {
    fn drop(&mut self) {
        if !self.process.is_current() {
            mem::forget(self.value.take());
        }
    }
}

/// The error of a stream that belongs to the parent of this process.
fn inherited_error() -> std::io::Error {
    std::io::Error::other("the stream belongs to the process that this one was forked from")
}

impl<T: AsyncRead + Unpin> AsyncRead for ProcessOwned<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.value_mut() {
            Some(stream) => Pin::new(stream).poll_read(context, buffer),
            None => Poll::Ready(Err(inherited_error())),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ProcessOwned<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match self.value_mut() {
            Some(stream) => Pin::new(stream).poll_write(context, bytes),
            None => Poll::Ready(Err(inherited_error())),
        }
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.value_mut() {
            Some(stream) => Pin::new(stream).poll_flush(context),
            None => Poll::Ready(Err(inherited_error())),
        }
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.value_mut() {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Err(inherited_error())),
        }
    }
}

/// A cell with one value for each process: a child creates its own value, and forgets that of its parent.
///
/// Values never move, so that no lock guards them which a fork could leave locked. The cell grows by one value
/// with each generation of processes that uses it.
#[derive(Debug)]
pub struct PerProcess<T> {
    first: OnceLock<Link<T>>,
}

#[derive(Debug)]
struct Link<T> {
    process: Process,
    value: T,
    /// The value of a child.
    next: OnceLock<Box<Self>>,
}

impl<T> Link<T> {
    fn new(value: T) -> Self {
        Self { process: Process::current(), value, next: OnceLock::new() }
    }
}

impl<T> PerProcess<T> {
    /// Creates an empty cell.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: OnceLock::new() }
    }

    /// Creates a cell with the value of this process.
    pub fn with_value(value: T) -> Self {
        Self { first: OnceLock::from(Link::new(value)) }
    }

    /// Returns the value of this process, if there is one.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        let mut at = self.first.get();
        while let Some(link) = at {
            if link.process.is_current() {
                return Some(&link.value);
            }
            at = link.next.get().map(|next| &**next);
        }
        None
    }

    /// Returns the value of this process, and creates it first if there is none. `init` receives the value of
    /// the nearest ancestor that has one; it may use only immutable parts of it.
    #[inline]
    pub fn get_or_init(&self, init: impl FnOnce(Option<&T>) -> T) -> &T {
        match self.get() {
            Some(value) => value,
            None => self.init(init),
        }
    }

    #[cold]
    fn init(&self, init: impl FnOnce(Option<&T>) -> T) -> &T {
        let mut last = match self.first.get() {
            Some(first) => first,
            None => return &self.first.get_or_init(|| Link::new(init(None))).value,
        };
        loop {
            match last.next.get() {
                Some(next) => last = next,
                // Another thread of this process created it meanwhile.
                None if last.process.is_current() => return &last.value,
                None => break,
            }
        }
        let next = || Box::new(Link::new(init(Some(&last.value))));
        &last.next.get_or_init(next).value
    }
}

impl<T> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let mut link = self.first.take().map(Box::new);
        while let Some(mut this) = link {
            link = this.next.take();
            if !this.process.is_current() {
                mem::forget(this);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn process_creates_one_value_and_drops_it() {
        let made = Arc::new(());
        let place = PerProcess::new();
        assert!(place.get().is_none());
        let first = place.get_or_init(|before| {
            assert!(before.is_none());
            Arc::clone(&made)
        });
        assert!(Arc::ptr_eq(first, &made));
        assert!(Arc::ptr_eq(place.get_or_init(|_| Arc::default()), &made));
        drop((
            place,
            PerProcess::with_value(Arc::clone(&made)),
            ProcessOwned::new(Arc::clone(&made)),
        ));
        assert_eq!(Arc::strong_count(&made), 1);
    }
}
