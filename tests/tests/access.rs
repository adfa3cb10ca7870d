//! Who may do what at a node with a secret: every request, over HTTP and in messages, with every kind of
//! credentials.

use std::path::Path;

use bytes::Bytes;
use zerocache_core::key::KeyHash;
use zerocache_core::purge::{PurgeMode, PurgeTarget};
use zerocache_core::store::CopyRange;
use zerocache_core::version::{Incarnation, Version};
use zerocache_core::wire::{
    Ack, Envelope, NodeInfo, NodeState, RefusalCode, Request, RequestMessage, Resolution, Response,
    Window, cluster_id,
};
use zerocache_net::clock;
use zerocache_net::transport::{MESSAGES_PATH, MESSAGES_TYPE};
use zerocache_tests::frames::{CLUSTER, client_hello};
use zerocache_tests::http::{self, Answer};
use zerocache_tests::messages::{self, key};
use zerocache_tests::node::Node;
use zerocache_tests::poll::until_true;
use zerocache_tests::security::{Keys, write_private};
use zerocache_tests::setup::{Access, Setup};
use zerocache_tests::stream::Stream;

/// The roles that a token can have.
const ROLES: [&str; 4] = ["read", "write", "monitor", "admin"];

const READERS: &[&str] = &["read", "write", "admin"];
const WRITERS: &[&str] = &["write", "admin"];
const MONITORS: &[&str] = &["monitor", "admin"];
const CONNECTED: &[&str] = &ROLES;
const ADMINS: &[&str] = &["admin"];
const NOBODY: &[&str] = &[];

/// Requests over HTTP, and the roles that may make them.
const HTTP: [(&str, &str, &[&str]); 15] = [
    ("GET", "/v1/entries/a%2Fkey", READERS),
    ("HEAD", "/v1/entries/a%2Fkey", READERS),
    ("GET", "/v1/entries/a%2Fkey?stale=true", READERS),
    ("PUT", "/v1/entries/a%2Fkey?ttl=60", WRITERS),
    ("DELETE", "/v1/entries/a%2Fkey", WRITERS),
    ("GET", "/v1/cluster", CONNECTED),
    ("GET", "/v1/stats", MONITORS),
    ("GET", "/v1/config", MONITORS),
    ("GET", "/metrics", MONITORS),
    ("GET", "/v1/admin/keys", ADMINS),
    ("POST", "/v1/admin/undrain", ADMINS),
    ("GET", "/v1/hot-keys", MONITORS),
    ("POST", "/v1/tags/a/purge", WRITERS),
    ("POST", "/v1/purge?namespace=a", WRITERS),
    ("GET", "/ping", &["none", "read", "write", "monitor", "admin"]),
];

/// One message of each kind, and the roles of tokens that may send it.
fn messages() -> Vec<(Request, &'static [&'static str])> {
    let node = NodeInfo {
        incarnation: Incarnation(77),
        region: "london".into(),
        zone: None,
        addresses: vec![([127, 0, 0, 77], 9).into()],
        state: NodeState::InSync,
        bytes_max: 1,
        name: None,
        replicas: zerocache_core::cluster::Replicas::All,
    };
    let RequestMessage { request: client, .. } = client_hello(CLUSTER);
    let Request::Hello(mut member) = client.clone() else { unreachable!("a Hello") };
    member.node = Some(node);
    let token = Version::new(1 << 16, Incarnation(1));
    let window = Window { from: 0, to: 1 };
    let hash = || vec![KeyHash::of(b"a/key")];
    vec![
        (client, CONNECTED),
        (Request::Hello(member), NOBODY),
        (Request::Ping, CONNECTED),
        (Request::Goodbye, NOBODY),
        (Request::Get { key: key("a/key") }, READERS),
        (messages::put("a/key", "v"), WRITERS),
        (Request::Delete { key: key("a/key"), ack: Ack::Local }, WRITERS),
        (Request::Replicate(Vec::new()), NOBODY),
        (Request::Digests { window, resolution: Resolution::Blocks, last_sync_ms: None }, ADMINS),
        (Request::BucketVersions(Vec::new()), ADMINS),
        (Request::KeyVersions(hash()), ADMINS),
        (Request::Fetch(hash()), NOBODY),
        (
            Request::Copy {
                first_shard: 0,
                last_shard: 0,
                range: CopyRange::default(),
                owned: false,
            },
            NOBODY,
        ),
        (Request::Watch { view: 0 }, CONNECTED),
        (Request::Gossip(Bytes::new()), NOBODY),
        (
            Request::Lease { key: key("a/lease"), lease_ms: 10, wait_ms: 0, newer_than: None },
            WRITERS,
        ),
        (Request::Release { key: key("a/lease"), token, failed: false }, WRITERS),
        (Request::Follow { since: 0, with_purges: true }, READERS),
        (
            Request::Purge {
                target: PurgeTarget::tag("t").expect("a tag"),
                mode: PurgeMode::Hard,
                hold_ms: 0,
                ack: Ack::Local,
                replayed: None,
            },
            WRITERS,
        ),
    ]
}

