//! A call as a future.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::JoinHandle;
use zerocache_core::{call::CallFailure, wire::Response};

use crate::framed::FramedCall;

/// What comes of a call.
type Ended = Result<Response, CallFailure>;

/// One call under way.
///
/// # Cancellation
/// Dropping it gives the response up. The request may have been sent.
#[must_use = "nobody learns what comes of a call that is dropped"]
pub struct Call(Kind);

enum Kind {
    Ready(Option<Box<Ended>>),
    Framed(FramedCall),
    Task(AbortOnDrop),
    Boxed(Pin<Box<dyn Future<Output = Ended> + Send>>),
}

impl Call {
    /// A call that has ended already.
    pub fn ready(ended: Ended) -> Self {
        Self(Kind::Ready(Some(Box::new(ended))))
    }

    /// A call that is a future.
    pub fn boxed(future: impl Future<Output = Ended> + Send + 'static) -> Self {
        Self(Kind::Boxed(Box::pin(future)))
    }

    /// A call that runs as a task.
    pub(crate) fn task(task: JoinHandle<Ended>) -> Self {
        Self(Kind::Task(AbortOnDrop(task)))
    }

    /// A call on a framed connection.
    pub(crate) fn framed(call: FramedCall) -> Self {
        Self(Kind::Framed(call))
    }
}

impl Future for Call {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        match &mut self.0 {
            Kind::Framed(call) => Pin::new(call).poll(context),
            Kind::Ready(ended) => {
                Poll::Ready(ended.take().map_or(Err(CallFailure::NoAnswer), |ended| *ended))
            }
            // A task that ends without a result went with its runtime.
            Kind::Task(task) => Pin::new(&mut task.0)
                .poll(context)
                .map(|ended| ended.unwrap_or(Err(CallFailure::NoAnswer))),
            Kind::Boxed(future) => future.as_mut().poll(context),
        }
    }
}

/// Dropping the call ends the task: what it waits for is given up with it.
struct AbortOnDrop(JoinHandle<Ended>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
