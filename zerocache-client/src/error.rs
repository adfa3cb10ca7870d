//! Errors of operations, and the reasons that they carry.

use std::{fmt, net::SocketAddr};

use zerocache_core::access::Denial;

pub use zerocache_core::{
    key::InvalidKey,
    metadata::{DescriptionError, TagError},
    ttl::InvalidTtl,
};

pub use crate::codec::CodecError;

/// An operation failed: its input is not allowed, or no node could be reached.
///
/// The outcome of a write that reached a node is a value, [`Status`](crate::Status), not an error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key is not allowed.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
    /// The lifetime is out of range.
    #[error(transparent)]
    InvalidTtl(#[from] InvalidTtl),
    /// A tag is not allowed.
    #[error(transparent)]
    InvalidTag(#[from] TagError),
    /// The content type, the content encoding or an origin is not allowed.
    #[error(transparent)]
    InvalidDescription(#[from] DescriptionError),
    /// A node refused the key or the value, usually because it is too large.
    #[error("refused by the node: {0}")]
    Refused(String),
    /// No node could be asked, or none answered in time.
    #[error("no node is reachable{}", if *.timed_out { ": none answered in time" } else { "" })]
    Unreachable {
        /// True if a node was asked and did not answer in time.
        timed_out: bool,
    },
    /// No node could be asked: the one at `address` is there, and could not prove that it is one of the
    /// cluster, or did not accept the client's certificate. The client has sent it nothing.
    #[error(
        "cannot verify the node at {address}: it is of another cluster or has other secrets, does not accept \
         this client's certificate, or speaks no TLS"
    )]
    Unverified {
        /// The node's address.
        address: SocketAddr,
    },
    /// Nodes deny this client the operation, or everything.
    #[error("denied ({reason}): {text}")]
    Denied {
        /// The reason.
        reason: DenialReason,
        /// What a node says about it.
        text: String,
    },
    /// A setting of the client is not allowed; every operation of the client returns this error.
    #[error("the client's configuration: {0}")]
    Config(String),
    /// The stored value is not of the requested type.
    #[error(transparent)]
    Decode(CodecError),
    /// The value could not be encoded.
    #[error(transparent)]
    Encode(CodecError),
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is not allowed, whichever node answers.
    InvalidInput,
    /// No node could be reached, or none that proved to be one of the cluster.
    Unreachable,
    /// Nodes deny this client what it asks for.
    Denied,
    /// The client's configuration is not allowed.
    Config,
    /// A value cannot be encoded, or decoded as the requested type.
    Codec,
}

/// The reason why nodes deny a client something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DenialReason {
    /// The client has no credentials.
    Missing,
    /// The credentials are of another cluster, were changed, or were revoked.
    Wrong,
    /// The credentials have expired.
    Expired,
    /// The credentials are valid, and do not allow this.
    Forbidden,
    /// The node serves callers of its own host only.
    Protected,
}

impl DenialReason {
    /// Returns the stable code of the reason, as nodes have it in JSON and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => Denial::Missing.as_str(),
            Self::Wrong => Denial::Wrong.as_str(),
            Self::Expired => Denial::Expired.as_str(),
            Self::Forbidden => Denial::Forbidden.as_str(),
            Self::Protected => Denial::Protected.as_str(),
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Denial> for DenialReason {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Missing => Self::Missing,
            Denial::Wrong => Self::Wrong,
            Denial::Expired => Self::Expired,
            Denial::Forbidden => Self::Forbidden,
            Denial::Protected => Self::Protected,
        }
    }
}

impl Error {
    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidKey(_)
            | Self::InvalidTtl(_)
            | Self::InvalidTag(_)
            | Self::InvalidDescription(_)
            | Self::Refused(_) => ErrorKind::InvalidInput,
            Self::Unreachable { .. } | Self::Unverified { .. } => ErrorKind::Unreachable,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Config(_) => ErrorKind::Config,
            Self::Decode(_) | Self::Encode(_) => ErrorKind::Codec,
        }
    }

    /// Returns true if a node was asked and did not answer in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Unreachable { timed_out: true })
    }
}

impl From<CodecError> for Error {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::Encode(_) | CodecError::Unproven => Self::Encode(error),
            CodecError::Untyped | CodecError::Shape | CodecError::Decode(_) => Self::Decode(error),
        }
    }
}
