//! The secret of encrypted nodes, and the token of their client.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use zerocache_core::access::{Role, SECRET_BYTES, Secret, TokenFields, TokenId};
use zerocache_net::security::{authority_hash, authority_pem};

/// The name by which nodes are verified.
const NODE_NAME: &str = "node.zerocache.internal";

/// The keys of one cluster.
pub struct Keys {
    directory: TempDir,
    secret: Secret,
    token: String,
}

impl Keys {
    pub fn new(cluster: &str) -> Result<Self> {
        let mut random = [0; SECRET_BYTES];
        getrandom::fill(&mut random)?;
        let secret = Secret::from_random(random);
        let fields = TokenFields {
            id: TokenId([0; 8]),
            name: "bench".to_owned(),
            role: Role::Write,
            prefixes: Vec::new(),
            not_after_s: u64::from(u32::MAX),
            cluster: cluster.to_owned(),
            ca: authority_hash(&secret),
        };
        let token = fields.sign(&secret.token_key()).map_err(|error| anyhow!(error))?;
        let directory = tempfile::Builder::new().prefix("zerocache-bench-").tempdir()?;
        let keys = Self { directory, secret, token };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(keys.file())?;
        writeln!(file, "{}", keys.secret.to_text())?;
        Ok(keys)
    }

    /// The file with the secret, for nodes.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("secret")
    }

    /// The token, for clients.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Opens an encrypted connection.
    pub async fn connect(&self, address: SocketAddr) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authority_pem(&self.secret)?.as_bytes()) {
            roots.add(authority?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(NODE_NAME.try_into()?, tcp).await.context("handshake")
    }
}
