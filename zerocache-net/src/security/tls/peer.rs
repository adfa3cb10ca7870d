//! Reads the names and uses of a certificate.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::{CLIENT_NAME, NODE_NAME};
use crate::security::PeerCertificate;

/// The most names that are read of one certificate.
const NAMES_MAX: usize = 256;

/// Reads the first certificate of a chain that was verified. `is_of_secret`: by the CA of a secret.
pub(super) fn parse(
    chain: &[CertificateDer<'_>],
    is_of_secret: bool,
) -> Result<PeerCertificate, String> {
    let leaf = chain.first().ok_or("there is no certificate")?;
    let certificate = decode(leaf)?;
    let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let (mut dns_names, mut uris) = (Vec::new(), Vec::new());
    for name in names.iter().take(NAMES_MAX) {
        match name {
            GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            _ => {}
        }
    }
    let usage = certificate.extended_key_usage().map_err(|error| error.to_string())?;
    let is_for_clients = usage.is_some_and(|usage| usage.value.client_auth);
    let has = |wanted: &str| dns_names.iter().any(|name| name.eq_ignore_ascii_case(wanted));
    Ok(PeerCertificate {
        public_key_hash: *blake3::hash(certificate.public_key().raw).as_bytes(),
        is_node: is_for_clients && has(NODE_NAME),
        is_client_of_secret: is_of_secret && is_for_clients && has(CLIENT_NAME),
        dns_names,
        uris,
        not_after: time(certificate.validity().not_after.timestamp()),
        chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
    })
}

/// Returns BLAKE3 of the public key of a certificate.
pub(super) fn public_key_hash(certificate: &CertificateDer<'_>) -> Result<[u8; 32], String> {
    Ok(*blake3::hash(decode(certificate)?.public_key().raw).as_bytes())
}

/// Returns when a certificate begins and ceases to be valid.
pub(super) fn validity(
    certificate: &CertificateDer<'_>,
) -> Result<(SystemTime, SystemTime), String> {
    let decoded = decode(certificate)?;
    let (from, until) = (decoded.validity().not_before, decoded.validity().not_after);
    Ok((time(from.timestamp()), time(until.timestamp())))
}

fn time(epoch_s: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(epoch_s).unwrap_or(0))
}

/// Returns the encoded name of the issuer of a certificate.
pub(super) fn issuer(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    Ok(decode(certificate)?.issuer().as_raw().to_vec())
}

fn decode<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(certificate)
        .map(|(_, certificate)| certificate)
        .map_err(|error| error.to_string())
}
