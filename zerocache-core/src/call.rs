//! The result of a request to another node, as every transport reports it.

use crate::wire::Response;

/// Why a call has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The connection was refused: nothing listens at the address.
    Refused,
    /// The request was not sent: no connection could be established.
    NotSent,
    /// The request was not sent: the node could not be verified, or it does not accept the certificate of
    /// this process.
    Unverified,
    /// The request was not sent: the node is on another host, and this process uses nodes of its own host only.
    OtherHost,
    /// The request may have been sent, but no response arrived in time.
    NoAnswer,
}

/// The result of a call to another node.
pub type CallResult = Result<Response, CallFailure>;
