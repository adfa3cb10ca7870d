//! Work of a client: a future that runs on its caller's runtime, or else on the client's.

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
    /// Work that has begun continues in the background when this is dropped.
    is_kept: bool,
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
        runtime: Handle,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Self {
        Self { state: ProcessOwned::new(State::New(Box::pin(work), runtime)), is_kept: false }
    }

    /// Work that, once it has been polled, continues in the background when it is dropped.
    pub(super) fn continue_in_background(mut self) -> Self {
        self.is_kept = true;
        self
    }

    /// Work that cannot begin.
    pub(super) fn failed(error: Error) -> Self {
        Self { state: ProcessOwned::new(State::Failed(error)), is_kept: false }
    }
}

impl<T: Send + 'static> Future for Running<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Nobody drives in a forked process what its parent has begun.
        let Some(state) = self.state.value_mut() else {
            return Poll::Ready(Err(Error::Unreachable { timed_out: false }));
        };
        let (mut work, runtime) = match std::mem::replace(state, State::Over) {
            State::New(work, runtime) | State::Begun(work, runtime) => (work, runtime),
            State::Failed(error) => return Poll::Ready(Err(error)),
            // Polled again after its end, against the contract of futures.
            State::Over => return Poll::Pending,
        };
        let polled = if wait::is_blocking() || Handle::try_current().is_err() {
            let _runtime = runtime.enter();
            work.as_mut().poll(context)
        } else {
            work.as_mut().poll(context)
        };
        if polled.is_pending() {
            *state = State::Begun(work, runtime);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Running<T> {
    fn drop(&mut self) {
        if let Some(state) = self.state.value_mut()
            && let State::Begun(work, runtime) = std::mem::replace(state, State::Over)
            && self.is_kept
        {
            runtime.spawn(work);
        }
    }
}
