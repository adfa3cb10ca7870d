//! Disks that are full, damaged, or gone: nothing fails, and nothing wrong is served.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use zerocache_tests::namespace;
use zerocache_tests::poll::until_true;

use super::{directory, fill, hits, key, restart, round_of, setup, start, value};

fn segments(directory: &Path) -> Vec<PathBuf> {
    let files =
        fs::read_dir(directory).expect("the directory").map(|file| file.expect("a file").path());
    let mut segments: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|end| end == "seg")).collect();
    segments.sort();
    segments
}

/// Damages bytes in the midst of each segment, and of what lists its records.
fn damage(directory: &Path) {
    for segment in segments(directory) {
        let file = OpenOptions::new().read(true).write(true).open(&segment).expect("a segment");
        let length = file.metadata().expect("its length").len();
        for at in (1..10).map(|part| length / 10 * part) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("a byte");
            file.write_all_at(&[byte[0] ^ 0x40], at).expect("written");
        }
    }
}

#[test]
fn full_file_system_fails_no_request() {
    namespace::run("faults::full_file_system_fails_no_request", || {
        let directory = directory();
        let path = directory.path().display();
        namespace::script(&format!("mount -t tmpfs -o size=64m tmpfs {path}"));
        fs::write(directory.path().join("of-somebody-else"), vec![7; 40 << 20]).expect("written");
        let node = start(&setup(directory.path()));
        let held = fill(&node, 0..4_000);
        assert!(held >= 700, "memory alone holds more than {held}");
        assert!(node.stat("disk_bytes") <= 24 << 20);
        fs::write(directory.path().join("more"), vec![7; 16 << 20]).expect_err("there is no room");
        fill(&node, 4_000..6_000);
        for n in (0..6_000).step_by(7) {
            node.delete(&key(n), "");
        }
        assert!((0..6_000).step_by(7).all(|n| node.value(&key(n)).is_none()));
    });
}

#[test]
fn damaged_values_are_not_served_and_come_back_from_a_peer() {
    let (directory, other) = (directory(), super::directory());
    let peer = start(&setup(other.path()));
    let node = start(&setup(directory.path()).flag("--seed", peer.address()));
    for n in 0..2_000 {
        node.put(&key(n), &value(n, 0), "ttl=3600&ack=region");
    }
    let (held, at_peer) = (hits(&node, 0..2_000), hits(&peer, 0..2_000));
    assert!(held > 1_500 && at_peer > 1_500);
    damage(directory.path());
    // Every value that is served is right; `hits` checks that.
    hits(&node, 0..2_000);
    assert!(node.stat("disk_errors") > 0, "nothing damaged was read");
    let in_both = |n: &usize| peer.value(&key(*n)).is_some();
    until_true("what was damaged is repaired", || {
        let missing = (0..2_000).filter(in_both).filter(|n| node.value(&key(*n)).is_none()).count();
        missing <= 20
    });
}

#[test]
fn damaged_disk_of_a_lone_node_serves_nothing_wrong_after_a_restart() {
    let directory = directory();
    let setup = setup(directory.path());
    let mut node = start(&setup);
    fill(&node, 0..2_000);
    for n in (0..2_000).step_by(3) {
        node.put(&key(n), &value(n, 1), "ttl=3600");
    }
    node.kill();
    damage(directory.path());
    let node = restart(&setup, &node);
    for n in 0..2_000 {
        let Some(bytes) = node.value(&key(n)) else { continue };
        assert_eq!(round_of(n, &bytes), usize::from(n % 3 == 0), "key {n}");
    }
}

#[test]
fn directory_that_is_removed_fails_no_request() {
    let directory = directory();
    let path = directory.path().join("disk");
    let mut node = start(&setup(&path));
    fill(&node, 0..1_500);
    fs::remove_dir_all(&path).expect("removed");
    fill(&node, 1_500..4_000);
    hits(&node, 0..4_000);
    assert!(node.is_running());
}
