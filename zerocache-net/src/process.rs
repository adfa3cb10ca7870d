//! What belongs to one process, and not to those that are forked from it.
//!
//! A forked process has one thread: the one that forked. Every other thread, with the runtimes, timers and
//! drivers of connections that ran on it, is gone, locks that it held stay locked, and sockets are shared
//! with the parent. So a child neither uses nor drops what its parent made, and makes its own. The system
//! says which process this is by a handler of `fork(3)`; a bare `clone(2)` escapes it.

use std::{
    mem,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
};

use forkguard::Guard;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One process. Cheap to compare with the present one: no call of the system.
#[derive(Clone, Debug)]
pub struct Process(Option<Guard>);

impl Process {
    /// The process that asks.
    #[must_use]
    pub fn current() -> Self {
        // Where the system takes no handler, which takes a lack of memory, forks are not noticed.
        Self(Guard::try_new().ok())
    }

    /// Whether this is the process that asks.
    #[must_use]
    #[inline]
    pub fn is_current(&self) -> bool {
        // A copy of a number: asking changes the guard.
        self.0.clone().is_none_or(|mut guard| !guard.detected_fork())
    }
}

/// A value of the process that made it. A forked child is not given it, and forgets it: dropping it could
/// wait for a lock that nobody gives back, or end what the parent still uses.
#[derive(Debug)]
pub struct ProcessOwned<T> {
    process: Process,
    /// None after a drop in a child.
    value: Option<T>,
}

impl<T> ProcessOwned<T> {
    /// A value of this process.
    pub fn new(value: T) -> Self {
        Self { process: Process::current(), value: Some(value) }
    }

    /// The value, for the process that made it.
    #[inline]
    pub fn value(&self) -> Option<&T> {
        if self.process.is_current() { self.value.as_ref() } else { None }
    }

    /// The value, for the process that made it.
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

/// What a child says who would use a stream of its parent.
fn inherited() -> std::io::Error {
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
            None => Poll::Ready(Err(inherited())),
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
            None => Poll::Ready(Err(inherited())),
        }
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.value_mut() {
            Some(stream) => Pin::new(stream).poll_flush(context),
            None => Poll::Ready(Err(inherited())),
        }
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        match self.value_mut() {
            Some(stream) => Pin::new(stream).poll_shutdown(context),
            None => Poll::Ready(Err(inherited())),
        }
    }
}

/// A place for one value of each process: a child makes its own, and forgets that of its parent.
///
/// What has been made stays where it is, so that no lock guards it that a fork could leave locked. It grows by
/// one value with each generation of processes that uses it.
#[derive(Debug)]
pub struct PerProcess<T> {
    first: OnceLock<Link<T>>,
}

#[derive(Debug)]
struct Link<T> {
    process: Process,
    value: T,
    /// That of a child.
    next: OnceLock<Box<Self>>,
}

impl<T> Link<T> {
    fn new(value: T) -> Self {
        Self { process: Process::current(), value, next: OnceLock::new() }
    }
}

impl<T> PerProcess<T> {
    /// Without a value.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: OnceLock::new() }
    }

    /// With the value of this process.
    pub fn with_value(value: T) -> Self {
        Self { first: OnceLock::from(Link::new(value)) }
    }

    /// The value of this process, if it has been made.
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

    /// The value of this process, made now if there is none yet. `make` is shown that of the nearest ancestor
    /// which has one; of that nothing may be used but what never changes.
    #[inline]
    pub fn get_or_init(&self, make: impl FnOnce(Option<&T>) -> T) -> &T {
        match self.get() {
            Some(value) => value,
            None => self.make(make),
        }
    }

    #[cold]
    fn make(&self, make: impl FnOnce(Option<&T>) -> T) -> &T {
        let mut last = match self.first.get() {
            Some(first) => first,
            None => return &self.first.get_or_init(|| Link::new(make(None))).value,
        };
        loop {
            match last.next.get() {
                Some(next) => last = next,
                // Another thread of this process made it meanwhile.
                None if last.process.is_current() => return &last.value,
                None => break,
            }
        }
        let next = || Box::new(Link::new(make(Some(&last.value))));
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
    fn a_process_has_one_value_and_drops_it() {
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
