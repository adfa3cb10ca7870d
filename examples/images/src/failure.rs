//! The reasons why a request has no image, their codes and statuses.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reason. What is behind the service (addresses, names of hosts, errors of sockets) is in none of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// A parameter is wrong: which one, and what is allowed.
    BadRequest(String),
    /// The URL is not signed with a key of the service.
    BadSignature,
    /// The caller is not allowed to do this.
    Forbidden,
    /// The host of the source is not one that the service fetches from.
    SourceRefused,
    /// Its port is not.
    PortRefused,
    /// Its address is not public, nor in a network that is allowed.
    AddressRefused,
    /// The origin has no such image.
    OriginNotFound,
    /// The source has more bytes or pixels than are allowed.
    TooLarge,
    /// The source is not an image of a format that is read.
    NotAnImage,
    /// The source is damaged.
    Undecodable,
    /// All places for requests, fetches or conversions are in use, and so is the queue for them.
    Busy,
    /// No worker can be reached.
    NoWorker,
    /// The origin cannot be reached, or does not answer as one.
    OriginFailed,
    /// The origin is too slow.
    OriginTimeout,
    /// A defect of the service.
    Internal,
    /// No node of the cache took a purge.
    PurgeFailed,
    /// The time for the request ended before there was an image.
    Timeout,
}

impl Failure {
    /// Every reason, with an empty text.
    pub const ALL: [Self; 17] = [
        Self::BadRequest(String::new()),
        Self::BadSignature,
        Self::Forbidden,
        Self::SourceRefused,
        Self::PortRefused,
        Self::AddressRefused,
        Self::OriginNotFound,
        Self::TooLarge,
        Self::NotAnImage,
        Self::Undecodable,
        Self::Busy,
        Self::NoWorker,
        Self::OriginFailed,
        Self::OriginTimeout,
        Self::Internal,
        Self::PurgeFailed,
        Self::Timeout,
    ];

    /// The code in the JSON of an answer, and the label of the counter.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::BadSignature => "bad_signature",
            Self::Forbidden => "forbidden",
            Self::SourceRefused => "source_refused",
            Self::PortRefused => "port_refused",
            Self::AddressRefused => "address_refused",
            Self::OriginNotFound => "origin_not_found",
            Self::TooLarge => "source_too_large",
            Self::NotAnImage => "not_an_image",
            Self::Undecodable => "undecodable",
            Self::Busy => "busy",
            Self::NoWorker => "no_worker",
            Self::OriginFailed => "origin_failed",
            Self::OriginTimeout => "origin_timeout",
            Self::Internal => "internal",
            Self::PurgeFailed => "purge_failed",
            Self::Timeout => "timeout",
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::BadSignature
            | Self::Forbidden
            | Self::SourceRefused
            | Self::PortRefused
            | Self::AddressRefused => 403,
            Self::OriginNotFound => 404,
            Self::TooLarge => 413,
            Self::NotAnImage => 415,
            Self::Undecodable => 422,
            Self::Busy | Self::NoWorker | Self::PurgeFailed => 503,
            Self::OriginFailed => 502,
            Self::OriginTimeout | Self::Timeout => 504,
            Self::Internal => 500,
        }
    }

    /// The seconds after which the caller may try again, if that helps.
    #[must_use]
    pub fn retry_after(&self) -> Option<u32> {
        matches!(self, Self::Busy | Self::NoWorker | Self::PurgeFailed | Self::Timeout).then_some(1)
    }

    /// Whether the same source fails in the same way for a while: such a failure is stored for a short time, so
    /// that a page with a broken image does not load its origin with every view.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::OriginNotFound | Self::TooLarge | Self::NotAnImage | Self::Undecodable)
    }

    /// Returns a wrong parameter.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::BadRequest(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::BadRequest(text) => text,
            Self::BadSignature => "the signature is missing or wrong",
            Self::Forbidden => "not allowed",
            Self::SourceRefused => "this host is none of those that are fetched from (allow-hosts)",
            Self::PortRefused => "this port is none of those that are fetched from (allow-ports)",
            Self::AddressRefused => {
                "this address is not public, and in no network of allow-networks"
            }
            Self::OriginNotFound => "the origin has no such image",
            Self::TooLarge => "the source has too many bytes or pixels",
            Self::NotAnImage => "the source is not a JPEG, PNG, GIF or WebP image",
            Self::Undecodable => "the source is damaged",
            Self::Busy => "too many requests at once; try again",
            Self::NoWorker => "no worker can be reached; try again",
            Self::OriginFailed => "the origin did not deliver the image",
            Self::OriginTimeout => "the origin is too slow",
            Self::Internal => "internal error",
            Self::PurgeFailed => "no node of the cache took the purge; try again",
            Self::Timeout => "the image was not ready in time; try again",
        })
    }
}

impl std::error::Error for Failure {}
