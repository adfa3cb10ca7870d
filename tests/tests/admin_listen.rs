//! A listener for operators alone: health, metrics, administration and the page, and no entries.

use std::net::SocketAddr;

use zerocache_tests::http;
use zerocache_tests::node::{Node, entry};
use zerocache_tests::poll::{until, until_true};
use zerocache_tests::security::Keys;
use zerocache_tests::setup::{Access, Setup, unique_address};

/// A node that also serves operators, and where.
fn start(setup: Setup) -> (Node, SocketAddr) {
    let listen = SocketAddr::new(unique_address(), 0);
    let node = setup.flag("--admin-listen", listen).flag("--drain", "0s").start();
    let admin = until("the address for operators", || {
        let log = node.log();
        let line = log.lines().find(|line| line.contains("operators are served"))?;
        let address = line.split("address=").nth(1)?.split_whitespace().next()?;
        address.parse().ok()
    });
    until_true("a node that is ready", || node.is_ready());
    (node, admin)
}

#[test]
fn operators_have_an_address_without_entries() {
    let (mut node, admin) = start(Setup::new("london"));
    node.put(b"k", b"v", "ttl=60");
    let keys = Keys::of_this_run();
    let status = |at: SocketAddr, method: &str, target: &str| {
        let answer = http::send_with(at, keys.as_ref(), method, target, &[], b"");
        answer.expect("an answer").status
    };
    for path in [
        "/ping",
        "/healthz",
        "/metrics",
        "/v1/cluster",
        "/v1/config",
        "/v1/stats",
        "/v1/hot-keys",
        "/page/",
    ] {
        assert_eq!(status(admin, "GET", path), 200, "{path}");
        assert_eq!(status(node.address(), "GET", path), 200, "{path}");
    }
    assert_eq!(status(admin, "GET", &entry(b"k")), 404);
    assert_eq!(status(admin, "DELETE", &entry(b"k")), 404);
    assert_eq!(status(admin, "PUT", &format!("{}?ttl=60", entry(b"k"))), 404);
    assert_eq!(status(admin, "POST", "/v1/messages"), 404);
    assert_eq!(node.value(b"k").as_deref(), Some(&b"v"[..]));
    // The listener ends with the node.
    node.shut_down();
    assert!(node.ended().success());
    assert!(http::send_with(admin, keys.as_ref(), "GET", "/ping", &[], b"").is_err());
}

#[test]
fn roles_and_encryption_are_those_of_the_port() {
    let keys = Keys::new();
    let (_node, admin) = start(Setup::new("london").access(Access::Secret(keys.clone())));
    let status = |keys: Option<&Keys>, target: &str| {
        http::send_with(admin, keys, "GET", target, &[], b"").expect("an answer").status
    };
    assert_eq!(status(None, "/metrics"), 400, "not encrypted");
    let reader = keys.with_token(keys.token(&["--name", "r", "--role", "read"]));
    let monitor = keys.with_token(keys.token(&["--name", "m", "--role", "monitor"]));
    assert_eq!(status(Some(&reader), "/metrics"), 403);
    assert_eq!(status(Some(&monitor), "/metrics"), 200);
    assert_eq!(status(Some(&monitor), "/v1/config"), 200);
    assert_eq!(status(Some(&monitor), "/healthz"), 200);
}
