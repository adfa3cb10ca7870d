//! The first request of an operation, sent by the caller's own task.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use zerocache_core::{
    node::CallFailure,
    route::{Budget, Turn},
    wire::Response,
};
use zerocache_net::transport::Call;

use super::engine::Asked;

/// A first request that is under way.
pub(super) struct Sent {
    pub(super) call: Call,
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
        Pin::new(&mut self.call).poll(context).map(|result| Ended { asked, result, turn, budget })
    }
}
