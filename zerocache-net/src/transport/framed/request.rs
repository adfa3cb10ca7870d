//! Requests and their results, as a connection takes and returns them.

use std::{fmt, net::SocketAddr, task::Waker, time::Duration};

use zerocache_core::{
    call::CallFailure,
    version::Incarnation,
    wire::{RequestMessage, Response},
};

use super::Encode;

/// The result of a call.
pub type CallResult = Result<Response, CallFailure>;

/// A function that receives the result of a call; it must not block.
pub type Completion = Box<dyn FnOnce(CallResult) + Send>;

/// A request that was not sent, and the function that was to receive its result.
pub type Unsent = Box<(RequestMessage, Completion)>;

/// A small request for the fast path: it is encoded straight into the next frame of an open connection,
/// on the caller's thread, without an allocation of its own.
pub struct FastRequest<'a> {
    /// The node that must answer.
    pub node: Incarnation,
    /// The address of the node.
    pub address: SocketAddr,
    /// Writes the message. The handshake has told the receiver the envelope; only what differs from it,
    /// such as the highest stamp seen, belongs into the message.
    pub message: &'a dyn Encode,
    /// Whether the request may be sent again although it may have arrived, as a read may.
    pub repeatable: bool,
    /// When its caller began, as [`elapsed`](crate::clock::elapsed) gives it: a few microseconds ago at most.
    pub begun: Duration,
    /// How long to wait for the response, in milliseconds.
    pub timeout_ms: u64,
    /// Woken when the call completes, unless a later poll names another waker.
    pub waker: &'a Waker,
}

impl fmt::Debug for FastRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FastRequest")
            .field("node", &self.node)
            .field("address", &self.address)
            .field("repeatable", &self.repeatable)
            .field("timeout_ms", &self.timeout_ms)
            .finish_non_exhaustive()
    }
}