/// A node with a secret and an access file that revokes the token `revoked`.
fn start(keys: &Keys, access: &Path) -> Node {
    let setup = Setup::new("london").access(Access::Secret(keys.clone()));
    setup.flag("--access", access.display()).start()
}

fn send(node: &Node, keys: &Keys, token: Option<&str>, (method, target): (&str, &str)) -> Answer {
    let bearer = token.map(Keys::bearer);
    let headers: Vec<_> =
        bearer.as_deref().map(|bearer| ("Authorization", bearer)).into_iter().collect();
    let request = http::request(node.address(), method, target, &headers, b"");
    let stream = Stream::tls(node.address(), keys.tls()).expect("TLS without credentials");
    http::raw_on(stream, &request).expect("an answer")
}

/// The answer to a message: a response, or the code of the error.
fn ask(
    node: &Node,
    keys: &Keys,
    token: Option<&str>,
    request: Request,
) -> Result<Response, String> {
    let envelope =
        Envelope { cluster: cluster_id(CLUSTER), timeout_ms: 300, ..Envelope::default() };
    let message = RequestMessage { envelope, request }.encode(clock::mono());
    let bearer = token.map(Keys::bearer);
    let mut headers = vec![("Content-Type", MESSAGES_TYPE)];
    headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
    let request = http::request(node.address(), "POST", MESSAGES_PATH, &headers, &message);
    let stream = Stream::tls(node.address(), keys.tls()).expect("TLS without credentials");
    let answer = http::raw_on(stream, &request).expect("an answer");
    match answer.status {
        200 => Ok(Response::decode(Bytes::from(answer.body)).expect("a response")),
        _ => Err(answer.code()),
    }
}

/// The denial in an answer to a message, if it is one.
fn denial(answer: &Result<Response, String>) -> Option<&str> {
    match answer {
        Err(code) => Some(code),
        Ok(Response::Refused(refusal)) => match refusal.code {
            RefusalCode::Unauthenticated => Some("unauthenticated"),
            RefusalCode::Forbidden => Some("forbidden"),
            RefusalCode::BadCredentials => Some("bad_credentials"),
            RefusalCode::ExpiredCredentials => Some("expired_credentials"),
            _ => None,
        },
        Ok(_) => None,
    }
}

/// The id of a token, as `zerocache token show` prints it.
fn id_of(token: &str) -> String {
    let shown = zerocache_tests::security::tool(&["token", "show", "--json", token], None);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    shown["id"].as_str().expect("an id").to_owned()
}

#[test]
fn every_request_needs_its_role() {
    let (keys, directory) = (Keys::new(), tempfile::tempdir().expect("a directory"));
    let access = directory.path().join("access.toml");
    let revoked = keys.token(&["--name", "revoked", "--role", "admin"]);
    write_private(&access, format!("revoked = [\"{}\"]\n", id_of(&revoked)).as_bytes());
    let node = start(&keys, &access);
    let expired = keys.token(&["--name", "expired", "--role", "admin", "--for", "1s"]);
    until_true("the end of a token", || {
        send(&node, &keys, Some(&expired), ("GET", "/v1/stats")).status == 401
    });
    let foreign = Keys::new().token(&["--name", "foreign", "--role", "admin"]);
    let other = keys.token(&["--name", "other", "--role", "admin", "--cluster", "other"]);
    let mut changed = keys.token(&["--name", "changed", "--role", "admin"]);
    changed.replace_range(40..41, if &changed[40..41] == "A" { "B" } else { "A" });
    let truncated = keys.admin()[..keys.admin().len() - 4].to_owned();
    let wrong = [
        (None, "unauthenticated"),
        (Some(expired.as_str()), "expired_credentials"),
        (Some(revoked.as_str()), "bad_credentials"),
        (Some(foreign.as_str()), "bad_credentials"),
        (Some(other.as_str()), "bad_credentials"),
        (Some(changed.as_str()), "bad_credentials"),
        (Some(truncated.as_str()), "bad_credentials"),
        (Some("nonsense"), "bad_credentials"),
    ];
    let tokens: Vec<_> =
        ROLES.iter().map(|role| (*role, keys.token(&["--name", role, "--role", role]))).collect();

    for (method, target, permitted) in HTTP {
        for (token, code) in wrong {
            let answer = send(&node, &keys, token, (method, target));
            if permitted.contains(&"none") {
                assert_eq!(answer.status, 200, "{method} {target}");
                continue;
            }
            assert_eq!(answer.status, 401, "{method} {target} with {code}");
            assert!(answer.header("www-authenticate").is_some_and(|how| how.starts_with("Bearer")));
            assert!(method == "HEAD" || answer.code() == code, "{method} {target}: {code}");
        }
        for (role, token) in &tokens {
            let answer = send(&node, &keys, Some(token), (method, target));
            let is_permitted = permitted.contains(role);
            assert_eq!(answer.status != 403, is_permitted, "{method} {target} as {role}");
            assert_ne!(answer.status, 401, "{method} {target} as {role}");
        }
    }
    for (request, permitted) in messages() {
        for (token, code) in wrong {
            let answer = ask(&node, &keys, token, request.clone());
            assert_eq!(denial(&answer), Some(code), "{request:?}");
        }
        for (role, token) in &tokens {
            let answer = ask(&node, &keys, Some(token), request.clone());
            let expected = if permitted.contains(role) { None } else { Some("forbidden") };
            assert_eq!(denial(&answer), expected, "{request:?} as {role}");
        }
    }
    // Nothing of all this was believed.
    assert_eq!(node.cluster().len(), 1, "{:?}", node.cluster());
    let stats = node.http("GET", "/v1/stats", b"").json();
    let log = node.log();
    assert!(log.contains("WARN"), "{log}");
    for (_, token) in &tokens {
        assert!(!log.contains(&token[4..20]) && !stats.to_string().contains(&token[4..20]));
    }
}

