use alloc::{string::String, vec};

use bytes::Bytes;

use super::*;
use crate::{
    condition::{Condition, ConditionalOp, ConditionalWrite},
    key::Key,
    locate::Spread,
    purge::{PurgeMode, PurgeTarget},
    store::CopyRange,
    ttl::Ttl,
    version::{Incarnation, Version, VersionSource},
    wire::{Ack, Envelope, Hello, Resolution, Window},
};

fn secret(byte: u8) -> Secret {
    Secret::from_random([byte; SECRET_BYTES])
}

fn fields() -> TokenFields {
    TokenFields {
        id: TokenId([1, 2, 3, 4, 5, 6, 7, 8]),
        name: "orders".into(),
        role: Role::Write,
        prefixes: vec![Prefix::Text("orders/".into()), Prefix::Memo("orders".into())],
        not_after_s: 1_000,
        cluster: "zerocache".into(),
        ca: [7; 32],
    }
}

#[test]
fn secret_reads_back_and_typing_errors_are_found() {
    let text = secret(9).to_text();
    assert_eq!(text.parse(), Ok(secret(9)));
    for at in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("text");
        assert_eq!(changed.parse::<Secret>(), Err(InvalidSecret), "character {at}");
        assert!(text[..at].parse::<Secret>().is_err(), "{at} characters");
    }
    for wrong in ["", "a passphrase of more than 32 characters", "zcs1_"] {
        assert!(wrong.parse::<Secret>().is_err(), "{wrong}");
    }
}

#[test]
fn formats_are_pinned() {
    assert_eq!(secret(9).to_text(), "zcs1_CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQl1Hrft");
    assert_eq!(
        fields().sign(&secret(9).token_key()).expect("a token"),
        "zc1_AQgBAgMEBQYHCAIGb3JkZXJzAwV3cml0ZQQHb3JkZXJzLwQLbWVtbzpvcmRlcnMFAugHBgl6ZXJvY2FjaGUHIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHwp7JYXnq6GMb38VByGsOA66ugOZED7E1S9Bo34zmVEk"
    );
}

#[test]
fn token_grants_what_was_signed() {
    let key = secret(9).token_key();
    let token: Token = fields().sign(&key).expect("a token").parse().expect("a token");
    assert_eq!(token.fields(), &fields());
    let keys = [secret(8).token_key(), key];
    let grant = token.verify(&keys, "zerocache", 1_000).expect("valid");
    assert_eq!(grant, Grant::scoped(Role::Write, fields().prefixes));
    assert_eq!(token.verify(&keys, "zerocache", 1_001), Err(Denial::Expired));
    assert_eq!(token.verify(&keys, "other", 1), Err(Denial::Wrong));
    assert_eq!(token.verify(&keys[..1], "zerocache", 1), Err(Denial::Wrong));
    assert_eq!(token.verify(&[], "zerocache", 1), Err(Denial::Wrong));
    assert!(!alloc::format!("{token:?}").contains(&token.as_text()[8..]));
}

#[test]
fn changed_and_truncated_tokens_are_refused() {
    let keys = [secret(9).token_key()];
    let text = fields().sign(&keys[0]).expect("a token");
    let is_accepted = |text: &str| {
        let token = text.parse::<Token>();
        token.is_ok_and(|token| token.verify(&keys, "zerocache", 1).is_ok())
    };
    assert!(is_accepted(&text));
    for at in 0..text.len() {
        assert!(!is_accepted(&text[..at]), "{at} characters");
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("text");
        assert!(!is_accepted(&changed), "character {at}");
    }
}

#[test]
fn token_cannot_be_a_node() {
    let key = secret(9).token_key();
    for role in [Role::Node, Role::None, Role::All] {
        assert!(TokenFields { role, ..fields() }.sign(&key).is_err());
    }
}

