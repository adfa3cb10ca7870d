//! Keys of any bytes: an exact round trip to another node, or a clear refusal; never a silent loss
//! and never two keys for one.

use std::collections::BTreeSet;

use bytes::Bytes;
use zerocache_client::{Error, ErrorKind, Status};
use zerocache_core::ttl::Ttl;
use zerocache_core::version::VersionSource;
use zerocache_core::wire::{
    Ack, Envelope, RefusalCode, Request, RequestMessage, Response, cluster_id,
};
use zerocache_net::clock;
use zerocache_tests::cluster::Cluster;
use zerocache_tests::frames::CLUSTER;
use zerocache_tests::http::{self, escaped};
use zerocache_tests::messages::{self, KEY_BYTES_MAX};
use zerocache_tests::node::Node;
use zerocache_tests::poll::until_true;
use zerocache_tests::transport::{refusal, transport_kinds};

/// Keys that a careless path, URL or text treatment would change or confuse.
#[expect(clippy::too_many_lines, reason = "a table")]
fn keys() -> Vec<Vec<u8>> {
    let texts = [
        "/",
        "//",
        "a/b",
        "a//b",
        "/a",
        "a/",
        "a/./b",
        "a/../b",
        "../a",
        "./a",
        "a/..",
        "a/.",
        "...",
        "?",
        "a?b=c",
        "a?ttl=5",
        "#",
        "a#b",
        "%",
        "%25",
        "%2F",
        "%2f",
        "%252F",
        "a%",
        "%zz",
        "..",
        "+",
        "a+b",
        "a b",
        " ",
        "  ",
        "&",
        "a&b=c",
        "=",
        ":",
        "a:b",
        "http://x/y",
        "\\",
        "a\\b",
        "\0",
        "a\0b",
        "a",
        "A",
        "\n",
        "a\r\nb",
        "\t",
        "\u{7f}",
        "é",
        "e\u{301}",
        "ﬁ",
        "fi",
        "日本語",
        "🦀",
        "\u{202e}abc",
        "\u{feff}",
        "K",
        "\u{212a}",
        "~",
        "a;b",
        "a,b",
        "\"",
        "'",
        "<>",
        "{}",
        "|",
        "^",
        "`",
        "@",
        "!",
        "$",
        "(",
        ")",
        "*",
        "[",
        "]",
        "%2E",
        "%2e%2e",
        "%00",
    ];
    let mut all: BTreeSet<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    all.extend((0..=u8::MAX).map(|byte| vec![byte]));
    all.extend((0..=u8::MAX).map(|byte| vec![b'x', byte]));
    all.extend([b"\xff\xfe".to_vec(), b"\xc3".to_vec(), b"\xed\xa0\x80".to_vec()]);
    all.extend([vec![b'k'; KEY_BYTES_MAX], vec![0; KEY_BYTES_MAX], vec![b'/'; KEY_BYTES_MAX]]);
    all.extend([vec![b'%'; KEY_BYTES_MAX], vec![0xff; KEY_BYTES_MAX]]);
    all.extend(["日".repeat(KEY_BYTES_MAX / 3).into_bytes()]);
    // Refused by design; they have a test of their own.
    for refused in [&b"."[..], b".."] {
        all.remove(refused);
    }
    all.into_iter().collect()
}

/// Returns a value that names its key.
fn value(key: &[u8]) -> Vec<u8> {
    [b"of ", key].concat()
}

fn awaits(node: &Node, key: &[u8]) {
    let what = format!("the key \"{}\" in {}", key.escape_ascii(), node.region());
    until_true(&what, || node.value(key).is_some());
    assert!(node.value(key) == Some(value(key)), "{what} has another key's value");
}

#[test]
fn every_key_makes_an_exact_round_trip_over_http() {
    let cluster = Cluster::start(&["london", "sydney"]);
    let keys = keys();
    for key in &keys {
        cluster[0].put(key, &value(key), "ttl=300");
    }
    for key in &keys {
        awaits(&cluster[1], key);
        // As much for lower-case digits, and with everything escaped that may be.
        let all: String = key.iter().map(|byte| format!("%{byte:02x}")).collect();
        let answer = cluster[0].http("GET", &format!("/v1/entries/{all}"), b"");
        assert_eq!((answer.status, answer.body), (200, value(key)));
    }
    assert_eq!(cluster[0].stat("entries"), keys.len() as u64, "no two keys became one");
    assert_eq!(cluster[1].stat("entries"), keys.len() as u64);
    let gone = &keys[keys.len() / 2];
    cluster[1].delete(gone, "ack=all");
    assert_eq!(cluster[0].value(gone), None);
    assert_eq!(cluster[0].stat("entries"), keys.len() as u64 - 1, "and only that one");
}

#[test]
fn every_key_makes_an_exact_round_trip_through_the_client() {
    let cluster = Cluster::start(&["london", "sydney"]);
    let (here, there) = (cluster.client("london"), cluster.client("sydney"));
    let keys = keys();
    for key in &keys {
        let written = here.put(key, value(key), 300).wait().expect("taken");
        assert_eq!(written.status, Status::Stored);
    }
    for key in &keys {
        awaits(&cluster[1], key);
        let found = there.get(key).entry().wait().expect("an answer").expect("a hit");
        assert_eq!(found.value, value(key), "{}", key.escape_ascii());
    }
    let hits = there.stats().hits;
    assert_eq!(
        (hits.local, hits.total()),
        (keys.len() as u64, keys.len() as u64),
        "its own region's node had all"
    );
}

