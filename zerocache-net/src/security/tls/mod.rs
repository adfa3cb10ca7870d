//! TLS: configurations for both directions, made of the credentials of the process.
//!
//! Only TLS 1.3, with a provider that is passed explicitly, and without early data, which could be replayed.

mod accept;
mod authority;
mod connect;
mod issue;
mod leaf;
mod peer;
mod pem;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::KeyPair;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SigningKey},
    time_provider::TimeProvider,
};

use self::{
    authority::Authority,
    leaf::since_epoch,
    verify::{Chain, Chains, NodeVerifier, Trust, server_verifier},
};
use super::{
    PeerCertificate, SecurityConfig, SecurityError,
    inputs::{ClientToken, Inputs},
    peer::identity,
};
use crate::clock;

pub(crate) use self::connect::{ConnectError, connect};
pub use self::{
    accept::{ClientHello, TlsAcceptor},
    authority::{authority_hash, authority_pem},
    issue::{Issued, Subject, hash_of_authority_pem, issue_certificate, new_authority},
};

/// The name of every node: it is verified, whatever the address is.
pub(super) const NODE_NAME: &str = "node.zerocache.internal";

/// The name of a client in a certificate that it makes from the secret.
pub(super) const CLIENT_NAME: &str = "client.zerocache.internal";

/// The key of this process, for certificates that it makes for itself. It is made once in its life.
pub(super) struct ProcessKey {
    pair: KeyPair,
    signing: Arc<dyn SigningKey>,
}

impl ProcessKey {
    pub(super) fn generate() -> Result<Self, SecurityError> {
        let pair = KeyPair::generate().map_err(authority::unmade)?;
        let der = PrivateKeyDer::Pkcs8(pair.serialize_der().into());
        let signing = ring::sign::any_ecdsa_type(&der)
            .map_err(|error| SecurityError::Unmade(error.to_string()))?;
        Ok(Self { pair, signing })
    }

    /// BLAKE3 of the public key (`SubjectPublicKeyInfo`).
    pub(super) fn hash(&self) -> [u8; 32] {
        authority::hash(&self.pair)
    }
}

/// The wall clock, for the dates of certificates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WallClock {
    /// How far it is ahead, in seconds; for tests.
    pub(super) ahead_s: i64,
}

impl WallClock {
    pub(super) fn now(self) -> SystemTime {
        let now = clock::system_wall();
        let difference = Duration::from_secs(self.ahead_s.unsigned_abs());
        if self.ahead_s < 0 { now - difference } else { now + difference }
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(since_epoch(self.now())))
    }
}

/// Returns when a certificate ceases to be valid.
pub(crate) fn certificate_end(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    peer::validity(certificate).ok().map(|(_, until)| until)
}

/// The configurations of one generation of credentials. Tickets of resumption end with them.
pub(crate) struct Tls {
    /// For callers; a client has none.
    server: Option<Arc<ServerConfig>>,
    client: Arc<ClientConfig>,
    /// The name that is sent to a node.
    server_name: ServerName<'static>,
    /// Judges the certificates of callers.
    callers: Option<Arc<dyn ClientCertVerifier>>,
    /// Whether the CAs are those of secrets.
    is_of_secret: bool,
    clock: WallClock,
    /// The validity of the own certificate.
    own: Option<(SystemTime, SystemTime)>,
    /// When the own certificates were made.
    made: SystemTime,
}

impl Tls {
    pub(super) fn new(
        config: &SecurityConfig,
        inputs: &Inputs,
        key: &ProcessKey,
        clock: WallClock,
    ) -> Result<Self, SecurityError> {
        let provider = Arc::new(provider());
        let now = clock.now();
        let credentials = match &inputs.files {
            Some(_) => Credentials::of_files(config, inputs, &provider, now)?,
            None if !inputs.secrets.is_empty() => {
                Credentials::of_secrets(config, inputs, key, &provider, now)?
            }
            None => Credentials::of_token(inputs)?,
        };
        let Credentials { chains, trust, roots, sent_name, verified_name, is_of_secret } =
            credentials;
        let chains = Arc::new(chains);
        let own = chains.0.first().and_then(|chain| peer::validity(chain.key.cert.first()?).ok());
        let sent_name = config.server_name.clone().unwrap_or(sent_name);
        let callers = roots.map(|roots| caller_verifier(roots, &provider)).transpose()?;
        if config.kind.is_node()
            && let (Some(files), Some(callers)) = (&inputs.files, &callers)
            && let Some(own) = chains.0.first()
        {
            pem::check_own(files, &own.key, &**callers, now)?;
        }
        let server = config.kind.is_node().then_some(callers.as_ref()).flatten();
        let server = server.map(|callers| {
            let callers = Arc::clone(callers);
            server_config(&provider, clock, callers, Arc::clone(&chains))
        });
        let verifier = NodeVerifier { trust, name: name(&verified_name)?, provider };
        Ok(Self {
            server: server.transpose()?,
            client: client_config(clock, verifier, chains)?,
            server_name: name(&sent_name)?,
            callers,
            is_of_secret,
            clock,
            own,
            made: now,
        })
    }