#[test]
fn token_with_prefixes_is_for_their_keys() {
    let keys = Keys::new();
    let node = Setup::new("london").access(Access::Secret(keys.clone())).start();
    let args =
        ["--name", "orders", "--role", "write", "--prefix", "orders/", "--prefix", "memo:shop"];
    let token = keys.token(&args);
    let status = |method, target| send(&node, &keys, Some(&token), (method, target)).status;
    assert_eq!(status("PUT", "/v1/entries/orders%2F1?ttl=60"), 200);
    assert_eq!(status("GET", "/v1/entries/orders%2F1"), 200);
    assert_eq!(status("GET", "/v1/entries/orders"), 403);
    assert_eq!(status("PUT", "/v1/entries/other?ttl=60"), 403);
    assert_eq!(status("DELETE", "/v1/entries/other"), 403);
    // Bytes as in keys of memoized results: scheme, length of the namespace, namespace.
    assert_eq!(status("PUT", "/v1/entries/%02%04shop1?ttl=60"), 200);
    assert_eq!(status("PUT", "/v1/entries/%02%05shop1?ttl=60"), 403);
    assert_eq!(status("GET", "/v1/cluster"), 200);
    // The rows of the feed are hashes of all keys.
    let follow = ask(&node, &keys, Some(&token), Request::Follow { since: 0, with_purges: true });
    assert_eq!(denial(&follow), Some("forbidden"));
    // A scoped caller does not speak in the name of a node, which could act for others.
    let envelope = Envelope {
        cluster: cluster_id(CLUSTER),
        from: Some(Incarnation(1)),
        timeout_ms: 300,
        ..Envelope::default()
    };
    let request = Request::Get { key: key("orders/1") };
    let message = RequestMessage { envelope, request }.encode(clock::mono());
    let bearer = Keys::bearer(&token);
    let headers = [("Content-Type", MESSAGES_TYPE), ("Authorization", bearer.as_str())];
    let request = http::request(node.address(), "POST", MESSAGES_PATH, &headers, &message);
    let stream = Stream::tls(node.address(), keys.tls()).expect("connected");
    let answer = http::raw_on(stream, &request).expect("an answer");
    let response = match answer.status {
        200 => Ok(Response::decode(Bytes::from(answer.body)).expect("a response")),
        _ => Err(answer.code()),
    };
    assert_eq!(denial(&response), Some("forbidden"));
}

#[test]
fn web_page_of_another_site_is_refused() {
    let node = Setup::new("london").access(Access::Protected).start();
    let put = |headers: &[(&str, &str)]| {
        let mut lines = String::new();
        for (name, value) in headers {
            lines.push_str(&format!("{name}: {value}\r\n"));
        }
        let request = format!(
            "PUT /v1/entries/k?ttl=60 HTTP/1.1\r\n{lines}Content-Length: 1\r\nConnection: close\r\n\r\nv"
        );
        let stream = Stream::plain(node.address()).expect("connected");
        let answer = http::raw_on(stream, request.as_bytes()).expect("an answer");
        (answer.status, answer.code())
    };
    let evil = ("Host", "evil.example:6789");
    let refused = (403, "bad_host".to_owned());
    assert_eq!(put(&[evil, ("Origin", "http://evil.example:6789")]), refused);
    assert_eq!(put(&[evil, ("Sec-Fetch-Site", "same-origin")]), refused);
    // Programs that are no browsers send neither.
    assert_eq!(put(&[evil]).0, 200);
    for host in ["127.0.0.1:6789", "localhost:6789", "[::1]:6789", "cache:6789"] {
        assert_eq!(put(&[("Host", host), ("Origin", "http://page")]).0, 200, "{host}");
    }
}

#[test]
fn plain_caller_of_a_node_with_a_secret_is_told_to_use_tls() {
    let keys = Keys::new();
    let node = Setup::new("london").access(Access::Secret(keys)).start();
    let stream = Stream::plain(node.address()).expect("connected");
    let request = http::request(node.address(), "GET", "/v1/entries/k", &[], b"");
    let answer = http::raw_on(stream, &request).expect("an answer in clear text");
    assert_eq!((answer.status, answer.code().as_str()), (400, "tls_required"));
}
