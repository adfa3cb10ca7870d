//! Writes and reads snapshots, whole and damaged.

use std::{fs, path::Path};

use bytes::Bytes;
use zerocache_core::{
    entry::{Change, Record},
    key::{Key, KeyHash},
    store::StoredItem,
    time::Instant,
    version::Version,
};

use super::*;

const WRITTEN: Now = Now { mono: Instant::from_millis(5_000), wall_ms: 1_800_000_000_000 };
const RETENTION_MS: u64 = 3_600_000;

fn later(ms: u64) -> Now {
    // The monotonic clock of another process has another origin.
    Now { mono: Instant::from_millis(77), wall_ms: WRITTEN.wall_ms + ms }
}

fn version(n: u64) -> Version {
    Version::new((WRITTEN.wall_ms - n) << Version::COUNTER_BITS, Incarnation(3))
}

fn value(name: &str, bytes: usize, lives_until: Instant) -> StoredItem {
    let key = Key::within(Bytes::copy_from_slice(name.as_bytes()), 1_024).unwrap();
    let value = Bytes::from(vec![b'v'; bytes]);
    let metadata = Bytes::from_static(b"m");
    let change = Change::Put { value, metadata, expires: lives_until };
    StoredItem::Value(Record { key, version: version(9), change })
}

fn state() -> PersistedState {
    let age = SyncAge { node: Incarnation(8), age_ms: 400, lived_ms: 90_000 };
    let line = Lineage { origin: Incarnation(4), age_ms: 95_000 };
    let (node, retention_ms) = (Incarnation(3), RETENTION_MS);
    PersistedState {
        node,
        lived_ms: 70_000,
        lineage: line,
        away_ms: 0,
        retention_ms,
        sync_ages: vec![age],
        clock_offset_ms: -3_000,
        is_placed: true,
        lacks_values: true,
    }
}

fn written(path: &Path, shards: Vec<Vec<StoredItem>>) -> u64 {
    let contents = Contents {
        cluster: "zerocache",
        now: WRITTEN,
        retention_ms: RETENTION_MS,
        state: state(),
        shards: shards.into_iter(),
    };
    write(path, contents).unwrap()
}

fn some() -> Vec<Vec<StoredItem>> {
    let expires = WRITTEN.mono.plus_ms(10_000);
    let many = (0..5_000).map(|n| value(&format!("k{n}"), 300, expires)).collect();
    vec![
        many,
        Vec::new(),
        vec![value("large", 3 << 20, expires), StoredItem::Tombstone(KeyHash(5), version(2))],
    ]
}

fn restored(path: &Path, now: Now) -> Result<(Vec<StoredItem>, PersistedState), SnapshotError> {
    let mut all = Vec::new();
    let state = read(path, "zerocache", now, |items| all.extend(items))?;
    Ok((all, state))
}

#[test]
fn written_snapshot_is_read_with_its_age() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    assert_eq!(written(&path, some()), 5_002);
    assert!(!write::with_suffix(&path, write::NEW).exists());
    let (all, read_state) = restored(&path, later(2_500)).unwrap();
    let expires = later(0).mono.plus_ms(7_500);
    let expected = some().into_iter().flatten().map(|known| match known {
        StoredItem::Value(mut record) => {
            let Change::Put { expires: at, .. } = &mut record.change else { panic!("a value") };
            *at = expires;
            StoredItem::Value(record)
        }
        trace => trace,
    });
    assert!(all == expected.collect::<Vec<_>>());
    assert_eq!(read_state, PersistedState { away_ms: 2_500, ..state() });
}

