//! Outcomes in responses: of a write, of one replicated record, and of a refused request.

use alloc::string::String;

use super::field::{DecodeError, Field};
use crate::version::Version;

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// The value is stored on as many replicas as [`Written`] states.
    Stored,
    /// A newer write of the same key won in the meantime.
    Superseded,
    /// The value was not stored: the node is leaving or overloaded.
    Refused,
    /// No response arrived: the value may be stored or not. Only a client reports this status.
    Unknown,
}

impl Status {
    /// The name of the status in JSON and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }

    pub(super) const fn to_number(self) -> u64 {
        match self {
            Self::Stored => 1,
            Self::Superseded => 2,
            Self::Refused => 3,
            Self::Unknown => 4,
        }
    }

    pub(super) fn from_field(field: &Field<'_>) -> Result<Self, DecodeError> {
        match field.number()? {
            1 => Ok(Self::Stored),
            2 => Ok(Self::Superseded),
            3 => Ok(Self::Refused),
            4 => Ok(Self::Unknown),
            _ => Err(field.invalid()),
        }
    }
}

/// The response to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The outcome.
    pub status: Status,
    /// Replicas that hold this version or a newer one, the accepting node included.
    pub replicas: u32,
    /// Replicas that the accepting node waited for.
    pub replicas_wanted: u32,
    /// The version of the write, if the node assigned one.
    pub version: Option<Version>,
}

/// The outcome of one record of a replicated batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The peer holds this version of the key: the replicated one or a newer one.
    Holds(Version),
    /// The peer refused the record: it is too far ahead of the peer's clock, or older than its retention.
    Refused,
}

/// The reason for a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The caller belongs to another cluster.
    WrongCluster,
    /// The addressed node is no longer at this address.
    WrongNode,
    /// The message cannot be decoded.
    BadMessage,
    /// The key breaks a rule.
    BadKey,
    /// The value is larger than this node allows.
    TooLarge,
    /// The node is overloaded.
    Overloaded,
    /// The deadline had passed on arrival.
    Expired,
    /// The handshake is incomplete: a region is missing or not allowed.
    BadHello,
    /// The caller presented no credentials.
    Unauthenticated,
    /// The caller's credentials do not allow this.
    Forbidden,
    /// The caller's credentials are not of this cluster, were changed, or were revoked.
    BadCredentials,
    /// The caller's credentials have expired.
    ExpiredCredentials,
    /// The node serves callers of its own host only.
    Protected,
    /// The node cannot judge a condition now: a miss of it would not be authoritative.
    Warming,
    /// The condition names a version that the node may not have received yet.
    Behind,
    /// A code of a later release.
    Other,
}

impl RefusalCode {
    const ALL: [(Self, u64); 15] = [
        (Self::WrongCluster, 1),
        (Self::WrongNode, 2),
        (Self::BadMessage, 3),
        (Self::BadKey, 4),
        (Self::TooLarge, 5),
        (Self::Overloaded, 6),
        (Self::Expired, 7),
        (Self::BadHello, 8),
        (Self::Unauthenticated, 9),
        (Self::Forbidden, 10),
        (Self::BadCredentials, 11),
        (Self::ExpiredCredentials, 12),
        (Self::Protected, 13),
        (Self::Warming, 14),
        (Self::Behind, 15),
    ];

    pub(super) fn to_number(self) -> u64 {
        Self::ALL.iter().find(|(code, _)| *code == self).map_or(0, |(_, n)| *n)
    }

    pub(super) fn from_number(n: u64) -> Self {
        Self::ALL.iter().find(|(_, number)| *number == n).map_or(Self::Other, |(code, _)| *code)
    }
}

/// A refused request: the node did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, for programs.
    pub code: RefusalCode,
    /// The reason, for people.
    pub text: String,
    /// The refusing node's wall clock in milliseconds since the Unix epoch; 0 if not stated.
    pub wall_ms: u64,
    /// For a value that is [too large](RefusalCode::TooLarge): the node's limit in bytes; 0 if not stated.
    pub value_bytes_max: u64,
}
