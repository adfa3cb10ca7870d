//! Work of a client: a future that runs where its caller is, if that is a place that goes on.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;
use zerocache_net::process::ProcessOwned;

use crate::{Error, wait};

type Work<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

/// An operation under way.
///
/// A caller on a Tokio runtime does its own I/O there, so that no other thread stands between the
/// node's answer and it. A caller that blocks its thread, or runs on something else, leaves the I/O
/// to the client's runtime.
pub(crate) struct Running<T: Send + 'static> {
    /// It runs on runtimes of the process that made it.
    state: ProcessOwned<State<T>>,
    /// What has begun goes on when it is dropped.
    goes_on: bool,
}

enum State<T> {
    New(Work<T>, Handle),
    Begun(Work<T>, Handle),
    Failed(Error),
    Over,
}

impl<T: Send + 'static> Running<T> {
    /// Work that ends when it is dropped.
    pub(super) fn new(
        home: Handle,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Self {
        Self { state: ProcessOwned::new(State::New(Box::pin(work), home)), goes_on: false }
    }

    /// Work that, once it has been polled, goes on at home when it is dropped.
    pub(super) fn through(mut self) -> Self {
        self.goes_on = true;
        self
    }

    /// Work that cannot begin.
    pub(super) fn failed(error: Error) -> Self {
        Self { state: ProcessOwned::new(State::Failed(error)), goes_on: false }
    }
}

impl<T: Send + 'static> Future for Running<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Nobody drives in a forked process what its parent has begun.
        let Some(state) = self.state.value_mut() else {
            return Poll::Ready(Err(Error::Unreachable { timed_out: false }));
        };
        let (mut work, home) = match std::mem::replace(state, State::Over) {
            State::New(work, home) | State::Begun(work, home) => (work, home),
            State::Failed(error) => return Poll::Ready(Err(error)),
            // Polled again after its end, against the contract of futures.
            State::Over => return Poll::Pending,
        };
        let polled = if wait::is_blocking() || Handle::try_current().is_err() {
            let _home = home.enter();
            work.as_mut().poll(context)
        } else {
            work.as_mut().poll(context)
        };
        if polled.is_pending() {
            *state = State::Begun(work, home);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Running<T> {
    fn drop(&mut self) {
        if let Some(state) = self.state.value_mut()
            && let State::Begun(work, home) = std::mem::replace(state, State::Over)
            && self.goes_on
        {
            home.spawn(work);
        }
    }
}
