//! Callers of other hosts, over streams in memory.

use axum::Router;
use axum::extract::Request;
use axum::routing::any;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::access::{Caller, Connection};

const OWN: &str = "10.0.0.1:6789";
const OTHER_HOST: &str = "10.0.0.2:50000";

/// Serves a connection from `peer`, and returns the end of the peer.
fn connect(access: Arc<AccessControl>, peer: &str) -> (DuplexStream, Arc<Shared>) {
    let whose = |request: Request| async move {
        let caller = request.extensions().get::<Arc<Caller>>().map(|caller| caller.ip());
        caller.map_or_else(|| "nobody".to_owned(), |ip| ip.to_string())
    };
    let router = Router::new().fallback(any(whose));
    let counters = Arc::default();
    let shared = Shared::new(router.into(), access.into(), HttpLimits::default(), counters);
    let shared = Arc::new(shared);
    let (client, stream) = duplex(64 << 10);
    let address = |text: &str| text.parse().expect("an address");
    let (peer, local) = (address(peer), address(OWN));
    let connection = Connection::plain(peer, local);
    let opened = Opened { stream, connection, needs_tls: false, head_deadline: None };
    let permit = ConnectionPermit::acquire(&Arc::default(), 1, &Arc::default()).expect("a permit");
    let served = Arc::clone(&shared);
    tokio::spawn(async move {
        let (_closing, closed) = watch::channel(());
        served.serve_http(opened, permit, closed).await;
    });
    (client, shared)
}

/// Sends a request and returns the response, which ends with `tail`.
async fn ask(client: &mut DuplexStream, request: &str, tail: &str) -> String {
    client.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    while !answer.ends_with(tail.as_bytes()) {
        assert_ne!(client.read_buf(&mut answer).await.expect("readable"), 0, "{answer:?}");
    }
    String::from_utf8(answer).expect("text")
}

const GET: &str = "GET /v1/entries/k HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn handlers_know_the_caller() {
    for (access, peer) in [
        (AccessControl::protected(), "10.0.0.1:50000"),
        (AccessControl::protected(), "127.0.0.1:50000"),
        (AccessControl::insecure(), OTHER_HOST),
    ] {
        let (mut client, _) = connect(access, peer);
        let ip = peer.split(':').next().expect("a part");
        for _ in 0..2 {
            assert!(ask(&mut client, GET, ip).await.starts_with("HTTP/1.1 200"));
        }
    }
}

#[tokio::test]
async fn liveness_checks_are_open_to_callers_that_are_denied() {
    let (mut client, _) = connect(AccessControl::protected(), OTHER_HOST);
    for path in ["/ping", "/healthz", "/readyz"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(ask(&mut client, &request, "nobody").await.starts_with("HTTP/1.1 200"), "{path}");
    }
    for path in ["/ping/", "//ping", "/v1/cluster", "/v1/messages", "/", "*"] {
        let (mut client, shared) = connect(AccessControl::protected(), OTHER_HOST);
        let request = format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let refused = ask(&mut client, &request, "}").await;
        assert!(refused.starts_with("HTTP/1.1 403"), "{path}: {refused}");
        assert!(refused.contains("\"code\":\"protected\""), "{path}: {refused}");
        assert_eq!(shared.access.denial_counts().protected, 1);
        // The connection is closed after it.
        assert_eq!(client.read(&mut [0; 8]).await.expect("readable"), 0);
    }
}
