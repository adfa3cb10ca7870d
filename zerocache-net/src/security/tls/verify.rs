//! Which node is trusted, and which certificate is presented to whom.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::peer;

/// Who is trusted to be a node.
#[derive(Debug)]
pub(super) enum Trust {
    /// Whoever has a certificate of one of these CAs.
    Roots(Arc<WebPkiServerVerifier>),
    /// Whoever has a certificate of the CA with this hash of its public key, which the node sends along.
    Pinned([u8; 32]),
}

/// Verifies that a server is a node. The work is done by webpki; this chooses the roots and the name.
///
/// The name that a certificate must have is not the one that is sent to choose it (SNI).
#[derive(Debug)]
pub(super) struct NodeVerifier {
    pub(super) trust: Trust,
    pub(super) name: ServerName<'static>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl NodeVerifier {
    /// Returns a verifier whose only root is the pinned CA.
    fn pinned(
        &self,
        hash: &[u8; 32],
        sent: &[CertificateDer<'_>],
    ) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let is_pinned = |certificate: &&CertificateDer<'_>| {
            peer::public_key_hash(certificate).is_ok_and(|found| found == *hash)
        };
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let authority = sent.iter().find(is_pinned).ok_or_else(|| unknown.clone())?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        server_verifier(roots.into(), &self.provider).ok_or(unknown)
    }
}

/// Returns a verifier of servers with these roots.
pub(super) fn server_verifier(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Option<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build().ok()
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned;
        let verifier = match &self.trust {
            Trust::Roots(verifier) => verifier,
            Trust::Pinned(hash) => {
                pinned = self.pinned(hash, intermediates)?;
                &pinned
            }
        };
        verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    /// Never called: only TLS 1.3 is spoken.
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A certificate of this process.
pub(super) struct Chain {
    /// The first label of the name by which it is asked for.
    pub(super) label: String,
    /// The encoded name of its CA.
    pub(super) issuer: Vec<u8>,
    pub(super) key: Arc<CertifiedKey>,
}

/// The certificates of this process, one of each CA; the first is the usual one.
pub(super) struct Chains(pub(super) Vec<Chain>);

impl Chains {
    fn choose(&self, is_wanted: impl Fn(&Chain) -> bool) -> Option<Arc<CertifiedKey>> {
        let chain = self.0.iter().find(|chain| is_wanted(chain)).or(self.0.first())?;
        Some(Arc::clone(&chain.key))
    }
}

impl fmt::Debug for Chains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|chain| &chain.label)).finish()
    }
}

impl ResolvesServerCert for Chains {
    /// Chooses the certificate of the CA that the caller pins and names.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let label = hello.server_name().and_then(|name| name.split('.').next());
        self.choose(|chain| label.is_some_and(|label| label.eq_ignore_ascii_case(&chain.label)))
    }
}

impl ResolvesClientCert for Chains {
    /// Chooses a certificate of a CA that the node accepts.
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.choose(|chain| root_hint_subjects.contains(&chain.issuer.as_slice()))
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}
