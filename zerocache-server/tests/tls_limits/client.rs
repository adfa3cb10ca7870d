//! A caller that speaks TLS, and the credentials of the node.

use std::io;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zerocache_core::access::Secret;
use zerocache_net::security::{
    Issued, ProcessKind, Security, SecurityConfig, Source, TlsMode, authority_pem,
};

/// The name of every node of a secret.
const NODE_NAME: &str = "node.zerocache.internal";

fn secret() -> Secret {
    Secret::from_random([7; 32])
}

/// The credentials of a node.
pub(crate) fn security(mode: TlsMode) -> Security {
    let config = SecurityConfig {
        secret: Some(Source::Value(secret().to_text())),
        tls: Some(mode),
        kind: ProcessKind::Node { region: "london".to_owned() },
        ..SecurityConfig::default()
    };
    Security::load(config).expect("credentials")
}

fn authority() -> String {
    authority_pem(&secret()).expect("a certificate")
}

fn config(ca_pem: &str, own: Option<&Issued>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("TLS 1.3");
    let builder = builder.with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_slice_iter(own.certificate_pem.as_bytes());
            let chain = chain.collect::<Result<_, _>>().expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a certificate")
        }
    })
}

fn name() -> ServerName<'static> {
    ServerName::try_from(NODE_NAME).expect("a name")
}

/// Shakes hands as a caller without a certificate.
pub(crate) async fn connect(tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    connect_with(tcp, &authority(), None).await
}

/// Shakes hands with a node of another CA, as a caller with or without a certificate of its own.
pub(crate) async fn connect_with(
    tcp: TcpStream,
    ca_pem: &str,
    own: Option<&Issued>,
) -> io::Result<TlsStream<TcpStream>> {
    TlsConnector::from(config(ca_pem, own)).connect(name(), tcp).await
}

/// The first message of a caller, in its record.
pub(crate) fn client_hello() -> Vec<u8> {
    let config = config(&authority(), None);
    let mut connection = ClientConnection::new(config, name()).expect("a connection");
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).expect("written");
    hello
}