    /// Whether the certificate that this process made for itself is to be made again: daily, and after the
    /// clock was set.
    pub(super) fn must_renew(&self) -> bool {
        let now = self.clock.now();
        let age = now.duration_since(self.made).unwrap_or_else(|error| error.duration());
        self.is_of_secret && age >= leaf::DAY
    }

    /// The end of the own certificate, in text, if it is from a file and should have been replaced by now: less
    /// than a quarter of its time is left, and less than a week.
    pub(super) fn expires_soon(&self) -> Option<String> {
        let (from, until) = self.own.filter(|_| !self.is_of_secret)?;
        let quarter = until.duration_since(from).unwrap_or_default() / 4;
        let left = until.duration_since(self.clock.now()).unwrap_or_default();
        (left < quarter.min(7 * leaf::DAY)).then(|| pem::time_text(until))
    }

    /// The end of the own certificate, and whether this process made it and renews it.
    pub(super) fn own_end(&self) -> Option<(SystemTime, bool)> {
        self.own.map(|(_, until)| (until, self.is_of_secret))
    }

    /// Whether the incarnation of a node is a hash of its public key: where CAs are those of secrets.
    pub(crate) fn makes_incarnations_of_keys(&self) -> bool {
        self.is_of_secret || self.callers.is_none()
    }

    /// Returns the incarnation that the public key of a certificate stands for.
    pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Option<u64> {
        peer::public_key_hash(certificate).ok().map(|hash| identity(&hash))
    }

    /// Whether the accepted CAs of now accept a certificate, and it is valid now.
    pub(super) fn trusts(&self, certificate: &PeerCertificate) -> bool {
        let chain: Vec<_> = certificate.chain.iter().map(|der| der.as_slice().into()).collect();
        let ([leaf, between @ ..], Some(callers)) = (chain.as_slice(), &self.callers) else {
            return false;
        };
        let now = UnixTime::since_unix_epoch(since_epoch(self.clock.now()));
        callers.verify_client_cert(leaf, between, now).is_ok()
    }
}

/// The means by which a process proves itself and verifies others.
struct Credentials {
    chains: Chains,
    trust: Trust,
    /// The CAs whose certificates callers may have.
    roots: Option<Arc<RootCertStore>>,
    /// The name that is sent to a node.
    sent_name: String,
    /// The name that the certificate of a node must have.
    verified_name: String,
    is_of_secret: bool,
}

impl Credentials {
    fn of_secrets(
        config: &SecurityConfig,
        inputs: &Inputs,
        key: &ProcessKey,
        provider: &Arc<CryptoProvider>,
        now: SystemTime,
    ) -> Result<Self, SecurityError> {
        let mut roots = RootCertStore::empty();
        let (mut chains, mut sent_name) = (Vec::new(), None);
        for secret in &inputs.secrets {
            let authority = Authority::new(secret)?;
            sent_name.get_or_insert_with(|| authority::node_name_of(&authority.hash));
            let leaf = leaf::leaf(config, &authority, &key.pair, now)?;
            let issuer = peer::issuer(&leaf).map_err(SecurityError::Unmade)?;
            roots.add(authority.der()).map_err(|error| SecurityError::Unmade(error.to_string()))?;
            // Whoever has only a token finds the CA in the chain, and knows it by its hash.
            let certified =
                CertifiedKey::new(vec![leaf, authority.der()], Arc::clone(&key.signing));
            let label = authority::label(&authority.hash);
            chains.push(Chain { label, issuer, key: Arc::new(certified) });
        }
        let roots = Arc::new(roots);
        Ok(Self {
            chains: Chains(chains),
            trust: trust(&roots, provider)?,
            roots: Some(roots),
            sent_name: sent_name.unwrap_or_else(|| NODE_NAME.to_owned()),
            verified_name: NODE_NAME.to_owned(),
            is_of_secret: true,
        })
    }