#[test]
fn prefixes_cover_their_keys_only() {
    let text = Prefix::Text("orders/".into());
    assert!(text.covers(b"orders/1") && text.covers(b"orders/"));
    assert!(!text.covers(b"orders") && !text.covers(b"xorders/1"));
    let memo = Prefix::Memo("ab".into());
    for scheme in [0x01, 0x02, 0xfe] {
        assert!(memo.covers(&[scheme, 2, b'a', b'b', 0]));
        assert!(!memo.covers(&[scheme, 3, b'a', b'b', b'c']));
        assert!(!memo.covers(&[scheme, 1, b'a', b'b']));
        assert!(!memo.covers(&[scheme, 2, b'a']));
    }
    assert!(!memo.covers(b"\x20\x02ab") && !memo.covers(b""));
    for prefix in ["orders/", "memo:orders", "memo:"] {
        let parsed: Prefix = prefix.parse().expect("a prefix");
        assert_eq!(parsed.to_string(), prefix);
    }
    assert!("".parse::<Prefix>().is_err() && "memo:a b".parse::<Prefix>().is_err());
    assert!("x".repeat(PREFIX_BYTES_MAX + 1).parse::<Prefix>().is_err());
}

fn hello(node: Option<crate::wire::NodeInfo>) -> Request {
    Request::Hello(Box::new(Hello { node, ..Hello::of_client("zerocache", "oslo", 0) }))
}

/// One request of each kind on the key `k`, with the least role that may send it.
fn requests() -> Vec<(Request, &'static [Role])> {
    const READERS: &[Role] = &[Role::Read, Role::Write, Role::Node, Role::Admin, Role::All];
    const WRITERS: &[Role] = &[Role::Write, Role::Node, Role::Admin, Role::All];
    const CONNECTED: &[Role] =
        &[Role::Read, Role::Write, Role::Node, Role::Monitor, Role::Admin, Role::All];
    const NODES: &[Role] = &[Role::Node, Role::All];
    const INSPECTORS: &[Role] = &[Role::Node, Role::Admin, Role::All];
    let key = || Key::within(Bytes::from_static(b"k"), 8).expect("a key");
    let node = crate::wire::NodeInfo {
        incarnation: Incarnation(1),
        region: "oslo".into(),
        zone: None,
        addresses: Vec::new(),
        state: crate::wire::NodeState::InSync,
        bytes_max: 0,
        name: None,
        replicas: crate::cluster::Replicas::All,
    };
    let (value, metadata) = (Bytes::new(), Bytes::new());
    let ttl = Ttl::from_millis(1_000).expect("a lifetime");
    let put = Request::Put {
        key: key(),
        value,
        metadata,
        ttl,
        ack: Ack::Local,
        version: VersionSource::Accepted,
    };
    let window = Window { from: 0, to: 1 };
    let lease = Request::Lease { key: key(), lease_ms: 0, wait_ms: 0, newer_than: None };
    let token = Version::new(1, Incarnation(1));
    vec![
        (hello(None), CONNECTED),
        (hello(Some(node)), NODES),
        (Request::Ping, CONNECTED),
        (Request::Goodbye, NODES),
        (Request::Get { key: key() }, READERS),
        (put, WRITERS),
        (Request::Delete { key: key(), ack: Ack::Local }, WRITERS),
        (take(key()), WRITERS),
        (Request::Replicate(Vec::new()), NODES),
        (Request::Watch { view: 0 }, CONNECTED),
        (lease, WRITERS),
        (Request::Release { key: key(), token, failed: false }, WRITERS),
        (Request::Follow { since: 0, with_purges: true }, READERS),
        (Request::Listen { since: 0, at_once: true }, READERS),
        (purge(PurgeTarget::Everything, 0), WRITERS),
        (locate(key()), READERS),
        (locate(PurgeTarget::Everything.key(PurgeMode::Soft)), WRITERS),
        (Request::Gossip(Bytes::new()), NODES),
        (
            Request::Digests { window, resolution: Resolution::Blocks, last_sync_ms: None },
            INSPECTORS,
        ),
        (Request::BucketVersions(Vec::new()), INSPECTORS),
        (Request::KeyVersions(Vec::new()), INSPECTORS),
        (Request::Fetch(Vec::new()), NODES),
        (Request::Adopt(Vec::new()), NODES),
        (Request::Offer(Vec::new()), NODES),
        (copy(), NODES),
    ]
}

fn copy() -> Request {
    let range = CopyRange::default();
    Request::Copy { first_shard: 0, last_shard: 1, range, owned: false }
}

fn take(key: Key) -> Request {
    let (condition, op, ack) = (Condition::Present, ConditionalOp::Take, Ack::Local);
    Request::Conditional(Box::new(ConditionalWrite { key, condition, op, ack }))
}

fn purge(target: PurgeTarget, hold_ms: u64) -> Request {
    Request::Purge { target, mode: PurgeMode::Hard, hold_ms, ack: Ack::Local, replayed: None }
}

