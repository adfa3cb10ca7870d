//! The seam between the protocol and the network.
//!
//! A transport moves one request to an address and brings back its response. It knows neither keys
//! nor members. Whether a failed request can have arrived is all that it says beyond that, because
//! that decides whether it may be sent to another node.

mod call;
mod http;

use std::{net::SocketAddr, task::Waker, time::Duration};

use zerocache_core::{
    call::CallFailure,
    time::Instant,
    ttl::Ttl,
    version::Incarnation,
    wire::{Ack, RequestMessage, Response},
};

pub use self::call::Call;
pub use self::http::{HttpTransport, TransportError};

/// Where a node takes messages over HTTP.
pub const MESSAGES_PATH: &str = "/v1/messages";

/// The media type of a message in an HTTP body.
pub const MESSAGES_TYPE: &str = "application/vnd.zerocache.message";

/// What is done with the outcome of a call; it must not block.
pub type Then = Box<dyn FnOnce(Result<Response, CallFailure>) + Send>;

/// A request that was not taken, and what was to be done with its outcome.
pub type NotTaken = Box<(RequestMessage, Then)>;

/// A read or write to be sent in the shortest way.
#[derive(Debug)]
pub struct Short<'a> {
    /// Which node is meant, and where it stands.
    pub node: (Incarnation, SocketAddr),
    /// What to do with it.
    pub what: What<'a>,
    /// The highest stamp that the caller has seen; for writes.
    pub seen: u64,
    /// A valid key.
    pub key: &'a [u8],
    /// The present.
    pub now: Instant,
    /// How long to wait, in milliseconds.
    pub timeout_ms: u64,
    /// Who is woken at its end, before the call is polled.
    pub waker: &'a Waker,
}

/// What is to be done with a key.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// Read it.
    Get,
    /// Store a value for it, with the metadata that stand beside it.
    Put(&'a [u8], &'a [u8], Ttl, Ack),
    /// Delete it.
    Delete(Ack),
}

/// Carries requests to nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends `message` to `to` and waits at most `timeout` for the response.
    ///
    /// The transport fills in the time of sending; lifetimes are encoded as what remains then.
    ///
    /// # Cancellation
    /// Dropping the future gives the response up. The request may have been sent.
    fn call(&self, to: SocketAddr, message: RequestMessage, timeout: Duration) -> Call;

    /// Sends many messages for one node, as [`call`](Self::call) sends each, and gives the calls in
    /// their order. Where a connection carries many requests at once, they leave together.
    fn call_many(
        &self,
        to: SocketAddr,
        messages: Vec<RequestMessage>,
        timeout: Duration,
    ) -> Vec<Call> {
        messages.into_iter().map(|message| self.call(to, message, timeout)).collect()
    }

    /// As [`call`](Self::call), if that can be done at once; `then` is given the outcome, on whatever
    /// task learns of it. Both come back when [`call`](Self::call) has to do it.
    ///
    /// # Errors
    /// What was given: nothing was sent.
    fn try_call_then(
        &self,
        _to: SocketAddr,
        message: RequestMessage,
        _timeout: Duration,
        then: Then,
    ) -> Result<(), NotTaken> {
        Err(Box::new((message, then)))
    }

    /// Sends a read or write in the shortest way, if there is one at once; none when
    /// [`call`](Self::call) has to do it.
    fn try_short(&self, _short: &Short<'_>) -> Option<Call> {
        None
    }
}
