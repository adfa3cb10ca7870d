//! The side of a caller: verifies a node and proves itself to it.

use std::{error::Error, io};

use rustls::{AlertDescription, CertificateError, InvalidMessage};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::Tls;

/// The reason why a TLS connection could not be established.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The answer was no TLS.
    NotTls,
    /// The node is not trusted, or does not trust this process.
    Unverified(String),
    /// The connection broke.
    Broken(io::Error),
}

/// Shakes hands with a node over `tcp`. Nothing is sent beyond the handshake before the node is verified.
///
/// # Errors
/// [`ConnectError`]. That a node does not accept the certificate of this process shows only in what is read
/// later: see [`ConnectError::of`].
pub(crate) async fn connect(
    tcp: TcpStream,
    tls: &Tls,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let connector = TlsConnector::from(tls.client.clone());
    let connected = connector.connect(tls.server_name.clone(), tcp).await;
    connected.map(TlsStream::from).map_err(|error| match ConnectError::of(&error) {
        Some(known) => known,
        None => ConnectError::Broken(error),
    })
}

impl ConnectError {
    /// Returns the reason that TLS has for an error, if it has one.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let tls = error
                .downcast_ref::<rustls::Error>()
                .or_else(|| inner.and_then(|inner| inner.downcast_ref()));
            if let Some(tls) = tls {
                return Self::of_tls(tls);
            }
            next = error.source();
        }
        None
    }

    fn of_tls(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Some(Self::NotTls),
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::AlertReceived(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::PeerIncompatible(_) => Some(Self::Unverified(reason(error))),
            _ => None,
        }
    }
}

/// Returns what an error means, for people, with its own words.
fn reason(error: &rustls::Error) -> String {
    use AlertDescription as Alert;
    use CertificateError as Invalid;
    let meaning = match error {
        rustls::Error::InvalidCertificate(Invalid::UnknownIssuer | Invalid::BadSignature) => {
            "its certificate is of another secret or CA"
        }
        rustls::Error::InvalidCertificate(
            Invalid::Expired
            | Invalid::ExpiredContext { .. }
            | Invalid::NotValidYet
            | Invalid::NotValidYetContext { .. },
        ) => "its certificate has expired or is not valid yet, or a clock is wrong",
        rustls::Error::InvalidCertificate(
            Invalid::NotValidForName | Invalid::NotValidForNameContext { .. },
        ) => "its certificate is not that of a node",
        rustls::Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate
            | Alert::DecryptError
            | Alert::AccessDenied,
        ) => "it does not accept the certificate of this process",
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}
