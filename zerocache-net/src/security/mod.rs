//! Who a process is, and whom it trusts: secrets, tokens, certificates and TLS.
//!
//! A [`Security`] holds the credentials of one process. They are replaced as a whole, or not at all, when the
//! files that they come from change. `docs/security.md` describes the levels.

mod config;
mod error;
mod inputs;
mod peer;
mod state;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;

#[cfg(feature = "tls")]
pub(crate) use self::tls::{ConnectError, Tls, certificate_end, connect};
#[cfg(feature = "tls")]
pub use self::tls::{
    Issued, Subject, authority_hash, authority_pem, hash_of_authority_pem, issue_certificate,
    new_authority,
};
pub use self::{
    config::{ProcessKind, SecurityConfig, Source, TlsFiles, TlsMode},
    error::SecurityError,
    inputs::secrets,
    peer::PeerCertificate,
    state::{Security, is_same_host},
    tls::{ClientHello, TlsAcceptor},
};
