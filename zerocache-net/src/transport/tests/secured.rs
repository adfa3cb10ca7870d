//! Connections of processes with credentials, to nodes that demand them, deny them, or know nothing of TLS.

use std::sync::Mutex;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use zerocache_core::{
    access::{Role, Secret, StaticToken, TokenFields, TokenId},
    wire::RefusalCode,
};

use super::*;
use crate::{
    security::{ProcessKind, Security, SecurityConfig, Source, TlsMode, authority_hash},
    transport::{Connections, MESSAGES_TYPE, Stream},
};

/// The first byte of a handshake of TLS.
const TLS: u8 = 0x16;

fn secret(number: u8) -> Source {
    Source::Value(Secret::from_random([number; 32]).to_text())
}

fn token(number: u8) -> Source {
    let secret = Secret::from_random([number; 32]);
    let fields = TokenFields {
        id: TokenId([1; 8]),
        name: "shop".into(),
        role: Role::Read,
        prefixes: Vec::new(),
        not_after_s: 1,
        cluster: "c".into(),
        ca: authority_hash(&secret),
    };
    Source::Value(fields.sign(&secret.token_key()).unwrap())
}

fn load(config: SecurityConfig) -> Security {
    Security::load(config).unwrap()
}

fn client(tls: Option<TlsMode>, token: Option<Source>) -> Security {
    load(SecurityConfig { token, tls, ..SecurityConfig::default() })
}

/// A node of the secret 1.
fn node_security() -> Security {
    let kind = ProcessKind::Node { region: "a".into() };
    load(SecurityConfig { secret: Some(secret(1)), kind, ..SecurityConfig::default() })
}

/// How a node answers.
#[derive(Clone, Copy)]
enum Answers {
    /// As a node does.
    Frames,
    /// As a node does, and with the incarnation of another one.
    FramesOfAnother,
    /// To each message in a body.
    Bodies,
    /// With this status and body.
    Error(&'static str, &'static str),
}

/// A node, and what it has seen.
struct TestNode {
    address: SocketAddr,
    /// The heads of requests, each with whether it came over TLS.
    heads: Arc<Mutex<Vec<(bool, String)>>>,
    /// The connections, also those that failed.
    connections: Arc<Mutex<usize>>,
}

impl TestNode {
    /// Starts a node that takes plain connections, and TLS if it has credentials.
    async fn start(security: Option<Security>, answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, connections) = (Arc::default(), Arc::default());
        let node = Self { address, heads, connections };
        let (heads, connections) = (Arc::clone(&node.heads), Arc::clone(&node.connections));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                *connections.lock().unwrap() += 1;
                let (security, heads) = (security.clone(), Arc::clone(&heads));
                tokio::spawn(async move { serve(tcp, security, address, answers, &heads).await });
            }
        });
        node
    }

    fn heads(&self) -> Vec<(bool, String)> {
        self.heads.lock().unwrap().clone()
    }

    fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn serve(
    tcp: TcpStream,
    security: Option<Security>,
    address: SocketAddr,
    answers: Answers,
    heads: &Mutex<Vec<(bool, String)>>,
) -> io::Result<()> {
    let mut first = [0];
    tcp.peek(&mut first).await?;
    let is_tls = first[0] == TLS && security.is_some();
    let acceptor = security.as_ref().and_then(Security::acceptor);
    let mut stream = match acceptor.filter(|_| is_tls) {
        Some(acceptor) => acceptor.accept(tcp).await?.0,
        None => Stream::from(tcp),
    };
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            // What is no HTTP is refused by its first line.
            if first[0] == TLS && !is_tls {
                return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        heads.lock().unwrap().push((is_tls, head.clone()));
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        stream.read_exact(&mut vec![0; length.parse().unwrap()]).await?;
        match answers {
            Answers::Frames => {
                let identity = security.as_ref().and_then(Security::identity);
                let mut hello = said(Some(address));
                if let (Some(identity), Some(node)) = (identity, &mut hello.node) {
                    node.incarnation = Incarnation(identity);
                }
                return frames(stream, hello).await;
            }
            Answers::FramesOfAnother => return frames(stream, said(Some(address))).await,
            Answers::Bodies => {
                let body = ANSWER.encode();
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: {MESSAGES_TYPE}\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(&body).await?;
            }
            Answers::Error(status, body) => {
                let length = body.len();
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await?;
            }
        }
        stream.flush().await?;
    }
}

