use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use zerocache_core::{
    time::Instant,
    wire::{
        RefusalCode,
        frame::{FrameError, Header, Opcode},
    },
};

use super::{header, model::frame};
use crate::transport::framed::reader::{
    FrameReader, Incoming, MemoryBudget, MemoryReservation, PARTIAL_MAX, UnlimitedMemory,
};

const NOW: Instant = Instant::from_millis(1);

/// What an inbox says of one frame.
#[derive(Debug, PartialEq)]
enum Said {
    Small(u32, Vec<u8>),
    Large(u32, Vec<u8>),
    Refused(u32, RefusalCode),
    Nothing,
}

fn say(inbox: &mut FrameReader, bytes: &[u8]) -> Result<Vec<Said>, FrameError> {
    inbox.extend(bytes);
    let mut said = Vec::new();
    while let Some((header, _, incoming)) = inbox.next(NOW)? {
        said.push(match incoming {
            Incoming::Small(message) => Said::Small(header.id, message.to_vec()),
            Incoming::Large(message) => Said::Large(header.id, message.to_vec()),
            Incoming::Refused(code) => Said::Refused(header.id, code),
            Incoming::Nothing => Said::Nothing,
        });
    }
    Ok(said)
}

fn part(id: u32, more: bool, payload: &[u8]) -> Vec<u8> {
    frame(Header { more, ..header(id) }, 0, payload)
}

fn cancel(id: u32) -> Vec<u8> {
    frame(Header { opcode: Opcode::Cancel, ..header(id) }, 0, &[])
}

/// MemoryBudget that counts.
#[derive(Default)]
struct Counted {
    held: Arc<AtomicUsize>,
    most: usize,
}

struct Held(Arc<AtomicUsize>, usize);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl MemoryBudget for Counted {
    fn try_reserve(&self, bytes: usize) -> Option<MemoryReservation> {
        let held = self.held.load(Ordering::Relaxed) + bytes;
        (held <= self.most).then(|| {
            self.held.store(held, Ordering::Relaxed);
            Box::new(Held(Arc::clone(&self.held), bytes)) as MemoryReservation
        })
    }
}

#[test]
fn messages_that_begin_and_do_not_end_are_bounded() {
    let mut inbox = FrameReader::new(1_000, Arc::new(UnlimitedMemory));
    let mut refused = 0;
    let end = (0..100_000).find_map(|id| match say(&mut inbox, &part(id, true, b"x")) {
        Ok(said) => {
            refused += u32::from(said == [Said::Refused(id, RefusalCode::Overloaded)]);
            None
        }
        Err(error) => Some((id, error)),
    });
    let (count, error) = end.expect("an end to what a peer can begin");
    assert!(matches!(error, FrameError::Unended { .. }), "{error}");
    assert_eq!(refused + PARTIAL_MAX as u32, count);
}

#[test]
fn a_message_that_is_too_large_is_refused_once_and_skipped() {
    let mut inbox = FrameReader::new(10, Arc::new(UnlimitedMemory));
    let too_large = RefusalCode::TooLarge;
    assert_eq!(say(&mut inbox, &part(1, true, &[1; 6])), Ok(vec![Said::Nothing]));
    assert_eq!(say(&mut inbox, &part(2, false, b"b")), Ok(vec![Said::Small(2, b"b".to_vec())]));
    assert_eq!(say(&mut inbox, &part(1, true, &[1; 6])), Ok(vec![Said::Refused(1, too_large)]));
    assert_eq!(say(&mut inbox, &part(1, true, &[1; 6])), Ok(vec![Said::Nothing]));
    assert!(inbox.is_incomplete());
    assert_eq!(say(&mut inbox, &part(1, false, &[1; 6])), Ok(vec![Said::Nothing]));
    assert!(!inbox.is_incomplete());
    assert_eq!(say(&mut inbox, &part(1, false, b"c")), Ok(vec![Said::Small(1, b"c".to_vec())]));
}

#[test]
fn a_cancelled_message_is_refused_once_and_forgotten() {
    let mut inbox = FrameReader::new(10, Arc::new(UnlimitedMemory));
    let expired = RefusalCode::Expired;
    say(&mut inbox, &part(1, true, &[1; 6])).unwrap();
    assert_eq!(say(&mut inbox, &cancel(1)), Ok(vec![Said::Refused(1, expired)]));
    assert_eq!(say(&mut inbox, &cancel(1)), Ok(vec![Said::Nothing]));
    assert!(!inbox.is_incomplete());
    // One that was refused already is not refused again.
    say(&mut inbox, &part(2, true, &[1; 6])).unwrap();
    say(&mut inbox, &part(2, true, &[1; 6])).unwrap();
    assert_eq!(say(&mut inbox, &cancel(2)), Ok(vec![Said::Nothing]));
    assert_eq!(say(&mut inbox, &part(2, false, b"d")), Ok(vec![Said::Small(2, b"d".to_vec())]));
}

#[test]
fn messages_that_are_whole_are_taken_however_many_are_not() {
    let mut inbox = FrameReader::new(1_000, Arc::new(UnlimitedMemory));
    let few = PARTIAL_MAX as u32 + 10;
    (0..few).for_each(|id| drop(say(&mut inbox, &part(id, true, b"x")).unwrap()));
    let small = say(&mut inbox, &part(few, false, b"y")).unwrap();
    assert_eq!(small, [Said::Small(few, b"y".to_vec())]);
    let large = say(&mut inbox, &part(0, false, b"z")).unwrap();
    assert_eq!(large, [Said::Large(0, b"xz".to_vec())]);
    assert_eq!(say(&mut inbox, &part(few - 1, false, b"z")), Ok(vec![Said::Nothing]));
}

#[test]
fn memory_is_charged_and_given_back() {
    let memory = Counted { most: 300_000, ..Counted::default() };
    let held = Arc::clone(&memory.held);
    let mut inbox = FrameReader::new(1 << 20, Arc::new(memory));
    let overloaded = RefusalCode::Overloaded;
    say(&mut inbox, &part(1, true, &[1; 60_000])).unwrap();
    say(&mut inbox, &part(2, true, &[1; 60_000])).unwrap();
    let two = held.load(Ordering::Relaxed);
    assert!(two >= 120_000);
    assert_eq!(say(&mut inbox, &part(3, true, &[1])), Ok(vec![Said::Refused(3, overloaded)]));
    say(&mut inbox, &cancel(2)).unwrap();
    assert_eq!(held.load(Ordering::Relaxed), two / 2);
    say(&mut inbox, &part(1, false, &[1])).unwrap();
    assert_eq!(held.load(Ordering::Relaxed), 0);
}
