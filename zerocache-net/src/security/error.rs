//! Errors of secrets, tokens and certificates.

use std::{io, path::PathBuf};

use zerocache_core::access::{InvalidSecret, InvalidToken};

/// The most secrets of one file.
pub(super) const SECRETS_MAX: usize = 4;

/// The reason why credentials cannot be used. No message contains a secret or a token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file is larger than any secret, token or certificate.
    #[error("{} has more than {max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        max: u64,
    },
    /// A text is not a secret.
    #[error("{place}: {source}")]
    InvalidSecret {
        /// Where the text is.
        place: String,
        /// What is allowed.
        source: InvalidSecret,
    },
    /// There is no secret where one was expected.
    #[error("{place}: there is no secret; write one into it that `zerocache secret` printed")]
    NoSecret {
        /// Where it was expected.
        place: String,
    },
    /// A file holds too many secrets.
    #[error("{place}: {count} secrets are too many; at most {SECRETS_MAX} are accepted at a time")]
    TooManySecrets {
        /// The file.
        place: String,
        /// How many it holds.
        count: usize,
    },
    /// A variable holds several secrets.
    #[error("the secret has several lines; several secrets at a time need a file")]
    SecretsWithoutFile,
    /// A text is not a token.
    #[error("{place}: {source}")]
    InvalidToken {
        /// Where the text is.
        place: String,
        /// What is allowed.
        source: InvalidToken,
    },
    /// TLS was asked for, and there is nothing to prove or verify anybody by.
    #[error("TLS needs a secret or certificates; a client can also have a token")]
    NoCredentials,
    /// A static token came without certificates of CAs.
    #[error(
        "a static token does not say how to verify a node: give the file with the accepted CAs too"
    )]
    TokenWithoutCa,
    /// Files of certificates are missing.
    #[error("{0}")]
    MissingFiles(&'static str),
    /// A PEM file does not contain what it should.
    #[error("{}: there is no {wanted} in PEM form in it", path.display())]
    NothingInPem {
        /// The file.
        path: PathBuf,
        /// What was expected.
        wanted: &'static str,
    },
    /// A PEM file, or something in it, cannot be parsed.
    #[error("{}: {reason}", path.display())]
    InvalidPem {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A private key belongs to another certificate.
    #[error("the key in {} does not fit the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        cert: PathBuf,
    },
    /// The own certificate has expired, or is not valid yet.
    #[error("the certificate in {} is valid from {from} to {until}; now it is {now}", path.display())]
    OutOfDate {
        /// The file.
        path: PathBuf,
        /// The beginning of its validity.
        from: String,
        /// The end of its validity.
        until: String,
        /// The wall clock.
        now: String,
    },
    /// The own certificate would be refused by other nodes.
    #[error("the CAs in {} do not accept the certificate in {}: {reason}", ca.display(), cert.display())]
    NotAccepted {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the CAs.
        ca: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A text is not a name for a certificate.
    #[error("{0:?} is not a DNS name or an IP address")]
    InvalidName(String),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Unmade(String),
    /// This build has no TLS.
    #[error("this build has no TLS (feature tls of zerocache-net): only tls = off is possible")]
    NotBuilt,
}
