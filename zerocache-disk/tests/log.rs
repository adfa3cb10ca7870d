//! The log without faults: what it reads, recovers and removes.

mod common;

use common::{All, CLUSTER, append, hash, is_whole, open, options, version};
use zerocache_disk::{
    Address, Crash, Log, LogOptions, MemoryDirectory, OpenError, ReadError, SystemDirectory,
    WriteError,
};

#[test]
fn values_are_read_after_flush_and_after_reopening() {
    let place = tempfile::tempdir().unwrap();
    let options = options(1 << 20, 16);
    let (mut log, _) = open(SystemDirectory::open(place.path()).unwrap(), options).unwrap();
    let sizes = [0, 1, 2048, 100_000, 3_000_000];
    let addresses: Vec<Address> = (0..100)
        .map(|n| {
            append(&mut log, n, n + 1, sizes[if n == 50 { 4 } else { n as usize % 4 }]).unwrap()
        })
        .collect();
    log.append_erase((hash(7), version(8)), true).unwrap();
    log.append_note(b"purge").unwrap();
    log.flush().unwrap();
    let reader = log.reader();
    for n in 0..100 {
        assert!(is_whole(&reader, n, n + 1, addresses[n as usize]));
    }
    assert!(matches!(reader.read(addresses[1], hash(2), version(3)), Err(ReadError::Corrupt)));
    drop((log, reader));

    for closes in [true, false, true] {
        let directory = SystemDirectory::open(place.path()).unwrap();
        let (log, contents) = open(directory, options).unwrap();
        assert_eq!((contents.values.len(), contents.notes.len()), (99, 1));
        assert!(!contents.values.contains_key(&7));
        assert_eq!((log.stats().values, log.stats().damaged), (99, 0));
        for (key, (stamp, address)) in contents.values {
            assert_eq!(address, addresses[key as usize]);
            assert!(is_whole(&log.reader(), key, stamp, address));
        }
        if closes {
            log.close().unwrap();
        }
    }
}

#[test]
fn oldest_segment_goes_and_what_is_kept_moves() {
    let directory = MemoryDirectory::new();
    let (mut log, _) = open(directory.clone(), options(1 << 14, 16)).unwrap();
    let mut judge = All { keep: true, ..All::default() };
    let mut last = None;
    for n in 0..1000 {
        log.make_room(Log::<MemoryDirectory>::cost(8, 10, 1000), &mut judge).unwrap();
        last = Some(append(&mut log, n, n + 1, 1000).unwrap());
        assert!(directory.bytes() <= 16 << 14);
    }
    log.flush().unwrap();
    let stats = log.stats();
    assert!(
        stats.bytes_written < 1_250_000 * 4 / 3 && stats.bytes_reinserted > 100_000,
        "{stats:?}"
    );
    let gone = judge.moved.iter().filter(|(_, _, new)| new.is_none()).count();
    assert_eq!(stats.values as usize + gone, 1000);
    let (_, old, new) = judge.moved[judge.moved.len() - 20];
    assert!(matches!(log.reader().read(old, hash(0), version(1)), Err(ReadError::Gone)));
    assert!(new.is_none() || last.unwrap() > old);
    drop(log);
    directory.crash(Crash::Killed);
    let (log, contents) = open(directory, options(1 << 14, 16)).unwrap();
    assert_eq!(contents.values.len() as u64, stats.values);
    assert_eq!(log.stats().values, stats.values);
}

#[test]
fn erase_outlives_the_values_of_older_segments() {
    let directory = MemoryDirectory::new();
    let options = options(1 << 14, 16);
    let (mut log, _) = open(directory.clone(), options).unwrap();
    append(&mut log, 1, 1, 100).unwrap();
    let mut all: Vec<Address> = (2..20).map(|n| append(&mut log, n, n, 1000).unwrap()).collect();
    // The second segment replaces the value of the first, and is then dead itself.
    let second = append(&mut log, 1, 30, 1000).unwrap();
    assert_eq!(second.segment, 2);
    all.push(second);
    all.extend((40..60).map(|n| append(&mut log, n, n, 1000).unwrap()));
    for address in all.into_iter().filter(|address| address.segment == 2) {
        log.mark_dead(address);
    }
    log.make_room(0, &mut All::default()).unwrap();
    assert!(matches!(log.reader().read(second, hash(1), version(30)), Err(ReadError::Gone)));
    drop(log);
    let (_, contents) = open(directory, options).unwrap();
    assert!(!contents.values.contains_key(&1) && contents.values.contains_key(&2));
}

#[test]
fn directory_must_be_the_clusters_own() {
    let place = tempfile::tempdir().unwrap();
    let options = LogOptions::new(64 << 20);
    let directory = || SystemDirectory::open(place.path());
    let refused = |name: &str| Log::open(directory()?, name, options, &mut |_| {}).map(|_| ());
    refused(CLUSTER).unwrap();
    assert!(matches!(refused("other"), Err(OpenError::OtherCluster { .. })));

    let used = directory().unwrap();
    assert!(matches!(refused(CLUSTER), Err(OpenError::InUse(_))));
    drop(used);

    let format = place.path().join("format");
    let text = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, text.replace("zerocache-disk 1", "zerocache-disk 2")).unwrap();
    assert!(matches!(refused(CLUSTER), Err(OpenError::LaterFormat { found: 2, supported: 1 })));
    std::fs::write(&format, text.replace("cluster test", "cluster tent")).unwrap();
    assert!(matches!(refused("tent"), Err(OpenError::Unmarked)));
    std::fs::remove_file(&format).unwrap();
    std::fs::write(place.path().join("00000001.seg"), "").unwrap();
    assert!(matches!(refused(CLUSTER), Err(OpenError::Unmarked)));

    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(SystemDirectory::open(&file), Err(OpenError::NotDirectory(_))));
    assert!(matches!(SystemDirectory::open(file.join("below")), Err(OpenError::NotDirectory(_))));
    let small = Log::open(MemoryDirectory::new(), CLUSTER, LogOptions::new(1 << 20), &mut |_| {});
    assert!(matches!(small, Err(OpenError::Budget { .. })));
}

#[test]
fn unwritable_directory_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o500)).unwrap();
    if std::fs::write(place.path().join("probe"), "").is_ok() {
        println!("skipped: this user may write everywhere");
        return;
    }
    let refused = SystemDirectory::open(place.path());
    assert!(matches!(refused, Err(OpenError::NotWritable { .. })));
}

#[test]
fn state_is_replaced_and_checked() {
    let directory = MemoryDirectory::new();
    let (log, _) = open(directory.clone(), options(1 << 14, 16)).unwrap();
    assert_eq!(log.read_state().unwrap(), None);
    log.write_state(b"first").unwrap();
    log.write_state(b"second").unwrap();
    assert_eq!(log.read_state().unwrap().unwrap(), b"second");
    assert!(directory.flip("state", 6));
    assert_eq!(log.read_state().unwrap(), None);
}

#[test]
fn record_beyond_the_limit_is_refused() {
    let (mut log, _) = open(MemoryDirectory::new(), options(1 << 14, 16)).unwrap();
    let error = append(&mut log, 1, 1, 1 << 16).unwrap_err();
    assert!(matches!(error, WriteError::TooLarge { .. }) && !error.is_full());
    assert!(matches!(log.append_note(&[0; 1 << 20]), Err(WriteError::TooLarge { .. })));
}
