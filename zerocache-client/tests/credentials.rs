//! Clients of a cluster with a secret.

#![cfg(feature = "macros")]

mod support;

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use support::{bounded, log, node_config};
use tempfile::TempDir;
use zerocache_client::{
    ClientBuilder, Error, ErrorKind, Status, ZerocacheClient, error::DenialReason,
    report::CallOutcome, zerocache,
};
use zerocache_core::access::{Prefix, Role, Secret, TokenFields, TokenId};
use zerocache_net::security::{Source, authority_hash};
use zerocache_server::EmbeddedNode;

const CLUSTER: &str = "with-a-secret";

/// Files of secrets and tokens of this process.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

/// The node behind all tests; it ends with the process.
static NODE: LazyLock<EmbeddedNode> = LazyLock::new(|| {
    let mut config = node_config(CLUSTER);
    config.secret = Some(Source::Value(secret(1).to_text()));
    EmbeddedNode::start(config, Duration::from_secs(10)).expect("a node on a free port")
});

fn secret(byte: u8) -> Secret {
    Secret::from_random([byte; 32])
}

/// Seconds since the Unix epoch.
fn now_s() -> u64 {
    zerocache_net::clock::now().wall_ms / 1_000
}

/// A token that `secret` signed and that ends so many seconds from now.
fn token(secret: &Secret, role: Role, prefixes: &[&str], left_s: i64) -> String {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse::<Prefix>().expect("a prefix"));
    let fields = TokenFields {
        id: TokenId([1; 8]),
        name: "test".to_owned(),
        role,
        prefixes: prefixes.collect(),
        not_after_s: now_s().saturating_add_signed(left_s),
        cluster: CLUSTER.to_owned(),
        ca: authority_hash(&self::secret(1)),
    };
    fields.sign(&secret.token_key()).expect("it is allowed")
}

fn builder() -> ClientBuilder {
    let seed = NODE.address().to_string();
    ZerocacheClient::builder("london").cluster(CLUSTER).mdns(false).seed(seed)
}

fn with_token(token: String) -> ZerocacheClient {
    builder().token(token).build().expect("it is allowed")
}

fn file(name: &str, content: &str) -> PathBuf {
    let path = FOLDER.path().join(name);
    std::fs::write(&path, content).expect("is written");
    path
}

fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> DenialReason {
    match result {
        Err(Error::Denied { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn client_with_a_token_alone_reads_and_writes() {
    bounded(async {
        let cache = with_token(token(&secret(1), Role::Write, &[], 600));
        cache.ready(Duration::from_secs(10)).await.expect("the node takes it");
        assert_eq!(
            cache.put("greeting", "hello", 60).await.expect("stores").status,
            Status::Stored
        );
        assert_eq!(cache.get("greeting").await.expect("reads").as_deref(), Some(&b"hello"[..]));
        assert_eq!(cache.stats().denied, 0);
    })
    .await;
}

#[tokio::test]
async fn client_with_the_secret_reads_and_writes() {
    bounded(async {
        let path = file("secret", &secret(1).to_text());
        let cache = builder().secret_file(path).build().expect("it is allowed");
        cache.put("by secret", "hello", 60).await.expect("stores");
        assert!(cache.get("by secret").await.expect("reads").is_some());
    })
    .await;
}

#[tokio::test]
async fn each_wrong_credential_has_its_reason() {
    bounded(async {
        for (cache, expected) in [
            (builder().build().expect("it is allowed"), DenialReason::Missing),
            (with_token(token(&secret(2), Role::Write, &[], 600)), DenialReason::Wrong),
            (with_token(token(&secret(1), Role::Write, &[], -5)), DenialReason::Expired),
        ] {
            assert_eq!(reason(cache.get("a").await), expected);
            assert_eq!(reason(cache.put("a", "b", 60).await), expected);
            assert_eq!(reason(cache.delete("a").await), expected);
            assert_eq!(reason(cache.get_many(["a", "b"]).await), expected);
            assert_eq!(reason(cache.ready(Duration::from_millis(50)).await), expected);
            let stats = cache.stats();
            assert!(stats.denied >= 5 && stats.unreachable == 0, "{stats:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn node_of_another_secret_is_not_sent_anything() {
    bounded(async {
        let path = file("foreign", &secret(3).to_text());
        let cache = builder().secret_file(path).build().expect("it is allowed");
        let error = cache.get("a").await.expect_err("it is not verified");
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let address = NODE.address();
        assert!(matches!(error, Error::Unverified { address: at } if at == address), "{error:?}");
        assert!(error.to_string().starts_with(&format!("cannot verify the node at {address}: ")));
    })
    .await;
}

#[tokio::test]
async fn scoped_client_uses_its_keys_alone_and_keeps_nothing_near() {
    bounded(async {
        let cache = with_token(token(&secret(1), Role::Write, &["orders/"], 600));
        cache.put("orders/1", "a", 60).await.expect("is its own");
        for _ in 0..20 {
            assert!(cache.get("orders/1").near().await.expect("is its own").is_some());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!((cache.near_stats().hits, cache.near_stats().entries), (0, 0));
        for key in ["orders", "invoices/1"] {
            assert_eq!(reason(cache.get(key).await), DenialReason::Forbidden);
            assert_eq!(reason(cache.put(key, "a", 60).await), DenialReason::Forbidden);
        }
        let many = cache.get_many(["orders/1", "invoices/1"]).each().await.expect("one is its own");
        assert!(many[0].is_ok());
        assert!(matches!(many[1], Err(Error::Denied { .. })), "{:?}", many[1]);
        // Others of the same cluster keep theirs to themselves.
        let reader = with_token(token(&secret(1), Role::Read, &[], 600));
        assert!(reader.get("orders/1").await.expect("reads").is_some());
        assert_eq!(reason(reader.put("orders/1", "b", 60).await), DenialReason::Forbidden);
        assert_eq!(reason(reader.delete("orders/1").await), DenialReason::Forbidden);
    })
    .await;
}

#[tokio::test]
async fn token_file_is_read_again() {
    bounded(async {
        let path = file("token", &token(&secret(1), Role::Write, &[], -5));
        let cache = builder().token_file(&path).build().expect("it is allowed");
        assert_eq!(reason(cache.get("rotated").await), DenialReason::Expired);
        replace(&path, &token(&secret(1), Role::Write, &[], 600));
        while let Err(error) = cache.put("rotated", "a", 60).await {
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Replaces a file as Kubernetes does, at once.
fn replace(path: &Path, content: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, content).expect("is written");
    std::fs::rename(beside, path).expect("is moved");
}

#[zerocache(cache, 60, skip(cache))]
async fn double(cache: &ZerocacheClient, n: u64) -> u64 {
    2 * n
}

#[tokio::test]
async fn memoized_function_computes_under_denial_and_says_it_once() {
    log::collect();
    bounded(async {
        let text = token(&secret(1), Role::Write, &["memo:shop"], 600);
        let shop = builder().token(text.clone()).namespace("shop").build().expect("it is allowed");
        assert_eq!((double(&shop, 1).await, double(&shop, 1).await), (2, 2));
        let stats = shop.memo_stats();
        assert_eq!((stats.computed, stats.hits, stats.denied), (1, 1, 0));
        assert_eq!(double(&shop, 1).explain().await.1.outcome, CallOutcome::Hit);

        let other = builder().token(text).namespace("shops").build().expect("it is allowed");
        for _ in 0..3 {
            assert_eq!(double(&other, 1).await, 2);
        }
        let stats = other.memo_stats();
        assert_eq!((stats.computed, stats.read_errors, stats.write_errors), (3, 3, 3));
        assert_eq!(stats.denied, 6);
        let said = log::warnings("a node denies this client what it asks for");
        let said: Vec<_> = said.iter().filter(|line| line.contains("forbidden")).collect();
        assert_eq!(said.len(), 1, "{said:?}");
    })
    .await;
}

#[test]
fn settings_that_cannot_be_are_refused_without_showing_them() {
    for (builder, part) in [
        (builder().token("zc1_hunter2"), "token: this is not a token"),
        (builder().token_file("/nowhere/token"), "/nowhere/token"),
        (builder().secret_file(file("no secret", "hunter2")), "no secret: this is not a secret"),
        (builder().tls_cert("/nowhere/cert"), "/nowhere/cert"),
    ] {
        assert!(!format!("{builder:?}").contains("hunter2"));
        let error = builder.build().expect_err("it is not allowed");
        assert_eq!(error.kind(), ErrorKind::Config);
        let error = error.to_string();
        assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
    }
}
