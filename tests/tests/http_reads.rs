//! What caches, proxies and browsers expect of GET, HEAD and PUT: entity tags, ranges, descriptions of values.

use bytes::Bytes;
use zerocache_core::ttl::Ttl;
use zerocache_core::version::VersionSource;
use zerocache_core::wire::{Ack, Envelope, Request, RequestMessage, Response, cluster_id};
use zerocache_net::clock;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::frames::CLUSTER;
use zerocache_tests::http::{self, Answer};
use zerocache_tests::messages;
use zerocache_tests::node::{Node, entry};
use zerocache_tests::poll::until_true;
use zerocache_tests::setup::Setup;
use zerocache_tests::transport::transport_kinds;

fn send(node: &Node, method: &str, key: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let target = entry(key.as_bytes());
    http::send(node.address(), method, &target, headers, body).expect("an answer")
}

fn get(node: &Node, key: &str, headers: &[(&str, &str)]) -> Answer {
    send(node, "GET", key, headers, b"")
}

fn head(node: &Node, key: &str, headers: &[(&str, &str)]) -> Answer {
    send(node, "HEAD", key, headers, b"")
}

fn start() -> Node {
    until_ready(Setup::new("oslo").start())
}

fn until_ready(node: Node) -> Node {
    until_true("a node that is ready", || node.is_ready());
    node
}

#[test]
fn entity_tag_and_description_are_the_same_at_every_node() {
    let cluster = Cluster::start(&["oslo", "rome"]);
    let headers = [
        ("Content-Type", "image/svg+xml; charset=utf-8"),
        ("Content-Encoding", "gzip"),
        ("Surrogate-Key", "one two"),
    ];
    let target = format!("{}?ttl=600&origin=s3://a/1&origin=https://b.example/1", entry(b"logo"));
    let put = |body: &[u8]| {
        let answer = http::send(cluster[0].address(), "PUT", &target, &headers, body);
        assert_eq!(answer.expect("an answer").status, 200);
    };
    put(b"first");
    let first = get(&cluster[0], "logo", &[]);
    let etag = first.header("etag").expect("an entity tag").to_owned();
    assert_eq!(etag, format!("\"{}\"", first.header("zerocache-version").expect("a version")));
    cluster.everywhere(b"logo", |answer| answer.status == 200);
    for node in &cluster.nodes {
        for (method, body) in [("GET", &b"first"[..]), ("HEAD", b"")] {
            let answer = send(node, method, "logo", &[], b"");
            assert_eq!((answer.status, &answer.body[..]), (200, body), "{method}");
            for (name, value) in [
                ("etag", etag.as_str()),
                ("content-type", "image/svg+xml; charset=utf-8"),
                ("content-encoding", "gzip"),
                ("content-length", "5"),
                ("accept-ranges", "bytes"),
                ("zerocache-tags", "one,two"),
                ("zerocache-origin", "s3://a/1"),
                ("cache-control", "no-store"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{method} {name}");
            }
            assert!(answer.head.contains("\r\nzerocache-origin: https://b.example/1"));
            assert_eq!(answer.header("vary"), None);
        }
        let known = format!("\"x\", W/{etag}");
        for condition in [("If-None-Match", known.as_str()), ("If-None-Match", "*")] {
            for answer in [get(node, "logo", &[condition]), head(node, "logo", &[condition])] {
                assert_eq!((answer.status, answer.body.len()), (304, 0), "{condition:?}");
                assert_eq!(answer.header("etag"), Some(etag.as_str()));
                // It would have to be that of the value.
                assert_eq!(answer.header("content-length"), None, "{}", answer.head);
            }
        }
        assert_eq!(get(node, "logo", &[("If-Match", &etag)]).status, 200);
    }
    put(b"second");
    until_true("the second value everywhere", || {
        cluster.nodes.iter().all(|node| {
            let answer = get(node, "logo", &[("If-None-Match", &etag)]);
            answer.status == 200 && answer.body == b"second" && answer.header("etag") != Some(&etag)
        })
    });
    let answer = get(&cluster[1], "logo", &[("If-Match", &etag)]);
    assert_eq!((answer.status, answer.code().as_str()), (412, "precondition_failed"));
    let missing = get(&cluster[1], "none", &[("If-Match", "*"), ("If-None-Match", "*")]);
    assert_eq!(missing.status, 404);
}

#[test]
fn large_value_is_read_in_ranges() {
    let setup = Setup { max_bytes: "512MiB", ..Setup::new("oslo") };
    let node = until_ready(setup.flag("--max-value-bytes", 16 << 20).start());
    let video: Vec<u8> = (0..10_u32 << 20).map(|at| (at.wrapping_mul(at) >> 7) as u8).collect();
    let typed = [("Content-Type", "video/mp4")];
    assert_eq!(send(&node, "PUT", "video", &typed, &video).status, 200);
    let total = video.len();
    let part = |range: &str| get(&node, "video", &[("Range", range)]);
    // As players do: the beginning, the end, and then piece after piece.
    let mut at = 0;
    let mut read = Vec::new();
    while at < total {
        let end = (at + (3 << 20)).min(total);
        let answer = part(&format!("bytes={at}-{}", at + (3 << 20) - 1));
        assert_eq!(answer.status, 206);
        let range = format!("bytes {at}-{}/{total}", end - 1);
        assert_eq!(answer.header("content-range"), Some(range.as_str()));
        assert_eq!(answer.header("content-length"), Some((end - at).to_string().as_str()));
        assert_eq!(answer.header("content-type"), Some("video/mp4"));
        read.extend_from_slice(&answer.body);
        at = end;
    }
    assert!(read == video, "other bytes");
    let last = part("bytes=-1000");
    assert!(last.status == 206 && last.body == video[total - 1000..]);
    let open = part(&format!("bytes={}-", total - 7));
    assert!(open.status == 206 && open.body == video[total - 7..]);
    for ignored in ["bytes=0-1,4-5", "items=0-1", "bytes=5-4"] {
        let whole = part(ignored);
        assert!(whole.status == 200 && whole.body == video, "{ignored}");
        assert_eq!(whole.header("content-range"), None);
    }
    let beyond = part(&format!("bytes={total}-"));
    assert_eq!((beyond.status, beyond.code().as_str()), (416, "unsatisfiable_range"));
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{total}").as_str()));
    let etag = last.header("etag").expect("an entity tag");
    for (condition, status) in [(etag, 206), ("\"x\"", 200), ("Sat, 29 Oct 2022 19:43:31 GMT", 200)]
    {
        let answer = get(&node, "video", &[("Range", "bytes=0-9"), ("If-Range", condition)]);
        assert_eq!(answer.status, status, "{condition}");
    }
    let known = get(&node, "video", &[("Range", "bytes=0-9"), ("If-None-Match", etag)]);
    assert_eq!(known.status, 304, "conditions come before ranges");
    let head = head(&node, "video", &[("Range", "bytes=0-9")]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("10485760")));
    assert_eq!(node.stat("bad_requests"), 0, "none of these was a mistake");
}

