//! Reads over HTTP of entries that are stale or compressed.

use bytes::Bytes;
use zerocache_core::compression;
use zerocache_core::metadata::{Encoding, Metadata};
use zerocache_core::ttl::Ttl;
use zerocache_core::version::VersionSource;
use zerocache_core::wire::{Ack, Request, RequestMessage, Response};
use zerocache_core::wire::{Envelope, cluster_id};
use zerocache_net::clock;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::frames::CLUSTER;
use zerocache_tests::http::Answer;
use zerocache_tests::messages::key;
use zerocache_tests::node::{Node, entry};
use zerocache_tests::poll::until_true;
use zerocache_tests::transport::TransportKind;

fn stale(node: &Node, key: &[u8]) -> Answer {
    node.http("GET", &format!("{}?stale=true", entry(key)), b"")
}

/// Writes an entry as a client does that packs it, or forges it.
fn put(node: &Node, name: &str, value: &[u8], metadata: Bytes) {
    let request = Request::Put {
        key: key(name),
        value: Bytes::copy_from_slice(value),
        metadata,
        ttl: Ttl::from_secs(60).expect("a lifetime"),
        ack: Ack::Local,
        version: VersionSource::Accepted,
    };
    let envelope = Envelope { cluster: cluster_id(CLUSTER), ..Envelope::default() };
    let message = RequestMessage { envelope, request }.encode(clock::mono());
    let response = TransportKind::Http.caller(node.address()).ask(&message);
    assert!(matches!(response, Response::Written(_)), "{response:?}");
}

#[test]
fn entry_past_its_fresh_time_is_not_a_hit() {
    let cluster = Cluster::start(&["oslo"]);
    let node = &cluster[0];
    let counts = || ["hits", "stale_hits", "misses", "stale_misses"].map(|name| node.stat(name));
    node.put(b"k", b"v", "ttl=60");
    // Stale from the beginning: its lifetime is not longer than its stale time.
    let mut metadata = Metadata::default();
    metadata.stale_while_ms = 60_000;
    put(node, "old", b"v", metadata.encode());
    put(node, "damaged", b"v", Bytes::from_static(&[0xff]));
    let statuses = [
        node.get(b"k").status,
        node.get(b"old").status,
        stale(node, b"old").status,
        stale(node, b"old").status,
        stale(node, b"damaged").status,
        node.get(b"none").status,
    ];
    assert_eq!(statuses, [200, 404, 200, 200, 404, 404]);
    assert_eq!(counts(), [1, 2, 3, 1]);
}

#[test]
fn stale_entry_is_served_only_on_request() {
    let cluster = Cluster::start(&["oslo", "rome"]);
    cluster[0].put(
        b"k",
        b"v",
        "ttl=1&stale-while=30&stale-if-error=3600&tags=users,a%252Cb&ack=all",
    );
    cluster[0].put(b"plain", b"v", "ttl=60&ack=all");
    for node in &cluster.nodes {
        let fresh = stale(node, b"k");
        assert_eq!(fresh.status, 200);
        assert_eq!(fresh.header("zerocache-tags"), Some("users,a%2Cb"));
        until_true("the end of its fresh time", || node.get(b"k").status == 404);
        let answer = stale(node, b"k");
        assert_eq!((answer.status, &answer.body[..]), (200, &b"v"[..]));
        assert_eq!(answer.header("zerocache-stale"), Some("while"));
        assert_eq!(answer.header("zerocache-fresh-ms"), Some("0"));
        let remaining_ms: u64 =
            answer.header("zerocache-ttl-ms").expect("a header").parse().expect("a number");
        assert!((3_500_000..=3_600_000).contains(&remaining_ms), "{remaining_ms}");
        let head = node.http("HEAD", &entry(b"k"), b"");
        assert_eq!(head.status, 404);
        let plain = node.get(b"plain");
        for header in ["zerocache-stale", "zerocache-fresh-ms", "zerocache-tags"] {
            assert_eq!(plain.header(header), None, "{header}");
        }
    }
    cluster[0].put(b"k", b"again", "ttl=60");
    assert_eq!(cluster[0].value(b"k").as_deref(), Some(&b"again"[..]));
    cluster[0].put(b"k", b"v", "ttl=1&stale-if-error=30");
    until_true("the end of its fresh time", || cluster[0].get(b"k").status == 404);
    assert_eq!(stale(&cluster[0], b"k").header("zerocache-stale"), Some("if-error"));
    for (query, code) in [
        ("stale-while=-1", "bad_ttl"),
        ("stale-if-error=100000000", "bad_ttl"),
        ("tags=%25zz", "bad_query"),
        ("stale=true", "bad_query"),
    ] {
        let answer = cluster[0].http("PUT", &format!("{}?{query}", entry(b"k")), b"v");
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{query}");
    }
    let answer = cluster[0].http("GET", &format!("{}?stale=yes", entry(b"k")), b"");
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_query"));
}

#[test]
fn compressed_values_are_decompressed_and_damage_is_a_miss() {
    let cluster = Cluster::start_with(&["oslo"], |setup| setup.flag("--max-value-bytes", 1 << 20));
    let node = &cluster[0];
    let mut metadata = Metadata::default();
    metadata.encoding = Encoding::Lz4;
    let metadata = metadata.encode();
    let plain = b"one of many ".repeat(1_000);
    let packed = compression::compress(&plain).expect("smaller");
    put(node, "k", &packed, metadata.clone());
    assert_eq!(node.value(b"k"), Some(plain));
    let large = compression::compress(&vec![7; (1 << 20) + 1]).expect("smaller");
    let allowed = compression::compress(&vec![7; 1 << 20]).expect("smaller");
    put(node, "allowed", &allowed, metadata.clone());
    assert_eq!(node.value(b"allowed"), Some(vec![7; 1 << 20]));
    let unknown = Bytes::from_static(b"\x04\x01\x09");
    for (name, value, metadata) in [
        ("large", &large[..], &metadata),
        ("cut", &packed[..packed.len() / 2], &metadata),
        ("short", &b"abc"[..], &metadata),
        ("forged", &b"\xff\xff\xff\x0fxx"[..], &metadata),
        ("unknown", &b"v"[..], &unknown),
    ] {
        put(node, name, value, metadata.clone());
        let before = node.stat("values_unreadable");
        let answer = node.get(name.as_bytes());
        assert_eq!((answer.status, answer.code().as_str()), (404, "unreadable_value"), "{name}");
        assert_eq!(stale(node, name.as_bytes()).status, 404, "{name}");
        assert_eq!(node.stat("values_unreadable"), before + 2, "{name}");
    }
    assert_eq!(node.stat("panics"), 0);
}
