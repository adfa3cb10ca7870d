//! The seam between the protocol and the network.
//!
//! A transport moves one request to an address and brings back its response. It knows neither keys
//! nor members. Whether a failed request can have arrived is all that it says beyond that, because
//! that decides whether it may be sent to another node.

mod call;
mod http;

use std::{net::SocketAddr, time::Duration};

use zerocache_core::wire::RequestMessage;

pub use self::call::Call;
pub use self::http::{HttpTransport, TransportError};

/// Where a node takes messages over HTTP.
pub const MESSAGES_PATH: &str = "/v1/messages";

/// The media type of a message in an HTTP body.
pub const MESSAGES_TYPE: &str = "application/vnd.zerocache.message";

/// Carries requests to nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends `message` to `to` and waits at most `timeout` for the response.
    ///
    /// The transport fills in the time of sending; lifetimes are encoded as what remains then.
    ///
    /// # Cancellation
    /// Dropping the future gives the response up. The request may have been sent.
    fn call(&self, to: SocketAddr, message: RequestMessage, timeout: Duration) -> Call;
}
