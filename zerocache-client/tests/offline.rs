//! Clients without a network: what they keep is in this process, and no other client sees it.

#![cfg(feature = "macros")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{bounded, log};
use zerocache_client::ops::{ConditionalOutcome, Taken};
use zerocache_client::{Status, Value, ZerocacheClient, report::CallOutcome, zerocache};

fn offline() -> ZerocacheClient {
    ZerocacheClient::builder("london").offline(true).build().expect("the configuration is allowed")
}

/// Held by tests that open sockets in this process, or look for them.
static SOCKETS: Mutex<()> = Mutex::new(());

/// Returns the inodes of the sockets of this process.
fn sockets() -> BTreeSet<String> {
    let own = std::fs::read_dir("/proc/self/fd").expect("Linux tells").filter_map(|entry| {
        let target = std::fs::read_link(entry.ok()?.path()).ok()?;
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    });
    let own: BTreeSet<String> = own.collect();
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(|table| format!("/proc/self/net/{table}"));
    let tables = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok());
    let rows: Vec<String> =
        tables.flat_map(|table| table.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let inode = |row: &String| row.split_whitespace().nth(9).map(str::to_owned);
    rows.iter().filter_map(inode).filter(|inode| own.contains(inode)).collect()
}

#[zerocache(cache, 60, skip(cache, runs))]
async fn plain(cache: &ZerocacheClient, runs: &AtomicUsize, n: u64) -> usize {
    runs.fetch_add(1, Ordering::SeqCst)
}

#[zerocache(cache, 60, skip(cache, runs), near, lease = region, stale(while = 60), tags = ["a"])]
async fn with_everything(cache: &ZerocacheClient, runs: &AtomicUsize, n: u64) -> usize {
    runs.fetch_add(1, Ordering::SeqCst)
}

#[tokio::test]
async fn offline_client_memoizes_and_invalidates_alone() {
    bounded(async {
        let (one, other) = (offline(), offline());
        let runs = AtomicUsize::new(0);
        for _ in 0..3 {
            assert_eq!(plain(&one, &runs, 1).await, 0);
        }
        assert_eq!(plain(&other, &runs, 1).await, 1, "another client has another cache");
        assert_eq!(plain(&one, &runs, 1).peek().await.expect("it is there"), Some(0));
        plain(&one, &runs, 1).invalidate().await.expect("it is there");
        assert_eq!(plain(&one, &runs, 1).peek().await.expect("it is there"), None);
        assert_eq!(plain(&one, &runs, 1).await, 2);
        assert_eq!(plain(&other, &runs, 1).await, 1);
        let stats = one.memo_stats();
        assert_eq!((stats.hits, stats.computed, stats.stored), (2, 2, 2));
        assert_eq!((stats.read_errors, stats.write_errors), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn offline_client_has_leases_tags_and_a_near_cache() {
    bounded(async {
        let (cache, runs) = (offline(), AtomicUsize::new(0));
        let (value, report) = with_everything(&cache, &runs, 1).explain().await;
        assert_eq!((value, report.outcome), (0, CallOutcome::Miss));
        assert_eq!(cache.memo_stats().leases_granted, 1);
        assert_eq!(with_everything(&cache, &runs, 1).await, 0);
        let key = with_everything(&cache, &runs, 1).key().expect("it has one");
        let entry = cache.get(&key).entry().await.expect("it is there").expect("it is stored");
        assert_eq!(entry.metadata.tags(), ["a"]);
        // The near cache is there once changes are followed.
        while cache.near_stats().hits == 0 {
            assert_eq!(with_everything(&cache, &runs, 1).await, 0);
            tokio::task::yield_now().await;
        }
        with_everything(&cache, &runs, 1).invalidate().await.expect("it is there");
        assert_eq!(with_everything(&cache, &runs, 1).await, 1);
    })
    .await;
}

#[test]
fn everything_works_without_a_runtime_and_without_a_socket() {
    support::in_time(|| {
        let _sockets = SOCKETS.lock();
        let before = sockets();
        let cache = offline();
        cache.wait_ready(Duration::from_secs(5)).expect("it is there at once");
        let written = cache.put("a", Value(&7_u8), 60).wait().expect("it is there");
        assert_eq!((written.status, written.replicas), (Status::Stored, 1));
        assert_eq!(cache.get("a").value::<u8>().wait().expect("it is there"), Some(7));
        assert_eq!(cache.get("b").wait().expect("it is there"), None);
        cache.put_many([("a", "1"), ("b", "2")], 60).wait().expect("it is there");
        let found = cache.get_many(["a", "b", "c"]).wait().expect("it is there");
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false]);
        cache.delete("a").wait().expect("it is there");
        assert_eq!(cache.get("a").wait().expect("it is there"), None);
        let explained = cache.get("c").explain().wait().expect("it is there");
        assert!(matches!(explained.result, Ok(None)), "{}", explained.report);
        assert_eq!(explained.report.attempts.len(), 1, "a miss is one at once");
        assert_eq!(cache.nodes().len(), 1);
        assert!(sockets().is_subset(&before), "a client without a network has a socket");
    });
}

#[zerocache("paris", 60)]
async fn by_the_environment(n: u64) -> u64 {
    n
}

/// Says to a test that it runs in a process of its own.
const INSIDE: &str = "OFFLINE_TEST_INSIDE";

/// Runs `test` again in a process of its own, with these variables; there it is `body` that runs.
fn with_variables(
    test: &str,
    variables: impl FnOnce() -> Vec<(&'static str, String)>,
    body: impl Future<Output = ()>,
) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return runtime.expect("a runtime").block_on(bounded(body));
    }
    let program = std::env::current_exe().expect("it has a path");
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ZEROCACHE_") {
            command.env_remove(name);
        }
    }
    let ran = command.args(["--exact", test]).envs(variables()).env(INSIDE, "1").output();
    let ran = ran.expect("it runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn test_without_settings_is_offline_and_an_unknown_variable_is_named() {
    let test = "test_without_settings_is_offline_and_an_unknown_variable_is_named";
    let variables = || vec![("ZEROCACHE_SEEDS", "127.0.0.1:1".to_owned())];
    with_variables(test, variables, async {
        log::collect();
        let before = sockets();
        assert_eq!((by_the_environment(1).await, by_the_environment(1).await), (1, 1));
        let cache = ZerocacheClient::get_instance("paris");
        let stats = cache.memo_stats();
        assert_eq!((stats.hits, stats.computed, stats.read_errors), (1, 1, 0));
        assert!(sockets().is_subset(&before), "no socket is opened");
        let one = |text: &str| assert_eq!(log::warnings(text).len(), 1, "{text}");
        one(
            "ZEROCACHE_SEEDS is not a zerocache variable and is ignored; did you mean ZEROCACHE_SEED?",
        );
        one("ZEROCACHE_OFFLINE=false");
        let all = log::warnings("");
        assert_eq!(all.len(), 2, "{all:?}");
    });
}

