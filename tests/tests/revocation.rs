//! A token is revoked while its holder is connected: whatever it holds is given to others.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use zerocache_client::error::DenialReason;
use zerocache_client::{Error, ZerocacheClient};
use zerocache_core::wire::{Request, Response};
use zerocache_tests::frames::{CLUSTER, Framed, compact_message, hello_message, upgrade_with};
use zerocache_tests::http;
use zerocache_tests::messages::key;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, time_until, until_true};
use zerocache_tests::security::{Keys, tool, write_private};
use zerocache_tests::setup::{Access, Setup};
use zerocache_tests::stream::Stream;

const TTL: Duration = Duration::from_secs(60);

/// A node with an access file, and a token that the file can revoke.
struct Revocable {
    keys: Keys,
    _directory: TempDir,
    access: PathBuf,
    node: Node,
    token: String,
}

impl Revocable {
    fn start() -> Self {
        let (keys, directory) = (Keys::new(), tempfile::tempdir().expect("a directory"));
        let access = directory.path().join("access.toml");
        write_private(&access, b"");
        let setup = Setup::new("london").access(Access::Secret(keys.clone()));
        let node = setup.flag("--access", access.display()).start();
        let token = keys.token(&["--name", "leaver", "--role", "admin"]);
        Self { keys, _directory: directory, access, node, token }
    }

    /// What the holder of the token connects with.
    fn leaver(&self) -> Keys {
        self.keys.with_token(self.token.clone())
    }

    fn revoke(&self) {
        let shown = tool(&["token", "show", "--json", &self.token], None);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let id = shown["id"].as_str().expect("an id");
        write_private(&self.access, format!("revoked = [\"{id}\"]\n").as_bytes());
    }

    fn stat(&self, name: &str) -> u64 {
        let stats =
            http::send_with(self.node.address(), Some(&self.keys), "GET", "/v1/stats", &[], b"");
        stats.expect("an answer").json()[name].as_u64().expect("a number")
    }
}

#[test]
fn revoked_token_loses_its_open_connections() {
    let revocable = Revocable::start();
    let builder = ZerocacheClient::builder("london").mdns(false);
    let builder = builder.seed(revocable.node.address().to_string());
    let client = builder.token(revocable.token.as_str()).build().expect("a client");
    client.wait_ready(PATIENCE).expect("a node in sync");
    client.put("k", "v", TTL).wait().expect("written");
    revocable.revoke();
    // Without a signal: nodes look at their files every 10 s.
    let is_denied =
        || matches!(client.get("k").wait(), Err(Error::Denied { reason: DenialReason::Wrong, .. }));
    let took = time_until(Duration::from_secs(20), is_denied);
    assert!(took.is_some(), "a revoked token still reads after 20 s");
}

#[test]
fn connection_from_before_a_revocation_is_not_upgraded() {
    let revocable = Revocable::start();
    let (leaver, to) = (revocable.leaver(), revocable.node.address());
    let open = || http::connect_with(to, Some(&leaver)).expect("connected");
    // The status, if the node has not closed the connection instead.
    let upgrade = |mut stream: Stream| {
        let request = upgrade_with(to, "zerocache/1", &hello_message(CLUSTER), Some(&leaver));
        stream
            .write_all(&request)
            .and_then(|()| http::finish(stream))
            .ok()
            .map(|answer| answer.status)
    };
    // They complete the handshake of TLS with what was valid then.
    let before: Vec<Stream> = (0..8).map(|_| open()).collect();
    revocable.revoke();
    revocable.node.reload();
    until_true("the reload", || upgrade(open()) == Some(401));
    for stream in before {
        let status = upgrade(stream);
        assert!(matches!(status, None | Some(401)), "{status:?}");
    }
}

#[test]
fn lease_and_feed_of_a_revoked_token_end() {
    let revocable = Revocable::start();
    let to = revocable.node.address();
    let lease = |wait_ms: u64| {
        let (key, newer_than) = (key("k"), None);
        compact_message(Request::Lease { key, lease_ms: 60_000, wait_ms, newer_than })
    };
    let mut leaver = Framed::open_with(to, Some(&revocable.leaver()));
    let token = match leaver.ask(&lease(0)) {
        Response::LeaseGranted { token } => token,
        other => panic!("{other:?}"),
    };
    let mut follower = Framed::open_with(to, Some(&revocable.leaver()));
    let since =
        match follower.ask(&compact_message(Request::Follow { since: 0, with_purges: true })) {
            Response::Changes { next, .. } => next,
            other => panic!("{other:?}"),
        };
    let _feed = follower.request(&compact_message(Request::Follow { since, with_purges: true }), 0);
    until_true("the follower", || revocable.stat("feed_followers") == 1);
    let mut other = Framed::open_with(to, Some(&revocable.keys));
    let waiting = other.request(&lease(50_000), 0);
    until_true("the waiter", || revocable.stat("lease_waiters") == 1);

    revocable.revoke();
    revocable.node.reload();
    assert!(leaver.is_closed_by_node());
    // Long before the lease would end.
    match other.response(waiting) {
        Response::LeaseGranted { token: next } => assert!(next > token),
        other => panic!("{other:?}"),
    }
    until_true("the end of the feed", || revocable.stat("feed_followers") == 0);
}
