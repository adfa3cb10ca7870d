//! Handshakes between processes, each with its own credentials, over loopback.

mod certificates;
mod handshakes;
mod reload;
mod secrets;

use std::{io, path::Path, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use zerocache_core::access::{Role, Secret, TokenFields, TokenId};

use super::{ConnectError, WallClock, connect};
use crate::{
    security::{
        PeerCertificate, ProcessKind, Security, SecurityConfig, SecurityError, Source, TlsMode,
        authority_hash,
    },
    transport::Stream,
};

fn secret(number: u8) -> Secret {
    Secret::from_random([number; 32])
}

fn value(number: u8) -> Option<Source> {
    Some(Source::Value(secret(number).to_text()))
}

fn node_kind() -> ProcessKind {
    ProcessKind::Node { region: "oslo".into() }
}

/// A node that has a secret.
fn node(number: u8) -> Security {
    load(SecurityConfig { secret: value(number), kind: node_kind(), ..SecurityConfig::default() })
}

/// A client that has a token of a secret, and nothing else.
fn token_client(number: u8) -> Security {
    let token = token(number);
    load(SecurityConfig { token: Some(Source::Value(token)), ..SecurityConfig::default() })
}

fn token(number: u8) -> String {
    let fields = TokenFields {
        id: TokenId([1; 8]),
        name: "shop".into(),
        role: Role::Read,
        prefixes: Vec::new(),
        not_after_s: 1,
        cluster: "c".into(),
        ca: authority_hash(&secret(number)),
    };
    fields.sign(&secret(number).token_key()).expect("a token")
}

fn load(config: SecurityConfig) -> Security {
    Security::load(config).expect("credentials")
}

fn load_error(config: SecurityConfig) -> String {
    let error = Security::load(config).expect_err("an error");
    assert!(!matches!(error, SecurityError::Unmade(_)), "{error}");
    error.to_string()
}

/// The credentials of a node with these secrets in a file, and of the file.
fn node_with_file(path: &Path, numbers: &[u8]) -> Security {
    write_secrets(path, numbers);
    load(SecurityConfig {
        secret: Some(Source::File(path.to_owned())),
        kind: node_kind(),
        ..SecurityConfig::default()
    })
}

fn write_secrets(path: &Path, numbers: &[u8]) {
    let lines: String = numbers.iter().map(|n| format!("{}\n", secret(*n).to_text())).collect();
    std::fs::write(path, lines).expect("a file");
}

/// What came of a handshake: what the node and what the caller saw.
struct Meeting {
    /// The certificate of the caller.
    accepted: io::Result<Option<PeerCertificate>>,
    /// The certificates that the node sent, or the reason for a failure.
    connected: Result<Vec<Vec<u8>>, String>,
}

impl Meeting {
    fn is_mutual(&self) -> bool {
        self.connected.is_ok() && matches!(self.accepted, Ok(Some(_)))
    }

    fn is_refused(&self) -> bool {
        self.connected.is_err() && self.accepted.is_err()
    }

    fn caller(self) -> PeerCertificate {
        self.accepted.expect("a handshake").expect("a certificate")
    }
}

/// Lets `caller` connect to `node`, and send and receive a byte.
async fn meet(caller: &Security, node: &Security) -> Meeting {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    let acceptor = node.acceptor().expect("an acceptor");
    let accepting = async {
        let (tcp, _) = listener.accept().await?;
        let (mut stream, certificate) = acceptor.accept(tcp).await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
        stream.flush().await?;
        // The caller ends the connection.
        let _ = stream.read(&mut byte).await;
        Ok(certificate)
    };
    let connecting = async {
        let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let state = caller.state();
        let mut stream = match connect(tcp, state.tls().expect("TLS")).await {
            Ok(stream) => stream,
            Err(error) => return Err(format!("{error:?}")),
        };
        let said = async {
            stream.write_all(b"x").await?;
            stream.flush().await?;
            stream.read_exact(&mut [0]).await
        };
        said.await.map_err(|error: io::Error| {
            let known = ConnectError::of(&error);
            format!("{error:?}, {known:?}")
        })?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok(chain.iter().map(|der| der.to_vec()).collect())
    };
    let (accepted, connected) = tokio::join!(accepting, connecting);
    Meeting { accepted, connected }
}