    fn of_files(
        config: &SecurityConfig,
        inputs: &Inputs,
        provider: &Arc<CryptoProvider>,
        now: SystemTime,
    ) -> Result<Self, SecurityError> {
        let files = inputs.files.clone().unwrap_or_default();
        let Some(ca) = &files.ca else {
            return Err(SecurityError::MissingFiles("the file with the accepted CAs is missing"));
        };
        let own = pem::certified_key(&files, provider, now)?;
        if own.is_none() && config.kind.is_node() {
            let missing = "a node needs a certificate and its key beside the accepted CAs";
            return Err(SecurityError::MissingFiles(missing));
        }
        let roots = pem::roots(ca)?;
        let chains = own.into_iter().map(|key| {
            let issuer = key.cert.last().map_or(Ok(Vec::new()), peer::issuer);
            Chain { label: String::new(), issuer: issuer.unwrap_or_default(), key }
        });
        // A node with several secrets presents the certificate of the CA that this file has.
        let first = peer::public_key_hash(&pem::certificates(ca)?[0]);
        let sent_name = first.map_or(NODE_NAME.to_owned(), |hash| authority::node_name_of(&hash));
        let verified_name = config.server_name.clone().unwrap_or_else(|| NODE_NAME.to_owned());
        Ok(Self {
            chains: Chains(chains.collect()),
            trust: trust(&roots, provider)?,
            roots: Some(roots),
            sent_name,
            verified_name,
            is_of_secret: false,
        })
    }

    fn of_token(inputs: &Inputs) -> Result<Self, SecurityError> {
        let hash = match inputs.token.as_ref().ok_or(SecurityError::NoCredentials)? {
            ClientToken::Signed(token) => token.fields().ca,
            ClientToken::Static(_) => return Err(SecurityError::TokenWithoutCa),
        };
        Ok(Self {
            chains: Chains(Vec::new()),
            trust: Trust::Pinned(hash),
            roots: None,
            sent_name: authority::node_name_of(&hash),
            verified_name: NODE_NAME.to_owned(),
            is_of_secret: false,
        })
    }
}

/// The provider of cryptography: ring, with AES-128 first, which takes a quarter less time than AES-256.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let first = rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != first);
    provider
}

fn trust(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Trust, SecurityError> {
    let verifier = server_verifier(Arc::clone(roots), provider);
    Ok(Trust::Roots(verifier.ok_or(SecurityError::NoCredentials)?))
}

/// Callers may have a certificate of one of the CAs, whose names are sent as a hint: browsers would offer
/// their users every certificate that they have. Callers without one present a token, or nothing.
fn caller_verifier(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, SecurityError> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    let verifier = builder.allow_unauthenticated().build();
    verifier.map_err(|error| SecurityError::Unmade(error.to_string()))
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    clock: WallClock,
    callers: Arc<dyn ClientCertVerifier>,
    chains: Arc<Chains>,
) -> Result<Arc<ServerConfig>, SecurityError> {
    let builder = ServerConfig::builder_with_details(Arc::clone(provider), Arc::new(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| SecurityError::Unmade(error.to_string()))?;
    let mut config = builder.with_client_cert_verifier(callers).with_cert_resolver(chains);
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

fn client_config(
    clock: WallClock,
    verifier: NodeVerifier,
    chains: Arc<Chains>,
) -> Result<Arc<ClientConfig>, SecurityError> {
    let provider = Arc::clone(&verifier.provider);
    let builder = ClientConfig::builder_with_details(provider, Arc::new(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| SecurityError::Unmade(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = if chains.0.is_empty() {
        builder.with_no_client_auth()
    } else {
        builder.with_client_cert_resolver(chains)
    };
    // All nodes have one name, so that a ticket would be offered to the wrong one.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn name(text: &str) -> Result<ServerName<'static>, SecurityError> {
    let name = ServerName::try_from(text.to_owned());
    name.map_err(|_| SecurityError::InvalidName(text.to_owned()))
}