fn locate(key: Key) -> Request {
    Request::Locate { keys: vec![key], digest: true, spread: Spread::Cluster }
}

#[test]
fn scoped_caller_locates_its_own_keys_and_purges_alone() {
    let prefixes = ["orders/", "memo:shop"].map(|prefix| prefix.parse().expect("a prefix"));
    let grant = Grant::scoped(Role::Write, prefixes.into());
    let key = |text: &'static str| Key::within(Bytes::from(text), 64).expect("a key");
    let permits = |key| grant.permits(Operation::of(&locate(key))).is_ok();
    assert!(permits(key("orders/1")) && !permits(key("customers/1")));
    assert!(!permits(key("\0zerocache\0other")));
    let purge = |target: PurgeTarget| target.key(PurgeMode::Hard);
    assert!(permits(purge(PurgeTarget::Namespace("shop".into()))));
    assert!(!permits(purge(PurgeTarget::Everything)));
    // All keys of a request.
    let keys = vec![key("orders/1"), key("customers/1")];
    let both = Request::Locate { keys, digest: false, spread: Spread::Node };
    assert_eq!(grant.permits(Operation::of(&both)), Err(Denial::Forbidden));
}

#[test]
fn scoped_caller_purges_its_own_namespaces_alone() {
    let prefixes = ["orders/", "memo:shop"].map(|prefix| prefix.parse().expect("a prefix"));
    let grant = Grant::scoped(Role::Write, prefixes.into());
    let permits = |target, hold_ms| grant.permits(Operation::of(&purge(target, hold_ms))).is_ok();
    let own = || PurgeTarget::Namespace("shop".into());
    let function =
        |namespace: &str| PurgeTarget::Function { namespace: namespace.into(), id: [1; 16] };
    assert!(permits(own(), 0) && permits(function("shop"), 0));
    assert!(!permits(own(), 1_000), "what is held up has any key");
    assert!(!permits(function(""), 0) && !permits(function("shops"), 0));
    assert!(!permits(PurgeTarget::Everything, 0));
    assert!(!permits(PurgeTarget::tag("orders/1").expect("a tag"), 0));
}

#[test]
fn every_request_kind_needs_its_role() {
    for (request, permitted) in requests() {
        for role in Role::ALL {
            let expected = match role {
                _ if permitted.contains(&role) => Ok(()),
                Role::None => Err(Denial::Missing),
                _ => Err(Denial::Forbidden),
            };
            let grant = Grant::new(role);
            assert_eq!(grant.permits(Operation::of(&request)), expected, "{role} {request:?}");
            let from = Some(Incarnation(5));
            let envelope = Envelope { from, ..Envelope::default() };
            let message = RequestMessage { envelope, request: request.clone() };
            let in_the_name_of_a_node = grant.permits_message(&message);
            assert_eq!(
                in_the_name_of_a_node.is_ok(),
                role.includes(Role::Node),
                "{role} {request:?}"
            );
        }
    }
}

#[test]
fn scoped_grant_permits_its_keys_only() {
    let prefixes = || vec![Prefix::Text("a/".into()), Prefix::Text("b/".into())];
    let grant = Grant::scoped(Role::Write, prefixes());
    for (key, permitted) in [(&b"a/1"[..], true), (b"b/", true), (b"c/1", false), (b"a", false)] {
        assert_eq!(grant.permits(Operation::Read(key)).is_ok(), permitted);
        assert_eq!(grant.permits(Operation::Write(key)).is_ok(), permitted);
    }
    assert_eq!(grant.permits(Operation::Follow), Err(Denial::Forbidden));
    assert_eq!(grant.permits(Operation::Connect), Ok(()));
    let admin = Grant::scoped(Role::Admin, prefixes());
    assert_eq!(admin.permits(Operation::Inspect), Err(Denial::Forbidden));
    assert_eq!(admin.permits(Operation::Administer), Err(Denial::Forbidden));
    assert_eq!(admin.permits(Operation::List), Ok(()));
    assert!(admin.covers(b"a/1") && !admin.covers(b"c/1"));
    assert_eq!(grant.permits(Operation::List), Err(Denial::Forbidden));
}

#[test]
fn denials_have_codes_of_their_own() {
    for denial in Denial::ALL {
        assert_eq!(Denial::from_refusal_code(denial.refusal_code()), Some(denial));
    }
    assert_eq!(Denial::from_refusal_code(RefusalCode::Overloaded), None);
}
