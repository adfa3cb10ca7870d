//! The body of a memoized function, as a future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// A call that needs no runtime: the body of a sync function.
///
/// Its calls have [`Call::wait`](crate::memo::Call::wait). Sealed.
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

/// A sync body, which runs at the first poll.
pub struct Lazy<B> {
    body: Option<B>,
}

// The body is called by value and never pinned.
impl<B> Unpin for Lazy<B> {}

/// Turns a sync body into a future.
pub fn lazy<T, B: FnOnce() -> T>(body: B) -> Lazy<B> {
    Lazy { body: Some(body) }
}

impl<B> Lazy<B> {
    /// Returns the body, if it has not run.
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
    /// The body of a function that returns a boxed future, which is created at the first poll.
    //
    // Nothing else binds `F` to `B`: where the compiler decides whether a task that holds a call is `Send`, it has
    // forgotten that both borrow for the same time, and cannot prove `B: FnOnce() -> F`.
    pub struct Boxed<B, F> {
        make: Option<B>,
        begin: fn(B) -> F,
        #[pin]
        future: Option<F>,
    }
}

/// Turns the body of a function that returns a boxed future into a future.
pub fn boxed<F: Future, B: FnOnce() -> F>(make: B) -> Boxed<B, F> {
    Boxed { make: Some(make), begin: |make| make(), future: None }
}

impl<B, F> Boxed<B, F> {
    /// Returns the closure that creates the future, if it has not run.
    pub(super) fn take(self: Pin<&mut Self>) -> Option<B> {
        self.project().make.take()
    }
}

impl<F: Future, B> Future for Boxed<B, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let Some(make) = this.make.take() {
            this.future.set(Some((this.begin)(make)));
        }
        match this.future.as_pin_mut() {
            Some(future) => future.poll(context),
            None => Poll::Pending,
        }
    }
}