#[test]
fn test_can_enable_the_network() {
    let _sockets = SOCKETS.lock();
    let mut node = None;
    let variables = || {
        let config = support::node_config("asked-for");
        let started = zerocache_server::EmbeddedNode::start(config, Duration::from_secs(10));
        let address = node.insert(started.expect("a node on a free port")).address();
        vec![
            ("ZEROCACHE_OFFLINE", "false".to_owned()),
            ("ZEROCACHE_CLUSTER", "asked-for".to_owned()),
            ("ZEROCACHE_DISCOVERY", "seeds".to_owned()),
            ("ZEROCACHE_SEED", address.to_string()),
        ]
    };
    with_variables("test_can_enable_the_network", variables, async {
        let seed = std::env::var("ZEROCACHE_SEED").expect("it is set");
        let cache = ZerocacheClient::get_instance("london");
        cache.put("a", "1", 60).await.expect("the node is there");
        let nodes: Vec<_> = cache.nodes().iter().map(|node| node.address.to_string()).collect();
        assert_eq!(nodes, [seed]);
    });
}

#[tokio::test]
async fn offline_client_writes_on_conditions() {
    bounded(async {
        let cache = offline();
        let current = |outcome| match outcome {
            ConditionalOutcome::NotMet { current } => current,
            other => panic!("{other:?}"),
        };
        let absent = |value: &'static str| cache.put("k", value, 60).if_absent();
        let first = absent("a").await.expect("a node").version().expect("it was absent");
        assert_eq!(current(absent("b").await.expect("a node")), Some(first));
        let second = cache.put("k", "b", 60).if_version(first).await.expect("a node");
        let second = second.version().expect("it had this version");
        assert!(second > first);
        let lost = cache.delete("k").if_version(first).await.expect("a node");
        assert_eq!(current(lost), Some(second));
        let touched = cache.touch("k", 300).await.expect("a node").version().expect("a value");
        let entry = cache.get("k").entry().await.expect("a node").expect("a value");
        assert_eq!((&entry.value[..], entry.version), (&b"b"[..], touched));
        assert!(entry.ttl > Duration::from_secs(200));
        let taken = cache.get_and_delete("k").await.expect("a node").entry().expect("a value");
        assert_eq!((&taken.value[..], taken.version), (&b"b"[..], touched));
        assert_eq!(cache.get_and_delete("k").await.expect("a node"), Taken::Missing);
        assert_eq!(current(cache.touch("k", 300).await.expect("a node")), None);
        assert_eq!(current(cache.put("k", "c", 60).if_present().await.expect("a node")), None);
        assert!(cache.touch("k", 0).await.is_err(), "no lifetime");
        assert!(cache.get_and_delete("").await.is_err(), "no key");
        let stats = cache.stats();
        assert_eq!((stats.stored, stats.not_met), (4, 5));
    })
    .await;
}

#[test]
fn one_of_many_tasks_puts_a_value_that_was_absent() {
    let cache = offline();
    let stored = std::thread::scope(|threads| {
        let put = |n: usize| cache.put("k", n.to_string(), 60).if_absent().wait();
        let threads: Vec<_> = (0..16).map(|n| threads.spawn(move || put(n))).collect();
        let outcomes = threads.into_iter().map(|thread| thread.join().expect("it ends"));
        outcomes.filter(|outcome| outcome.as_ref().expect("a node").is_stored()).count()
    });
    assert_eq!(stored, 1);
}