/// Upgrades a connection, and answers every request on it.
async fn frames(mut stream: Stream, hello: Hello) -> io::Result<()> {
    let upgrade = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {UPGRADE_TOKEN}\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await?;
    let response = |id, response: &Response| {
        let frames = in_frames(Opcode::Response, id, &response.encode(), 60_000, 0);
        frames.into_iter().flatten().collect::<Vec<_>>()
    };
    stream.write_all(&response(HANDSHAKE_ID, &Response::Hello(Box::new(hello)))).await?;
    stream.flush().await?;
    let mut reader = FrameReader::new(1 << 20, Arc::new(UnlimitedMemory));
    while stream.read_buf(reader.buffer()).await? > 0 {
        while let Ok(Some((header, _, incoming))) = reader.next(Instant::default()) {
            if matches!(incoming, Incoming::Small(_)) {
                stream.write_all(&response(header.id, &ANSWER)).await?;
            }
        }
        stream.flush().await?;
    }
    Ok(())
}

fn transport(security: Security) -> FramedTransport {
    let make_hello = Arc::new(|| message(Request::Hello(Box::new(said(None)))));
    FramedTransport::new(make_hello, LONG, tokio::runtime::Handle::current())
        .with_security(security)
}

fn bearer(head: &str) -> Option<&str> {
    head.lines().find_map(|line| line.strip_prefix("authorization: "))
}

#[tokio::test]
async fn token_is_sent_to_a_verified_node_only() {
    let node = TestNode::start(Some(node_security()), Answers::Frames).await;
    let calls = transport(client(None, Some(token(1))));
    for _ in 0..2 {
        assert_eq!(calls.call(node.address, get(), LONG).await, Ok(ANSWER));
    }
    let heads = node.heads();
    assert_eq!((heads.len(), heads[0].0), (1, true));
    let Source::Value(text) = token(1) else { panic!("no value") };
    assert_eq!(bearer(&heads[0].1), Some(&*format!("Bearer {text}")));

    // A token of another cluster is not shown to this node.
    let strange = transport(client(None, Some(token(2))));
    let result = strange.call(node.address, get(), LONG).await;
    assert_eq!(result, Err(CallFailure::Unverified));
    // Nor to one that speaks no TLS, whether TLS is required or optional.
    for (tls, result) in
        [(TlsMode::Required, Err(CallFailure::Unverified)), (TlsMode::Optional, Ok(ANSWER))]
    {
        let plain = TestNode::start(None, Answers::Frames).await;
        let calls = transport(client(Some(tls), Some(token(1))));
        assert_eq!(calls.call(plain.address, get(), LONG).await, result);
        assert!(plain.heads().iter().all(|(_, head)| bearer(head).is_none()), "{tls}");
    }
    // Unless TLS is off in so many words.
    let plain = TestNode::start(None, Answers::Frames).await;
    let calls = transport(client(Some(TlsMode::Off), Some(token(1))));
    assert_eq!(calls.call(plain.address, get(), LONG).await, Ok(ANSWER));
    assert!(bearer(&plain.heads()[0].1).is_some());
    assert_eq!(node.heads().len(), 1);
}

#[tokio::test]
async fn optional_tls_falls_back_only_after_an_answer_without_tls() {
    let optional = |number| {
        load(SecurityConfig {
            secret: Some(secret(number)),
            tls: Some(TlsMode::Optional),
            ..SecurityConfig::default()
        })
    };
    let plain = TestNode::start(None, Answers::Frames).await;
    assert_eq!(transport(optional(1)).call(plain.address, get(), LONG).await, Ok(ANSWER));
    assert_eq!(plain.connections(), 2);
    let encrypted = TestNode::start(Some(node_security()), Answers::Frames).await;
    assert_eq!(transport(optional(1)).call(encrypted.address, get(), LONG).await, Ok(ANSWER));
    assert!(encrypted.heads().iter().all(|(is_tls, _)| *is_tls));
    // A node of another secret is not one without TLS.
    let result = transport(optional(2)).call(encrypted.address, get(), LONG).await;
    assert_eq!(result, Err(CallFailure::Unverified));
    // Silence is not an answer.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let silent = async {
        let (tcp, _) = listener.accept().await.unwrap();
        drop(tcp);
        listener.accept().await
    };
    let calls = transport(optional(1));
    tokio::select! {
        _ = silent => panic!("a second connection"),
        result = calls.call(address, get(), LONG) => assert_eq!(result, Err(CallFailure::NotSent)),
    }
}

#[tokio::test]
async fn node_that_does_not_accept_a_certificate_is_unverified() {
    let node = TestNode::start(Some(node_security()), Answers::Frames).await;
    // It trusts the node by its CA file, and has a certificate that this node does not know.
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let ca = crate::security::new_authority("other", LONG).unwrap();
    let subject =
        crate::security::Subject::Client { names: Vec::new(), uris: vec!["spiffe://a/b".into()] };
    let own = crate::security::issue_certificate(&ca.certificate_pem, &ca.key_pem, &subject, LONG);
    let own = own.unwrap();
    let trusted = crate::security::authority_pem(&Secret::from_random([1; 32])).unwrap();
    std::fs::write(path("cert"), own.certificate_pem).unwrap();
    std::fs::write(path("key"), own.key_pem).unwrap();
    std::fs::write(path("ca"), trusted).unwrap();
    let files = crate::security::TlsFiles {
        cert: Some(path("cert")),
        key: Some(path("key")),
        ca: Some(path("ca")),
    };
    let config = SecurityConfig { files: Some(files), ..SecurityConfig::default() };
    for connections in [Connections::Framed, Connections::Http] {
        let calls = transport(load(config.clone())).with_connections(connections);
        let result = calls.call(node.address, get(), LONG).await;
        assert_eq!(result, Err(CallFailure::Unverified), "{connections:?}");
    }
    assert!(node.heads().is_empty());
}

