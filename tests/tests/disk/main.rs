//! Nodes whose memory overflows to disk: what they serve, what survives their ends, and what a bad disk does.

mod crashes;
mod directories;
mod faults;

use std::path::Path;
use std::process::ExitStatus;

use tempfile::TempDir;
use zerocache_tests::node::Node;
use zerocache_tests::poll::until_true;
use zerocache_tests::setup::Setup;

const REGION: &str = "oslo";

/// The bytes of a value: far more of them than memory holds.
const VALUE_BYTES: usize = 16 << 10;

/// A node with little memory and this directory, which takes all evicted values.
fn setup(directory: &Path) -> Setup {
    let setup = Setup { max_bytes: "16MiB", ..Setup::new(REGION) };
    let setup = setup.flag("--disk", directory.display()).flag("--disk-bytes", "256MiB");
    setup.flag("--disk-admit", "all").flag("--drain", "0s")
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn start(setup: &Setup) -> Node {
    let node = setup.clone().start();
    until_true("the node is ready", || node.is_ready());
    node
}

/// Starts a node again, at its address.
fn restart(setup: &Setup, before: &Node) -> Node {
    start(&Setup { listen: before.address(), ..setup.clone() })
}

fn end(node: &mut Node) -> ExitStatus {
    node.shut_down();
    node.ended()
}

fn key(n: usize) -> Vec<u8> {
    format!("key-{n}").into_bytes()
}

/// The value of a key that was written for the `round`th time: it names both, all through.
fn value(n: usize, round: usize) -> Vec<u8> {
    let unit = format!("[{n}:{round}]");
    unit.bytes().cycle().take(VALUE_BYTES).collect()
}

/// The round of a value of a key.
///
/// # Panics
///
/// If it is not one of that key, or damaged.
fn round_of(n: usize, bytes: &[u8]) -> usize {
    let text = std::str::from_utf8(bytes).expect("text");
    let unit = text.split_once(']').expect("a unit").0;
    let (key, round) = unit.trim_start_matches('[').split_once(':').expect("two numbers");
    let (key, round): (usize, usize) =
        (key.parse().expect("a key"), round.parse().expect("a round"));
    assert_eq!(key, n, "the value of another key");
    assert!(bytes == value(n, round), "the value of key {n} is damaged");
    round
}

/// Writes keys, and returns how many of them the node has then.
fn fill(node: &Node, keys: std::ops::Range<usize>) -> usize {
    for n in keys.clone() {
        node.put(&key(n), &value(n, 0), "ttl=3600");
    }
    hits(node, keys)
}

/// Returns how many of these keys the node has. Every value must be right.
fn hits(node: &Node, keys: std::ops::Range<usize>) -> usize {
    let has = |n: &usize| node.value(&key(*n)).is_some_and(|value| round_of(*n, &value) == 0);
    keys.filter(has).count()
}

#[test]
fn values_beyond_memory_are_served_and_survive_a_crash_and_a_shutdown() {
    let directory = directory();
    let setup = setup(directory.path());
    let mut node = start(&setup);
    node.put(b"small", b"a value that stays in memory", "ttl=3600");
    let held = fill(&node, 0..3_000);
    let skipped = node.stat("disk_skipped") as usize;
    assert!(held + skipped >= 3_000, "{held} held, {skipped} not written in time");
    assert!(held > 2_500, "memory holds 900 of 3,000, and the disk {held}");
    assert!(node.stat("bytes") <= 16 << 20 && node.stat("disk_entries") > 1_500);

    node.kill();
    let mut node = restart(&setup, &node);
    let after_crash = hits(&node, 0..3_000);
    assert!(after_crash * 100 >= (held - 1_000) * 95, "{after_crash} of {held} after a crash");
    assert!(node.value(b"small").is_none(), "it was in memory alone");
    node.put(b"small", b"once more", "ttl=3600");

    assert!(end(&mut node).success());
    let node = restart(&setup, &node);
    assert_eq!(hits(&node, 0..3_000), after_crash, "a shutdown loses nothing");
    assert_eq!(node.value(b"small").as_deref(), Some(&b"once more"[..]));
    assert_eq!(node.stat("disk_errors"), 0);
}

#[test]
fn purged_and_expired_values_stay_gone() {
    let directory = directory();
    let setup = setup(directory.path());
    let mut node = start(&setup);
    for n in 0..1_500 {
        let tag = if n % 2 == 0 { "even" } else { "odd" };
        node.put(&key(n), &value(n, 0), &format!("ttl=3600&tags={tag}"));
    }
    assert!(hits(&node, 0..1_500) > 1_200);
    let purged = node.http("POST", "/v1/tags/even/purge", b"");
    assert_eq!(purged.status, 200, "{}", purged.json());
    let odd = hits(&node, 0..1_500);
    assert!((0..1_500).step_by(2).all(|n| node.value(&key(n)).is_none()));
    node.kill();
    let node = restart(&setup, &node);
    assert!(
        (0..1_500).step_by(2).all(|n| node.value(&key(n)).is_none()),
        "purged before the crash"
    );
    assert!(hits(&node, 0..1_500) * 100 >= (odd - 500) * 95);
}
