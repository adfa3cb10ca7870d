//! The log with damage and refusals at each place.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as it does")]

mod common;

use common::{All, Contents, append, hash, is_whole, open, options, version};
use zerocache_disk::{Address, Crash, Log, LogOptions, MemoryDirectory, ReadError, WriteError};

const OPTIONS: (u32, u64) = (1 << 14, 16);

/// A log with values 0..10, of which 3 is erased, and their addresses.
fn written(directory: &MemoryDirectory) -> (Log<MemoryDirectory>, Vec<Address>) {
    let (mut log, _) = open(directory.clone(), settings()).unwrap();
    let addresses = (0..10).map(|n| append(&mut log, n, n + 1, 500).unwrap()).collect();
    log.append_erase((hash(3), version(4)), true).unwrap();
    log.append_note(b"note").unwrap();
    log.flush().unwrap();
    (log, addresses)
}

fn settings() -> LogOptions {
    options(OPTIONS.0, OPTIONS.1)
}

fn reopened(directory: &MemoryDirectory) -> (Log<MemoryDirectory>, Contents) {
    open(directory.clone(), settings()).unwrap()
}

fn first(directory: &MemoryDirectory) -> Vec<u8> {
    directory.content("00000001.seg").unwrap()
}

#[test]
fn torn_tail_is_cut_wherever_it_is_torn() {
    let whole = MemoryDirectory::new();
    drop(written(&whole));
    for bytes in 0..first(&whole).len() as u64 {
        let directory = MemoryDirectory::new();
        let (mut log, _) = open(directory.clone(), settings()).unwrap();
        directory.die_after(bytes);
        for n in 0..10 {
            append(&mut log, n, n + 1, 500).unwrap();
        }
        log.append_erase((hash(3), version(4)), true).unwrap();
        log.append_note(b"note").unwrap();
        assert!(matches!(log.flush(), Err(WriteError::Io(_))));
        drop(log);
        directory.crash(Crash::Killed);
        let (mut log, contents) = reopened(&directory);
        let stats = log.stats();
        assert_eq!((stats.damaged, stats.gaps), (0, 0), "after {bytes} bytes");
        for (key, (stamp, address)) in contents.values {
            assert!(is_whole(&log.reader(), key, stamp, address));
        }
        let address = append(&mut log, 99, 99, 100).unwrap();
        log.flush().unwrap();
        assert!(is_whole(&log.reader(), 99, 99, address));
        drop(log);
        assert!(reopened(&directory).1.values.contains_key(&99));
    }
}

/// Flips each byte of a segment in turn, and says what is found then.
fn flip_each(seals: bool, check: impl Fn(u64, &Log<MemoryDirectory>, &Contents, &[Address])) {
    let whole = MemoryDirectory::new();
    drop(written(&whole));
    for offset in 0..u64::MAX {
        let directory = MemoryDirectory::new();
        let (log, addresses) = written(&directory);
        if seals {
            log.close().unwrap();
        } else {
            drop(log);
        }
        if !directory.flip("00000001.seg", offset) {
            assert!(offset > 5000);
            return;
        }
        let (log, contents) = reopened(&directory);
        for (key, (stamp, address)) in &contents.values {
            let read = log.reader().read(*address, hash(*key), version(*stamp));
            assert!(!matches!(read, Err(ReadError::Gone | ReadError::Io(_))));
            assert!(read.is_err() || is_whole(&log.reader(), *key, *stamp, *address));
        }
        check(offset, &log, &contents, &addresses);
    }
}

#[test]
fn flipped_byte_of_a_sealed_segment_brings_nothing_back() {
    let records = {
        let directory = MemoryDirectory::new();
        drop(written(&directory));
        first(&directory).len() as u64
    };
    flip_each(true, |offset, log, contents, addresses| {
        assert_eq!(contents.values.len(), 9, "after a flip at {offset}");
        assert_eq!(contents.notes, [b"note"]);
        let intact = addresses.iter().enumerate().filter(|(n, address)| {
            *n != 3 && is_whole(&log.reader(), *n as u64, *n as u64 + 1, **address)
        });
        assert!(intact.count() >= if offset < records { 8 } else { 9 });
        assert_eq!(log.stats().gaps, 0);
    });
}