#[tokio::test]
async fn node_is_the_one_that_its_key_says() {
    let node = TestNode::start(Some(node_security()), Answers::FramesOfAnother).await;
    for security in [client(None, Some(token(1))), node_security()] {
        let result = transport(security).call(node.address, get(), LONG).await;
        assert_eq!(result, Err(CallFailure::Unverified));
    }
}

#[tokio::test]
async fn denials_become_refusals() {
    let long: &'static str = Box::leak(
        format!("{{\"code\":\"forbidden\",\"message\":\"{}\"}}", "x".repeat(3_000))
            .into_boxed_str(),
    );
    let cases = [
        (
            "401 Unauthorized",
            r#"{"code":"unauthenticated","message":"a \"token\""}"#,
            RefusalCode::Unauthenticated,
        ),
        (
            "401 Unauthorized",
            r#"{"code":"bad_credentials","message":"m"}"#,
            RefusalCode::BadCredentials,
        ),
        ("401 Unauthorized", r#"{"code":"expired_credentials"}"#, RefusalCode::ExpiredCredentials),
        ("403 Forbidden", long, RefusalCode::Forbidden),
        ("403 Forbidden", r#"{"code":"protected","message":"m"}"#, RefusalCode::Protected),
        (
            "400 Bad Request",
            r#"{"code":"tls_required","message":"m"}"#,
            RefusalCode::Unauthenticated,
        ),
    ];
    for (status, body, code) in cases {
        let node = TestNode::start(None, Answers::Error(status, body)).await;
        for connections in [Connections::Framed, Connections::Http] {
            let calls = transport(Security::plain()).with_connections(connections);
            let result = calls.call(node.address, get(), LONG).await;
            let Ok(Response::Refused(refusal)) = result else { panic!("{result:?}") };
            assert_eq!(refusal.code, code);
            assert!((1..=512).contains(&refusal.text.len()), "{}", refusal.text);
        }
    }
    // What a proxy says is no denial of the node.
    let node = TestNode::start(None, Answers::Error("403 Forbidden", "<html>")).await;
    let calls = transport(Security::plain()).with_connections(Connections::Http);
    let result = calls.call(node.address, get(), LONG).await;
    let Ok(Response::Refused(refusal)) = result else { panic!("{result:?}") };
    assert_eq!(refusal.code, RefusalCode::BadMessage);
}

#[tokio::test]
async fn requests_over_http_are_encrypted_and_present_the_token() {
    let node = TestNode::start(Some(node_security()), Answers::Bodies).await;
    let calls = transport(client(None, Some(token(1)))).with_connections(Connections::Http);
    for _ in 0..2 {
        assert_eq!(calls.call(node.address, get(), LONG).await, Ok(ANSWER));
    }
    assert_eq!(node.connections(), 1);
    let heads = node.heads();
    assert!(
        heads.len() == 2 && heads.iter().all(|(is_tls, head)| *is_tls && bearer(head).is_some())
    );
    let calls = transport(client(None, Some(token(2)))).with_connections(Connections::Http);
    let result = calls.call(node.address, get(), LONG).await;
    assert_eq!(result, Err(CallFailure::Unverified));
}

#[tokio::test]
async fn changed_credentials_are_used_by_new_connections() {
    for connections in [Connections::Framed, Connections::Http] {
        let answers = match connections {
            Connections::Framed => Answers::Frames,
            Connections::Http => Answers::Bodies,
        };
        let node = TestNode::start(None, answers).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let tokens: Vec<_> =
            [1, 2].map(|n| StaticToken::from_random([n; 32]).as_text().to_owned()).into();
        std::fs::write(&path, &tokens[0]).unwrap();
        let security = client(Some(TlsMode::Off), Some(Source::File(path.clone())));
        let calls = transport(security.clone()).with_connections(connections);
        assert_eq!(calls.call(node.address, get(), LONG).await, Ok(ANSWER));
        std::fs::write(&path, &tokens[1]).unwrap();
        assert!(matches!(security.reload(), Ok(true)));
        // The pool learns of it in a task of its own.
        while node.heads().last().and_then(|(_, head)| bearer(head).map(str::to_owned))
            != Some(format!("Bearer {}", tokens[1]))
        {
            assert_eq!(calls.call(node.address, get(), LONG).await, Ok(ANSWER));
        }
        assert_eq!(node.connections(), 2);
    }
}
