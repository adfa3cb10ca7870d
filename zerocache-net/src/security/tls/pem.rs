//! Certificates and keys from PEM files, and what is checked before they are used.

use std::{sync::Arc, time::SystemTime};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::danger::ClientCertVerifier,
    sign::CertifiedKey,
};
use x509_parser::time::ASN1Time;

use super::{NODE_NAME, leaf::since_epoch, peer};
use crate::security::{
    SecurityError,
    inputs::{PemFile, PemFiles},
};

/// The most certificates of one file.
const CERTIFICATES_MAX: usize = 256;

/// Parses the accepted CAs.
pub(super) fn roots(file: &PemFile) -> Result<Arc<RootCertStore>, SecurityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| file.invalid(error))?;
    }
    Ok(Arc::new(roots))
}

/// Parses the certificate of this process with its key, and checks that both belong together and that the
/// certificate is valid at `now`.
pub(super) fn certified_key(
    files: &PemFiles,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<Option<Arc<CertifiedKey>>, SecurityError> {
    let (cert, key) = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => return Ok(None),
        _ => {
            let missing = "a certificate and its key belong together: give both files";
            return Err(SecurityError::MissingFiles(missing));
        }
    };
    let chain = certificates(cert)?;
    check_dates(cert, &chain[0], now)?;
    let der =
        PrivateKeyDer::from_pem_slice(&key.bytes).map_err(|_| SecurityError::NothingInPem {
            path: key.path.clone(),
            wanted: "private key that is not encrypted",
        })?;
    let signing =
        provider.key_provider.load_private_key(der).map_err(|error| key.invalid(error))?;
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(Some(Arc::new(certified)))
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(SecurityError::KeyMismatch { key: key.path.clone(), cert: cert.path.clone() })
        }
        Err(error) => Err(cert.invalid(error)),
    }
}

/// Parses the certificates of a file; at least one.
pub(super) fn certificates(file: &PemFile) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let parsed = CertificateDer::pem_slice_iter(&file.bytes).take(CERTIFICATES_MAX);
    let parsed: Result<Vec<_>, _> = parsed.collect();
    let certificates = parsed.map_err(|error| file.invalid(error))?;
    if certificates.is_empty() {
        let path = file.path.clone();
        return Err(SecurityError::NothingInPem { path, wanted: "certificate" });
    }
    Ok(certificates)
}

fn check_dates(
    file: &PemFile,
    certificate: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<(), SecurityError> {
    let (from, until) = peer::validity(certificate).map_err(|error| file.invalid(error))?;
    if (from..=until).contains(&now) {
        return Ok(());
    }
    Err(SecurityError::OutOfDate {
        path: file.path.clone(),
        from: time_text(from),
        until: time_text(until),
        now: time_text(now),
    })
}

/// Returns a time for people.
pub(super) fn time_text(time: SystemTime) -> String {
    let epoch_s = i64::try_from(since_epoch(time).as_secs()).unwrap_or(i64::MAX);
    ASN1Time::from_timestamp(epoch_s).map_or_else(|_| String::new(), |time| time.to_string())
}

/// Checks that other nodes of this configuration accept the certificate of this one as a caller, and warns if
/// they would not take it for a node.
pub(super) fn check_own(
    files: &PemFiles,
    own: &CertifiedKey,
    verifier: &dyn ClientCertVerifier,
    now: SystemTime,
) -> Result<(), SecurityError> {
    let (Some(cert), Some(ca)) = (&files.cert, &files.ca) else { return Ok(()) };
    let now = UnixTime::since_unix_epoch(since_epoch(now));
    let [leaf, between @ ..] = own.cert.as_slice() else { return Ok(()) };
    verifier.verify_client_cert(leaf, between, now).map_err(|error| {
        SecurityError::NotAccepted {
            cert: cert.path.clone(),
            ca: ca.path.clone(),
            reason: error.to_string(),
        }
    })?;
    let is_node = peer::parse(&own.cert, false).is_ok_and(|certificate| certificate.is_node);
    if !is_node {
        tracing::warn!(
            path = %cert.path.display(),
            "the certificate lacks the name {NODE_NAME} or the extended key usage clientAuth: other nodes \
             will not take this process for a node"
        );
    }
    Ok(())
}

impl PemFile {
    fn invalid(&self, error: impl std::fmt::Display) -> SecurityError {
        SecurityError::InvalidPem { path: self.path.clone(), reason: error.to_string() }
    }
}