#[test]
fn flipped_byte_of_an_unsealed_segment_is_skipped_and_counted() {
    flip_each(false, |offset, log, contents, addresses| {
        let note = u64::from(addresses[9].offset + addresses[9].bytes) + 40;
        let stats = log.stats();
        if offset < note - 40 {
            // What comes behind the damage counts.
            assert_eq!((contents.notes.len(), stats.damaged), (1, 1), "after a flip at {offset}");
            assert!(contents.values.len() >= 8 && !contents.values.contains_key(&3));
        } else if offset < note {
            assert_eq!((contents.notes.len(), stats.gaps), (1, 1));
        } else {
            // The last record might as well be a torn tail.
            assert!(contents.notes.is_empty() && !contents.values.contains_key(&3));
        }
    });
}

#[test]
fn damage_of_footer_and_records_is_counted_as_a_gap() {
    let directory = MemoryDirectory::new();
    let (log, addresses) = written(&directory);
    log.close().unwrap();
    let end = first(&directory).len() as u64;
    directory.flip("00000001.seg", end - 40);
    directory.flip("00000001.seg", u64::from(addresses[9].offset + addresses[9].bytes) + 2);
    let (log, contents) = reopened(&directory);
    assert_eq!((log.stats().gaps, contents.notes.len()), (1, 1));
    assert!(contents.values.contains_key(&3), "the erase is lost, as the gap says");
    drop(log);
    // It is left as it was found: sealed, it would look whole.
    let (log, contents) = reopened(&directory);
    assert_eq!((log.stats().gaps, contents.values.len()), (1, 10));
}

#[test]
fn damaged_value_is_not_copied() {
    let directory = MemoryDirectory::new();
    let (log, addresses) = written(&directory);
    log.close().unwrap();
    directory.flip("00000001.seg", u64::from(addresses[0].offset) + 200);
    directory.flip("00000001.seg", u64::from(addresses[1].offset) + 1);
    let (mut log, _) = reopened(&directory);
    let mut judge = All { keep: true, ..All::default() };
    log.remove_segment(1, &mut judge).unwrap();
    assert_eq!(judge.moved[0].2, None);
    // The head of this one is in the footer.
    assert!(is_whole(&log.reader(), 1, 2, judge.moved[1].2.unwrap()));
    assert_eq!(log.stats().damaged, 1);
}

#[test]
fn full_disk_loses_no_erase() {
    let directory = MemoryDirectory::new();
    let (mut log, addresses) = written(&directory);
    directory.set_full(true);
    let late = append(&mut log, 50, 50, 500).unwrap();
    log.append_erase((hash(4), version(5)), true).unwrap();
    let error = log.flush().unwrap_err();
    assert!(error.is_full());
    assert!(!log.has(late) && log.has(addresses[9]));
    directory.set_full(false);
    log.flush().unwrap();
    drop(log);
    let (log, contents) = reopened(&directory);
    assert!([3, 4, 50].iter().all(|key| !contents.values.contains_key(key)));
    assert_eq!((contents.values.len(), log.stats().damaged), (8, 0));
}

#[test]
fn large_value_that_is_not_written_leaves_a_good_end() {
    let directory = MemoryDirectory::new();
    let options = options(1 << 20, 16);
    let (mut log, _) = open(directory.clone(), options).unwrap();
    append(&mut log, 1, 1, 100).unwrap();
    append(&mut log, 2, 2, 100_000).unwrap();
    for fault in [MemoryDirectory::set_full, MemoryDirectory::set_failing] {
        fault(&directory, true);
        assert!(append(&mut log, 3, 3, 100_000).is_err());
        fault(&directory, false);
    }
    let address = append(&mut log, 4, 4, 50_000).unwrap();
    log.flush().unwrap();
    assert!(is_whole(&log.reader(), 4, 4, address));
    drop(log);
    let (log, contents) = open(directory, options).unwrap();
    assert_eq!((contents.values.len(), log.stats().damaged), (3, 0));
}