#[test]
fn stored_page_can_do_nothing_in_a_browser() {
    let node = start();
    let page = b"<script>fetch('/v1/cluster')</script>";
    assert_eq!(send(&node, "PUT", "page", &[("Content-Type", "text/html")], page).status, 200);
    assert_eq!(send(&node, "PUT", "plain", &[], page).status, 200);
    for (key, content_type) in [("page", "text/html"), ("plain", "application/octet-stream")] {
        for range in [&[][..], &[("Range", "bytes=0-")]] {
            let answer = get(&node, key, range);
            assert_eq!(
                (&answer.body[..], answer.header("content-type")),
                (&page[..], Some(content_type))
            );
            assert_eq!(answer.header("content-security-policy"), Some("sandbox"));
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        }
    }
}

#[test]
fn entry_of_a_client_cannot_add_headers() {
    let node = start();
    let envelope = Envelope { cluster: cluster_id(CLUSTER), ..Envelope::default() };
    // Content type and origin with a line break, as no API writes them.
    for (name, metadata) in
        [("type", &b"\x0a\x10a/b\r\nSet-Cookie: "[..]), ("origin", b"\x08\x0aa://b\r\nX: ")]
    {
        let put = Request::Put {
            key: messages::key(name),
            value: Bytes::from_static(b"v"),
            metadata: Bytes::from_static(metadata),
            ttl: Ttl::from_secs(60).expect("a lifetime"),
            ack: Ack::Local,
            version: VersionSource::Accepted,
        };
        let message = RequestMessage { envelope, request: put };
        let mut caller = transport_kinds()[0].caller(node.address());
        let response = caller.ask(&message.encode(clock::mono()));
        assert!(matches!(response, Response::Written(_)), "{response:?}");
        let answer = get(&node, name, &[]);
        assert_eq!((answer.status, answer.code().as_str()), (404, "unreadable_value"), "{name}");
    }
    assert_eq!(node.stat("values_unreadable"), 2);
}
