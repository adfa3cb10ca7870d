//! From a URL to a connection, by way of addresses that are allowed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};

use super::failed;
use crate::failure::Failure;
use crate::source::SourceRules;

/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;

/// A connection.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The side of TLS, with the certificate authorities of the system and others, in PEM.
pub(super) fn tls(authorities: &[u8]) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for authority in CertificateDer::pem_slice_iter(authorities) {
        roots.add(authority.context("an authority is not in PEM")?)?;
    }
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 && roots.is_empty() {
        tracing::warn!(
            "no certificate authority was found: originals over HTTPS cannot be fetched"
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// Returns the addresses of a URL's host, allowed or not.
pub(super) async fn resolve(
    url: &Url,
    names: &HashMap<String, Vec<IpAddr>>,
) -> Result<Vec<SocketAddr>, Failure> {
    let port = url.port_or_known_default().ok_or(Failure::SourceRefused)?;
    let with_port = |address: IpAddr| SocketAddr::new(address, port);
    match url.host().ok_or(Failure::SourceRefused)? {
        Host::Ipv4(v4) => Ok(vec![with_port(v4.into())]),
        Host::Ipv6(v6) => Ok(vec![with_port(v6.into())]),
        Host::Domain(name) => match names.get(name) {
            Some(addresses) => Ok(addresses.iter().copied().map(with_port).collect()),
            None => {
                let found = lookup_host((name, port)).await.map_err(|error| failed(&error))?;
                Ok(found.collect())
            }
        },
    }
}

/// Connects to the first address that is allowed and answers.
pub(super) async fn connect(
    addresses: &[SocketAddr],
    rules: &SourceRules,
) -> Result<TcpStream, Failure> {
    let allowed = addresses.iter().filter(|address| rules.allows(address.ip()));
    let mut failure = Failure::AddressRefused;
    for address in allowed.take(ADDRESSES_MAX) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = failed(&error),
        }
    }
    Err(failure)
}

/// Encrypts a connection, if the URL asks for it.
pub(super) async fn secure(
    stream: TcpStream,
    url: &Url,
    tls: &TlsConnector,
) -> Result<Stream, Failure> {
    if url.scheme() != "https" {
        return Ok(Stream::Plain(stream));
    }
    let name = match url.host().ok_or(Failure::SourceRefused)? {
        Host::Domain(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
            .map_err(|error| failed(&error))?,
        Host::Ipv4(v4) => ServerName::from(IpAddr::from(v4)),
        Host::Ipv6(v6) => ServerName::from(IpAddr::from(v6)),
    };
    let stream = tls.connect(name, stream).await.map_err(|error| failed(&error))?;
    Ok(Stream::Tls(Box::new(stream)))
}
