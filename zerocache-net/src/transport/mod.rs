//! The seam between the protocol and the network.
//!
//! A transport sends one request to an address and returns the response. It knows neither keys nor
//! members. A failure states whether the request can have arrived, because that decides whether it may be
//! sent to another node.
//!
//! Imports go one way: [`framed`] is the protocol over a byte stream and uses nothing else of this module.
//! Dialling, pooling and the transports are built on it.

mod call;
mod dial;
pub mod framed;
mod framed_transport;
#[cfg(feature = "http-fallback")]
mod http;
mod plain_http;
mod pool;
mod stream;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, time::Duration};

use zerocache_core::{
    limits::VALUE_BYTES_WIRE_MAX,
    wire::{MESSAGE_OVERHEAD_BYTES, RequestMessage},
};

use self::framed::{Completion, FastRequest, Unsent};

pub use self::{
    call::Call,
    dial::{MESSAGES_PATH, MESSAGES_TYPE, MakeHello},
    framed_transport::{Connections, FramedTransport},
    plain_http::{HttpResponse, http_request, refuses_frames},
    stream::Stream,
};

/// The largest response that is taken from a node, in bytes.
const RESPONSE_BYTES_MAX: usize = VALUE_BYTES_WIRE_MAX + MESSAGE_OVERHEAD_BYTES;

/// Sends requests to nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends `message` to `to` and waits at most `timeout` for the response.
    ///
    /// The transport sets the time of sending; lifetimes are encoded as what remains of them then.
    ///
    /// # Cancellation
    /// Dropping the call abandons the response. The request may have been sent.
    fn call(&self, to: SocketAddr, message: RequestMessage, timeout: Duration) -> Call;

    /// Sends each message as [`call`](Self::call) does, all to one node, and returns the calls in the same
    /// order. On a framed connection they are written together.
    fn call_many(
        &self,
        to: SocketAddr,
        messages: Vec<RequestMessage>,
        timeout: Duration,
    ) -> Vec<Call> {
        messages.into_iter().map(|message| self.call(to, message, timeout)).collect()
    }

    /// Sends `message` as [`call`](Self::call) does, if an open connection has room for it. `completion`
    /// receives the result, on whichever task learns of it.
    ///
    /// # Errors
    /// Both arguments, when [`call`](Self::call) is needed; nothing was sent.
    fn try_call_then(
        &self,
        _to: SocketAddr,
        message: RequestMessage,
        _timeout: Duration,
        completion: Completion,
    ) -> Result<(), Unsent> {
        Err(Box::new((message, completion)))
    }

    /// Sends a small request on the fast path: at once, over an open connection with room for it. Returns
    /// none when [`call`](Self::call) is needed; nothing was sent then.
    fn try_send_now(&self, _request: &FastRequest<'_>) -> Option<Call> {
        None
    }
}