#[test]
fn full_disk_lets_segments_go() {
    let directory = MemoryDirectory::new();
    let (mut log, _) = open(directory.clone(), settings()).unwrap();
    let addresses: Vec<Address> =
        (0..100).map(|n| append(&mut log, n, n + 1, 500).unwrap()).collect();
    log.flush().unwrap();
    directory.set_full(true);
    let mut judge = All { keep: true, ..All::default() };
    // Not the oldest: what it has cannot be written, so the older ones go too.
    let segment = addresses[60].segment;
    assert!(segment > 2);
    log.remove_segment(segment, &mut judge).unwrap();
    let gone = addresses.iter().filter(|address| address.segment <= segment).count();
    assert_eq!(judge.moved.iter().filter(|(_, _, new)| new.is_none()).count(), gone);
    let last = addresses[99].segment;
    log.remove_segment(last, &mut judge).unwrap();
    assert_eq!((log.stats().segments, log.stats().values), (0, 0));
    directory.set_full(false);
    append(&mut log, 7, 700, 500).unwrap();
    log.close().unwrap();
    assert_eq!(reopened(&directory).1.values.len(), 1);
}

#[test]
fn file_system_keeps_its_reserve() {
    let directory = MemoryDirectory::new();
    let (mut log, _) = open(directory.clone(), settings()).unwrap();
    directory.set_capacity(Some(100_000));
    let mut judge = All::default();
    for n in 0..500 {
        log.make_room(1500, &mut judge).unwrap();
        append(&mut log, n, n + 1, 1000).unwrap();
        log.flush().unwrap();
    }
    assert!(directory.bytes() <= 95_000 + 1500, "{} bytes", directory.bytes());
    assert!(log.stats().values > 50);
    directory.set_capacity(Some(1000));
    assert!(matches!(log.make_room(1500, &mut judge), Err(WriteError::Full { .. })));
    assert_eq!(log.stats().values, 0);
}

#[test]
fn failing_device_is_an_error_and_nothing_else() {
    let directory = MemoryDirectory::new();
    let (mut log, addresses) = written(&directory);
    directory.set_failing(true);
    let read = log.reader().read(addresses[0], hash(0), version(1));
    assert!(matches!(read, Err(ReadError::Io(_))));
    append(&mut log, 50, 50, 500).unwrap();
    assert!(log.flush().is_err() && log.sync().is_err());
    assert!(log.make_room(1 << 18, &mut All::default()).is_err());
    assert!(log.remove_segment(1, &mut All::default()).is_err());
    assert!(log.write_state(b"state").is_err() && log.read_state().is_err());
    assert!(open(directory.clone(), settings()).is_err());
    directory.set_failing(false);
    log.close().unwrap();
    assert_eq!(reopened(&directory).1.values.len(), 9);
}

#[test]
fn sync_that_failed_or_was_left_out_is_not_forgotten() {
    let directory = MemoryDirectory::new();
    let (mut log, _) = open(directory.clone(), settings()).unwrap();
    append(&mut log, 1, 1, 500).unwrap();
    log.flush().unwrap();
    drop(log.checkpoint(None));
    directory.set_failing(true);
    assert!(log.checkpoint(None).run().is_err());
    directory.set_failing(false);
    // The system may take it for done now.
    assert!(log.checkpoint(Some(b"state".to_vec())).run().is_err() && log.sync().is_err());
    assert_eq!(log.read_state().unwrap(), None);
    let segment = log.oldest_segment().unwrap();
    log.remove_segment(segment, &mut All::default()).unwrap();
    log.checkpoint(Some(b"state".to_vec())).run().unwrap();
    assert_eq!(log.read_state().unwrap().as_deref(), Some(&b"state"[..]));
}

#[test]
fn bytes_of_a_value_do_not_pass_for_records() {
    // A value that is a whole log with the same salt, and damage right before it.
    let directory = MemoryDirectory::new();
    let forged = MemoryDirectory::new();
    drop(written(&forged));
    let forged = first(&forged);
    let (mut log, _) = open(directory.clone(), LogOptions { salt: 1, ..settings() }).unwrap();
    let head = zerocache_disk::Head {
        hash: hash(77),
        version: version(77),
        expires_ms: 0,
        key: b"key 77",
        metadata: b"stamp 77",
        value_bytes: 0,
    };
    let address = log.append_value(head, &forged).unwrap();
    append(&mut log, 78, 78, 100).unwrap();
    log.flush().unwrap();
    drop(log);
    directory.flip("00000001.seg", u64::from(address.offset) + 9);
    let (log, contents) = reopened(&directory);
    assert_eq!(contents.values.keys().collect::<Vec<_>>(), [&78]);
    assert_eq!((log.stats().gaps, contents.notes.len()), (1, 0));
}
