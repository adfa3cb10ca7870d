//! Certificates for those who want their own CA and have no other tool for it.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::{
    WallClock,
    authority::unmade,
    leaf::{self, Names, since_epoch},
    peer,
};
use crate::security::SecurityError;

/// A certificate is valid from this long before it is made: clocks differ.
const BEFORE: Duration = Duration::from_secs(60 * 60);

/// A certificate and its private key, in PEM form.
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key (PKCS#8, not encrypted).
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A node.
    Node {
        /// Its region.
        region: String,
        /// Further DNS names and IP addresses, for callers that are no part of the cluster.
        names: Vec<String>,
    },
    /// A client. An access file says what its names and URIs may do.
    Client {
        /// DNS names and IP addresses.
        names: Vec<String>,
        /// URIs, such as `spiffe://shop.example/orders`.
        uris: Vec<String>,
    },
}

/// Makes a CA with a new key, valid for `lifetime` from now.
///
/// # Errors
/// [`SecurityError::Unmade`].
pub fn new_authority(name: &str, lifetime: Duration) -> Result<Issued, SecurityError> {
    let key = KeyPair::generate().map_err(unmade)?;
    let (from, until) = validity(lifetime);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(leaf::serial(&key, from));
    params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(from);
    params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(until);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(unmade)?;
    Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// Makes a certificate with a new key, issued by the CA that `ca_pem` and `ca_key_pem` are, valid for
/// `lifetime` from now. It authenticates a server and a client.
///
/// # Errors
/// [`SecurityError`] if the CA or a name cannot be used.
pub fn issue_certificate(
    ca_pem: &str,
    ca_key_pem: &str,
    subject: &Subject,
    lifetime: Duration,
) -> Result<Issued, SecurityError> {
    let ca_key = KeyPair::from_pem(ca_key_pem).map_err(|_| {
        SecurityError::Unmade("the key of the CA is no PKCS#8 key in PEM form".to_owned())
    })?;
    let issuer = Issuer::from_ca_cert_pem(ca_pem, &ca_key)
        .map_err(|_| SecurityError::Unmade("the CA is no certificate in PEM form".to_owned()))?;
    if hash_of_authority_pem(ca_pem)? != super::authority::hash(&ca_key) {
        return Err(SecurityError::Unmade("the key of the CA does not fit the CA".to_owned()));
    }
    let mut sans = Names::empty();
    let (name, names, uris) = match subject {
        Subject::Node { region, names } => {
            sans.add_node(region)?;
            ("zerocache node", names, &Vec::new())
        }
        Subject::Client { names, uris } => ("zerocache client", names, uris),
    };
    names.iter().try_for_each(|name| sans.add(name))?;
    uris.iter().try_for_each(|uri| sans.add_uri(uri))?;
    let key = KeyPair::generate().map_err(unmade)?;
    let (from, until) = validity(lifetime);
    let certificate = leaf::issue(name, sans, from..until, &key, &issuer)?;
    Ok(Issued { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

/// Returns BLAKE3 of the public key (`SubjectPublicKeyInfo`) of the first certificate in `pem`.
///
/// # Errors
/// [`SecurityError::Unmade`] if there is none.
pub fn hash_of_authority_pem(pem: &str) -> Result<[u8; 32], SecurityError> {
    let none = |_| SecurityError::Unmade("there is no certificate in PEM form".to_owned());
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(none)?;
    peer::public_key_hash(&certificate).map_err(SecurityError::Unmade)
}

fn validity(lifetime: Duration) -> (SystemTime, SystemTime) {
    let now = WallClock::default().now();
    (now - BEFORE, now + lifetime)
}