#[test]
fn old_foreign_or_future_snapshot_is_not_used() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    assert!(matches!(restored(&path, later(0)), Err(SnapshotError::Missing)));
    written(&path, some());
    let too_old = restored(&path, later(RETENTION_MS + 1));
    assert!(matches!(too_old, Err(SnapshotError::TooOld { .. })));
    let before = Now { wall_ms: WRITTEN.wall_ms - 100_000, ..WRITTEN };
    assert!(matches!(restored(&path, before), Err(SnapshotError::FromTheFuture(100_000))));
    let other = read(&path, "another", later(0), |_| panic!("nothing is handed out"));
    assert!(matches!(other, Err(SnapshotError::OtherCluster(_))));
    fs::write(&path, "something else").unwrap();
    assert!(matches!(restored(&path, later(0)), Err(SnapshotError::UnknownFormat)));
}

#[test]
fn damaged_snapshot_is_not_used_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    let expires = WRITTEN.mono.plus_ms(10_000);
    written(&path, vec![vec![value("a", 40, expires), value("b", 40, expires)]]);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        for damaged in [whole[..at].to_vec(), {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            flipped
        }] {
            fs::write(&path, damaged).unwrap();
            let result = read(&path, "zerocache", later(0), |_| panic!("handed out at {at}"));
            assert!(result.is_err(), "at {at}");
        }
    }
    let mut longer = whole.clone();
    longer.push(0);
    fs::write(&path, longer).unwrap();
    assert!(restored(&path, later(0)).is_err());
}

#[test]
fn failed_write_keeps_the_previous_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    written(&path, some());
    // A directory has the name of the temporary file.
    fs::create_dir(write::with_suffix(&path, write::NEW)).unwrap();
    let contents = Contents {
        cluster: "zerocache",
        now: WRITTEN,
        retention_ms: RETENTION_MS,
        state: state(),
        shards: some().into_iter(),
    };
    assert!(matches!(write(&path, contents), Err(SnapshotError::Io(_))));
    assert_eq!(restored(&path, later(0)).unwrap().0.len(), 5_002);
}

#[test]
fn snapshot_is_used_by_one_incarnation_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    written(&path, some());
    let file = SnapshotFile::take(path.clone());
    // An incarnation that ends from here on leaves no snapshot, whatever it has read.
    assert!(!path.exists());
    assert!(!SnapshotFile::take(path.clone()).is_taken());
    let mut entries = 0;
    file.read("zerocache", later(0), |known| entries += known.len()).unwrap();
    assert_eq!(entries, 5_002);
    let again = file.read("zerocache", later(0), |_| panic!("handed out twice"));
    assert!(matches!(again, Err(SnapshotError::Missing)));
    file.put_back();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn unused_snapshot_is_put_back_and_foreign_file_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("snapshot");
    written(&path, some());
    let whole = fs::read(&path).unwrap();
    SnapshotFile::take(path.clone()).put_back();
    assert_eq!(fs::read(&path).unwrap(), whole);
    fs::write(&path, "something else").unwrap();
    let file = SnapshotFile::take(path.clone());
    let foreign = file.read("zerocache", later(0), |_| panic!("it is none"));
    assert!(matches!(foreign, Err(SnapshotError::UnknownFormat)));
    assert_eq!(fs::read(write::with_suffix(&path, ".taken")).unwrap(), b"something else");
}

#[test]
fn path_that_cannot_be_written_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("snapshot");
    write::check_writable(&path).expect("a directory that is there");
    assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);
    assert!(write::check_writable(&directory.path().join("missing").join("snapshot")).is_err());
    assert!(write::check_writable(directory.path()).is_err(), "a directory is no file");
}

#[test]
fn snapshot_is_for_its_own_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("snapshot");
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    for wide in [&path, &write::with_suffix(&path, write::NEW)] {
        fs::write(wide, "old").expect("written");
        fs::set_permissions(wide, fs::Permissions::from_mode(0o644)).expect("set");
    }
    let taken = SnapshotFile::take(path.clone());
    assert_eq!(mode(&write::with_suffix(&path, ".taken")), 0o600);
    drop(taken);
    written(&path, some());
    assert_eq!(mode(&path), 0o600);
}
