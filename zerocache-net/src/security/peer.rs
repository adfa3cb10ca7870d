//! The verified certificate of the other side of a connection.

use std::{fmt, time::SystemTime};

/// A certificate that the other side proved to have, and that one of the accepted CAs issued.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// BLAKE3 of its public key (`SubjectPublicKeyInfo`).
    pub public_key_hash: [u8; 32],
    /// Its DNS names.
    pub dns_names: Vec<String>,
    /// Its URIs, as workload identities have them.
    pub uris: Vec<String>,
    /// Whether it is that of a node: it has the name `node.zerocache.internal`, and may be used to
    /// authenticate as a client.
    pub is_node: bool,
    /// Whether a client made it for itself from the secret of the cluster. Never true of certificates from
    /// files.
    pub is_client_of_secret: bool,
    /// The end of its validity.
    pub not_after: SystemTime,
    /// The certificate, and those that were sent with it, in DER form.
    pub(super) chain: Vec<Vec<u8>>,
}

impl PeerCertificate {
    /// The first 64 bits of [`public_key_hash`](Self::public_key_hash): the identity of a process that made
    /// its certificate from the secret.
    #[must_use]
    pub fn identity(&self) -> u64 {
        identity(&self.public_key_hash)
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerCertificate")
            .field("identity", &format_args!("{:016x}", self.identity()))
            .field("dns_names", &self.dns_names)
            .field("uris", &self.uris)
            .field("is_node", &self.is_node)
            .finish_non_exhaustive()
    }
}

/// The first 64 bits of the hash of a public key.
pub(super) fn identity(hash: &[u8; 32]) -> u64 {
    hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}
