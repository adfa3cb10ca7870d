//! Stand-in for the client's error type; replaced by the real one, which has these parts.

use crate::codec::CodecError;

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A stored value is not of the type asked for.
    #[error(transparent)]
    Decode(CodecError),
    /// A value could not be encoded.
    #[error(transparent)]
    Encode(CodecError),
    /// No node answered.
    #[error("no node is reachable")]
    Unreachable,
}

impl Error {
    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        false
    }
}
