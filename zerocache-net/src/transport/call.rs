//! A call as a future.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::JoinHandle;
use zerocache_core::call::CallFailure;

use super::framed::{CallResult, FramedCall};

/// A call in progress.
///
/// # Cancellation
/// Dropping it abandons the response. The request may have been sent.
#[must_use = "dropping a call abandons its response"]
pub struct Call(Kind);

enum Kind {
    Ready(Option<Box<CallResult>>),
    Framed(FramedCall),
    Task(AbortOnDrop<CallResult>),
    Boxed(Pin<Box<dyn Future<Output = CallResult> + Send>>),
}

impl Call {
    /// Creates a call that has completed already.
    pub fn ready(result: CallResult) -> Self {
        Self(Kind::Ready(Some(Box::new(result))))
    }

    /// Creates a call from a future.
    pub fn boxed(future: impl Future<Output = CallResult> + Send + 'static) -> Self {
        Self(Kind::Boxed(Box::pin(future)))
    }

    /// Creates a call that runs as a task.
    pub(super) fn task(task: JoinHandle<CallResult>) -> Self {
        Self(Kind::Task(AbortOnDrop(task)))
    }

    /// Creates a call from one on a framed connection.
    pub(super) fn framed(call: FramedCall) -> Self {
        Self(Kind::Framed(call))
    }
}

impl Future for Call {
    type Output = CallResult;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CallResult> {
        match &mut self.0 {
            Kind::Framed(call) => Pin::new(call).poll(context),
            Kind::Ready(result) => {
                Poll::Ready(result.take().map_or(Err(CallFailure::NoAnswer), |result| *result))
            }
            // A task that ends without a result ended with its runtime.
            Kind::Task(task) => Pin::new(&mut task.0)
                .poll(context)
                .map(|result| result.unwrap_or(Err(CallFailure::NoAnswer))),
            Kind::Boxed(future) => future.as_mut().poll(context),
        }
    }
}

/// Aborts its task when dropped.
pub(super) struct AbortOnDrop<T>(pub(super) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
