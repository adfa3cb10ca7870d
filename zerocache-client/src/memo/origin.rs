//! The memoized function itself, as a future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// A call that needs no runtime: the body of a sync function.
///
/// Calls of it have [`Call::wait`](crate::memo::Call::wait). Not to be implemented by users.
#[diagnostic::on_unimplemented(
    message = "`wait` is for calls of sync functions",
    label = "this is a call of an async function",
    note = "write `.await`; an async function may need a runtime, which a blocked thread does not \
            drive"
)]
pub trait Blocking: Future + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

/// Runs a sync body at its first poll.
pub struct Lazy<B> {
    body: Option<B>,
}

// The body is called by value and never pinned.
impl<B> Unpin for Lazy<B> {}

/// A sync body as a future.
pub fn lazy<T, B: FnOnce() -> T>(body: B) -> Lazy<B> {
    Lazy { body: Some(body) }
}

impl<B> Lazy<B> {
    /// The body, if it has not run.
    pub(super) fn take(mut self: Pin<&mut Self>) -> Option<B> {
        self.body.take()
    }
}

impl<T, B: FnOnce() -> T> Future for Lazy<B> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<T> {
        match self.body.take() {
            Some(body) => Poll::Ready(body()),
            // Polled again after its end, against the contract of futures.
            None => Poll::Pending,
        }
    }
}

impl<B> sealed::Sealed for Lazy<B> {}
#[diagnostic::do_not_recommend]
impl<T, B: FnOnce() -> T> Blocking for Lazy<B> {}

pin_project! {
    /// Makes a boxed future at its first poll, and then is that future.
    pub struct Boxed<B, F> {
        make: Option<B>,
        #[pin]
        future: Option<F>,
    }
}

/// The body of a function that returns a boxed future.
pub fn boxed<F: Future, B: FnOnce() -> F>(make: B) -> Boxed<B, F> {
    Boxed { make: Some(make), future: None }
}

impl<B, F> Boxed<B, F> {
    /// What makes the future, if it has not been made.
    pub(super) fn take(self: Pin<&mut Self>) -> Option<B> {
        self.project().make.take()
    }
}

impl<F: Future, B: FnOnce() -> F> Future for Boxed<B, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let Some(make) = this.make.take() {
            this.future.set(Some(make()));
        }
        match this.future.as_pin_mut() {
            Some(future) => future.poll(context),
            None => Poll::Pending,
        }
    }
}
