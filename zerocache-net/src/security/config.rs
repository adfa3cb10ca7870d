//! The settings of a process that name its credentials.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

/// Whether connections are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    #[default]
    Off,
    /// Where the other side can: plain connections are taken too, and made after an answer without TLS. It
    /// protects nothing; it is for the time in which a cluster changes over.
    Optional,
    /// Always.
    Required,
}

impl TlsMode {
    /// The name of the mode in configuration and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TlsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let modes = [Self::Off, Self::Optional, Self::Required];
        let mode = modes.into_iter().find(|mode| mode.as_str() == text);
        mode.ok_or_else(|| format!("{text:?} is no mode of TLS; use off, optional or required"))
    }
}

/// Where a secret or a token comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum Source {
    /// The value itself.
    Value(String),
    /// A file that holds it. It is read again when it changes.
    File(PathBuf),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// PEM files of certificates.
///
/// A node has all three. A client has a CA, and a certificate with its key if it proves itself by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of this process, followed by those between it and the CA.
    pub cert: Option<PathBuf>,
    /// The private key of the certificate, not encrypted.
    pub key: Option<PathBuf>,
    /// The certificates of the accepted CAs.
    pub ca: Option<PathBuf>,
}

/// The kind of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProcessKind {
    /// A node.
    Node {
        /// Its region.
        region: String,
    },
    /// A client.
    #[default]
    Client,
}

#[cfg(feature = "tls")]
impl ProcessKind {
    pub(super) const fn is_node(&self) -> bool {
        matches!(self, Self::Node { .. })
    }
}

/// The credentials that a process uses. Without any its connections are plain.
///
/// With a secret and files, TLS uses the files; the secret verifies tokens only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityConfig {
    /// The secret of the cluster. A file holds up to four, one a line: the first is used, all are accepted.
    pub secret: Option<Source>,
    /// Certificates.
    pub files: Option<TlsFiles>,
    /// The token that a client presents.
    pub token: Option<Source>,
    /// Whether connections are encrypted. `None`: always, as soon as a secret, files or a token are given.
    pub tls: Option<TlsMode>,
    /// The name that is sent to a node (SNI), and that its certificate must have where certificates come
    /// from files; `node.zerocache.internal` if none is given.
    pub server_name: Option<String>,
    /// Further names and addresses of this process in a certificate that it makes for itself, for callers
    /// that are no part of the cluster.
    pub names: Vec<String>,
    /// The addresses of this process in a certificate that it makes for itself.
    pub addresses: Vec<IpAddr>,
    /// The kind of the process.
    pub kind: ProcessKind,
    /// Whether the process connects to nodes of its own host only. A node that serves callers of its own host
    /// only does so: another host could not call back.
    pub own_host_only: bool,
}

impl SecurityConfig {
    /// Returns whether the process makes a certificate for itself, from a secret.
    pub(super) const fn makes_certificates(&self) -> bool {
        self.secret.is_some() && self.files.is_none()
    }

    /// Returns whether connections are encrypted.
    #[must_use]
    pub const fn mode(&self) -> TlsMode {
        match self.tls {
            Some(mode) => mode,
            None if self.secret.is_some() || self.files.is_some() || self.token.is_some() => {
                TlsMode::Required
            }
            None => TlsMode::Off,
        }
    }
}
