//! What a response says: what became of a write, why something was refused, sums.

use alloc::{string::String, vec::Vec};

use super::{
    field::{DecodeError, Field},
    repair::{Age, Line},
};
use crate::version::Version;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is stored on as many replicas as [`Written`] says.
    Stored,
    /// A newer write of the same key won meanwhile.
    Superseded,
    /// It was not stored: the node is leaving or overloaded.
    Refused,
    /// No answer came: it may be stored or not. Only a client says this.
    Unknown,
}

impl Status {
    /// The status's name in JSON and logs.
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

/// The answer to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// What became of it.
    pub status: Status,
    /// Replicas that hold it or something newer, the accepting node included.
    pub replicas: u32,
    /// Replicas that were waited for.
    pub replicas_wanted: u32,
    /// Its version, if one was given.
    pub version: Option<Version>,
}

/// What a peer did with one record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// It holds this version of the key, which is the one sent or newer.
    Holds(Version),
    /// It refused the record: too far ahead of its clock, or too old to judge.
    Refused,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The caller belongs to another cluster.
    WrongCluster,
    /// The node that was meant no longer stands at this address.
    WrongNode,
    /// The message cannot be decoded.
    BadMessage,
    /// The key breaks a rule.
    BadKey,
    /// The value is larger than this node allows.
    TooLarge,
    /// The node has more to do than it can.
    Overloaded,
    /// The deadline had passed on arrival.
    Expired,
    /// The handshake is incomplete: a region is missing or not allowed.
    BadHello,
    /// A code of a later release.
    Other,
}

impl RefusalCode {
    const ALL: [(Self, u64); 8] = [
        (Self::WrongCluster, 1),
        (Self::WrongNode, 2),
        (Self::BadMessage, 3),
        (Self::BadKey, 4),
        (Self::TooLarge, 5),
        (Self::Overloaded, 6),
        (Self::Expired, 7),
        (Self::BadHello, 8),
    ];

    pub(super) fn to_number(self) -> u64 {
        Self::ALL.iter().find(|(code, _)| *code == self).map_or(0, |(_, n)| *n)
    }

    pub(super) fn from_number(n: u64) -> Self {
        Self::ALL.iter().find(|(_, number)| *number == n).map_or(Self::Other, |(code, _)| *code)
    }
}

/// A refused request: nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for programs.
    pub code: RefusalCode,
    /// Why, for people.
    pub text: String,
    /// The refusing node's wall clock in milliseconds since the Unix epoch; 0 if not told.
    pub wall_ms: u64,
    /// For a value that is [too large](RefusalCode::TooLarge): how many bytes the node takes; 0 if not
    /// told.
    pub value_bytes_max: u64,
}

/// Sums over what a node knows, and what it says of itself besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// The first second that is in the sums: that of the window, or the first of which this node
    /// knows everything, if that is later.
    pub from: u64,
    /// The sums.
    pub sums: Vec<u64>,
    /// How long ago it last had everything that others knew; with sums of blocks.
    pub ages: Vec<Age>,
    /// For how long the node has known what nobody else does, in milliseconds: since its start, or since
    /// it last took everything from another node.
    pub lived_ms: u64,
    /// From whom it has what it knows; with sums of blocks.
    pub line: Option<Line>,
}
