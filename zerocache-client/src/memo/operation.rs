//! What a call can do beside running: look, and invalidate.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::rule::Policy;
use super::stored::Form;
use crate::error::Error;
use crate::{Written, wait};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Looks for a call's value; from [`Call::peek`](crate::Call::peek).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Peek<T> {
    pub(crate) find: BoxFuture<Result<Option<Form>, Error>>,
    pub(crate) policy: Policy<T>,
}

impl<T> Future for Peek<T> {
    type Output = Result<Option<T>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let found = ready!(self.find.as_mut().poll(context));
        // What does not decode is a miss, as it is for the call itself.
        Poll::Ready(found.map(|form| form.and_then(|form| form.decode(&self.policy).ok())))
    }
}

impl<T> Peek<T> {
    /// Looks now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    ///
    /// As awaiting it.
    pub fn wait(self) -> Result<Option<T>, Error> {
        wait::block_on(self)
    }
}

/// Removes a call's value; from [`Call::invalidate`](crate::Call::invalidate).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Invalidate(pub(crate) BoxFuture<Result<Written, Error>>);

impl Future for Invalidate {
    type Output = Result<Written, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}

impl Invalidate {
    /// Removes now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    ///
    /// As awaiting it.
    pub fn wait(self) -> Result<Written, Error> {
        wait::block_on(self)
    }
}