#[test]
fn every_key_makes_an_exact_round_trip_in_messages() {
    let envelope = Envelope { cluster: cluster_id(CLUSTER), ..Envelope::default() };
    let message = |request| RequestMessage { envelope, request }.encode(clock::mono());
    let keys = keys();
    for transport in transport_kinds() {
        let cluster = Cluster::start(&["london", "sydney"]);
        let [mut here, mut there] = [0, 1].map(|at| transport.caller(cluster[at].address()));
        for key in &keys {
            let (ttl, ack) = (Ttl::from_secs(300).expect("a lifetime"), Ack::All);
            let (value, metadata) = (Bytes::from(value(key)), Bytes::new());
            let put = Request::Put {
                key: messages::key(key),
                value,
                metadata,
                ttl,
                ack,
                version: VersionSource::Accepted,
            };
            match here.ask(&message(put)) {
                Response::Written(written) => assert_eq!(written.replicas, 2, "{transport:?}"),
                other => panic!("{transport:?}: {} is answered with {other:?}", key.escape_ascii()),
            }
        }
        for key in &keys {
            match there.ask(&message(Request::Get { key: messages::key(key) })) {
                Response::Found { value: found, .. } => {
                    assert_eq!(found, value(key), "{transport:?}")
                }
                other => panic!("{transport:?}: {} is answered with {other:?}", key.escape_ascii()),
            }
        }
        assert_eq!(cluster[1].stat("entries"), keys.len() as u64, "no two keys became one");
    }
}

#[test]
fn invalid_keys_are_refused_in_messages() {
    let cluster = Cluster::start(&["london"]);
    for transport in transport_kinds() {
        let mut caller = transport.caller(cluster[0].address());
        let long = vec![b'k'; KEY_BYTES_MAX + 1];
        for (key, code) in [
            (&b""[..], RefusalCode::BadMessage),
            (b".", RefusalCode::BadMessage),
            (b"..", RefusalCode::BadMessage),
            (&long, RefusalCode::BadKey),
        ] {
            // A Delete by hand, as the types here hold no such key: kind, cluster, key.
            let mut delete = vec![6, 1, 9];
            let mut cluster_field = Vec::new();
            varint(&mut cluster_field, cluster_id(CLUSTER));
            delete[2] = cluster_field.len() as u8;
            delete.extend(cluster_field);
            delete.push(17);
            varint(&mut delete, key.len() as u64);
            delete.extend(key);
            assert_eq!(refusal(&caller.ask(&delete)), Some(code), "{transport:?}: {key:?}");
        }
    }
    assert_eq!(cluster[0].stat("tombstones") + cluster[0].stat("entries"), 0);
}

/// Appends a number as the protocol writes it.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[test]
fn unescaped_byte_is_taken_literally_or_refused() {
    let cluster = Cluster::start(&["london"]);
    let node = &cluster[0];
    let bytes: Vec<u8> = (0..=u8::MAX).collect();
    for byte in bytes {
        let prefix = format!("raw {byte} ").into_bytes();
        let key = [&prefix[..], &[byte], b"end"].concat();
        let mut request = b"PUT /v1/entries/".to_vec();
        request.extend_from_slice(escaped(&prefix).as_bytes());
        request.extend_from_slice(&[byte]);
        let head = b"end HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nv";
        request.extend_from_slice(head);
        let status = http::raw(node.address(), &request).map_or(0, |answer| answer.status);
        let (stored, cut) = (node.value(&key).is_some(), node.value(&prefix).is_some());
        assert!(!cut, "byte {byte} cuts a key off; the answer was {status}");
        // `%en` is not an escape, and `?end` is an unknown parameter.
        let may_be_stored = !matches!(byte, b'%' | b'?' | b'#' | 0..=b' ' | 0x7f);
        match status {
            200 => assert!(stored && may_be_stored, "byte {byte}"),
            0 | 400..=499 => assert!(!stored, "byte {byte} was refused with {status} and stored"),
            other => panic!("byte {byte} was answered with {other}"),
        }
    }
}

#[test]
fn dot_segments_empty_and_oversized_keys_are_refused() {
    let cluster = Cluster::start(&["london"]);
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    let long_escaped = "%6b".repeat(KEY_BYTES_MAX + 1);
    for raw in ["", ".", "..", "%2e", "%2E", "%2e%2E", ".%2e", "%2e.", &long, &long_escaped] {
        for method in ["PUT", "GET", "DELETE"] {
            let answer = cluster[0].http(method, &format!("/v1/entries/{raw}"), b"");
            assert_eq!((answer.status, answer.code().as_str()), (400, "bad_key"), "{raw}");
        }
    }
    let client = cluster.client("london");
    for key in ["", ".", ".."] {
        for result in [client.get(key).wait().map(drop), client.put(key, "x", 60).wait().map(drop)]
        {
            let error = result.expect_err("refused");
            assert!(matches!(error, Error::InvalidKey(_)), "{error}");
        }
    }
    // The nodes decide on the longest key.
    let error = client.put(&long, "x", 60).wait().expect_err("refused by the node");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let error = client.delete(&long).wait().expect_err("refused by the node");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(cluster[0].stat("entries"), 0);
}
