//! The first request of an operation, sent by the caller's own task.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use zerocache_core::{
    call::CallFailure,
    route::{Budget, Turn},
    wire::Response,
};
use zerocache_net::{process::ProcessOwned, transport::Call};

use super::engine::Asked;

/// A first request that is under way.
pub(super) struct Sent {
    pub(super) call: ProcessOwned<Call>,
    pub(super) asked: Asked,
    pub(super) turn: Turn,
    pub(super) budget: Budget,
}

/// A first request that has ended.
pub(super) struct Ended {
    pub(super) asked: Asked,
    pub(super) result: Result<Response, CallFailure>,
    pub(super) turn: Turn,
    pub(super) budget: Budget,
}

impl Sent {
    /// What came of it.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        let Self { asked, turn, budget, .. } = *self;
        let result = match self.call.value_mut() {
            Some(call) => Pin::new(call).poll(context),
            // It was sent before this process was forked off: the parent gets the answer.
            None => Poll::Ready(Err(CallFailure::NoAnswer)),
        };
        result.map(|result| Ended { asked, result, turn, budget })
    }
}
