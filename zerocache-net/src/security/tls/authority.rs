//! The certificate authority that a secret stands for.
//!
//! Its P-256 key is derived from the secret, its dates and its serial number are fixed, and its signatures are
//! deterministic (RFC 6979): every process makes the same certificate, byte for byte. The subject contains
//! the hash of the public key, so that authorities of different secrets have different names.

use p256::ecdsa::{DerSignature, SigningKey as EcKey, signature::Signer};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    PublicKeyData, SerialNumber, SignatureAlgorithm, SigningKey, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use zerocache_core::access::Secret;

use super::NODE_NAME;
use crate::security::SecurityError;

/// What the key is derived for.
const KEY_CONTEXT: &str = "zerocache 2026 key of the certificate authority";

/// The hexadecimal digits of the hash of an authority's key in its subject and in names.
const LABEL_DIGITS: usize = 32;

/// The key of an authority.
pub(super) struct AuthorityKey {
    key: EcKey,
    /// The point, not compressed.
    public: Vec<u8>,
}

impl AuthorityKey {
    fn new(secret: &Secret) -> Self {
        let mut scalar = secret.derive(KEY_CONTEXT);
        let key = loop {
            match EcKey::from_slice(&scalar) {
                Ok(key) => break key,
                // Zero or above the order of the curve: once in 2³² secrets.
                Err(_) => scalar = blake3::derive_key(KEY_CONTEXT, &scalar),
            }
        };
        let public = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
        Self { key, public }
    }
}

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: DerSignature =
            self.key.try_sign(message).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.as_bytes().to_vec())
    }
}

/// The authority that a secret stands for.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, AuthorityKey>,
    pub(super) certificate: rcgen::Certificate,
    /// BLAKE3 of the public key (`SubjectPublicKeyInfo`).
    pub(super) hash: [u8; 32],
}

impl Authority {
    pub(super) fn new(secret: &Secret) -> Result<Self, SecurityError> {
        let key = AuthorityKey::new(secret);
        let hash = hash(&key);
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, format!("zerocache CA {}", label(&hash)));
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.serial_number = Some(SerialNumber::from(1));
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(unmade)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate, hash })
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }
}

/// Returns BLAKE3 of a public key (`SubjectPublicKeyInfo`).
pub(super) fn hash(key: &impl PublicKeyData) -> [u8; 32] {
    *blake3::hash(&key.subject_public_key_info()).as_bytes()
}

/// Returns the label that stands for an authority in names.
pub(super) fn label(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex()[..LABEL_DIGITS].to_owned()
}

/// Returns the name by which a node is asked for a certificate of an authority.
pub(super) fn node_name_of(hash: &[u8; 32]) -> String {
    format!("{}.{NODE_NAME}", label(hash))
}

pub(super) fn unmade(error: rcgen::Error) -> SecurityError {
    SecurityError::Unmade(error.to_string())
}

/// Returns the certificate of the authority that `secret` stands for, in PEM form.
///
/// It is the same in every process. Programs that are no part of the cluster verify its nodes by it.
///
/// # Errors
/// [`SecurityError::Unmade`].
pub fn authority_pem(secret: &Secret) -> Result<String, SecurityError> {
    Ok(Authority::new(secret)?.certificate.pem())
}

/// Returns BLAKE3 of the public key (`SubjectPublicKeyInfo`) of the authority that `secret` stands for: what
/// a token contains.
#[must_use]
pub fn authority_hash(secret: &Secret) -> [u8; 32] {
    hash(&AuthorityKey::new(secret))
}
