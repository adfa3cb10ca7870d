//! Why an operation failed.

use zerocache_core::{key::InvalidKey, metadata::TagError, ttl::InvalidTtl};

use crate::codec::CodecError;

/// Why an operation failed: invalid input, or no node to be reached.
///
/// Whatever a write can come to once a node was asked is a value,
/// [`Status`](crate::Status), not an error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key breaks a rule.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
    /// The lifetime is out of range.
    #[error(transparent)]
    InvalidTtl(#[from] InvalidTtl),
    /// A tag cannot be stored.
    #[error(transparent)]
    InvalidTag(#[from] TagError),
    /// A node refuses the key or value, usually because it is too large.
    #[error("refused by the node: {0}")]
    Refused(String),
    /// No node could be asked, or none answered in time.
    #[error("no node is reachable{}", if *.timed_out { ": none answered in time" } else { "" })]
    Unreachable {
        /// Whether a node was asked and the time ran out.
        timed_out: bool,
    },
    /// The client's configuration is not allowed; every operation says so.
    #[error("the client's configuration: {0}")]
    Config(String),
    /// A stored value is not of the type asked for.
    #[error(transparent)]
    Decode(CodecError),
    /// A value could not be encoded.
    #[error(transparent)]
    Encode(CodecError),
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What was asked for is not allowed, whoever answers.
    InvalidInput,
    /// No node could be reached.
    Unreachable,
    /// The client is not configured properly.
    Config,
    /// A value does not fit its type.
    Codec,
}

impl Error {
    /// Which kind of error it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidKey(_) | Self::InvalidTtl(_) | Self::InvalidTag(_) | Self::Refused(_) => {
                ErrorKind::InvalidInput
            }
            Self::Unreachable { .. } => ErrorKind::Unreachable,
            Self::Config(_) => ErrorKind::Config,
            Self::Decode(_) | Self::Encode(_) => ErrorKind::Codec,
        }
    }

    /// Whether a node was asked and the time ran out.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Unreachable { timed_out: true })
    }
}
