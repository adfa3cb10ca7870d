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

/// The content of one frame.
#[derive(Debug, PartialEq)]
enum Received {
    Small(u32, Vec<u8>),
    Large(u32, Vec<u8>),
    Refused(u32, RefusalCode),
    Nothing,
}

fn receive(reader: &mut FrameReader, bytes: &[u8]) -> Result<Vec<Received>, FrameError> {
    reader.extend(bytes);
    let mut received = Vec::new();
    while let Some((header, _, incoming)) = reader.next(NOW)? {
        received.push(match incoming {
            Incoming::Small(message) => Received::Small(header.id, message.to_vec()),
            Incoming::Large(message) => Received::Large(header.id, message.to_vec()),
            Incoming::Refused(code) => Received::Refused(header.id, code),
            Incoming::Nothing => Received::Nothing,
        });
    }
    Ok(received)
}

fn part(id: u32, more: bool, payload: &[u8]) -> Vec<u8> {
    frame(Header { more, ..header(id) }, 0, payload)
}

fn cancel(id: u32) -> Vec<u8> {
    frame(Header { opcode: Opcode::Cancel, ..header(id) }, 0, &[])
}

/// A budget that counts.
#[derive(Default)]
struct CountedMemory {
    held: Arc<AtomicUsize>,
    most: usize,
}

struct Reservation(Arc<AtomicUsize>, usize);

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl MemoryBudget for CountedMemory {
    fn try_reserve(&self, bytes: usize) -> Option<MemoryReservation> {
        let held = self.held.load(Ordering::Relaxed) + bytes;
        (held <= self.most).then(|| {
            self.held.store(held, Ordering::Relaxed);
            Box::new(Reservation(Arc::clone(&self.held), bytes)) as MemoryReservation
        })
    }
}

#[test]
fn incomplete_messages_are_bounded() {
    let mut reader = FrameReader::new(1_000, Arc::new(UnlimitedMemory));
    let mut refused = 0;
    let end = (0..100_000).find_map(|id| match receive(&mut reader, &part(id, true, b"x")) {
        Ok(received) => {
            refused += u32::from(received == [Received::Refused(id, RefusalCode::Overloaded)]);
            None
        }
        Err(error) => Some((id, error)),
    });
    let (count, error) = end.expect("an end to what a peer can begin");
    assert!(matches!(error, FrameError::Unended { .. }), "{error}");
    assert_eq!(refused + PARTIAL_MAX as u32, count);
}

#[test]
fn too_large_message_is_refused_once_and_skipped() {
    let mut reader = FrameReader::new(10, Arc::new(UnlimitedMemory));
    let too_large = RefusalCode::TooLarge;
    assert_eq!(receive(&mut reader, &part(1, true, &[1; 6])), Ok(vec![Received::Nothing]));
    assert_eq!(
        receive(&mut reader, &part(2, false, b"b")),
        Ok(vec![Received::Small(2, b"b".to_vec())])
    );
    assert_eq!(
        receive(&mut reader, &part(1, true, &[1; 6])),
        Ok(vec![Received::Refused(1, too_large)])
    );
    assert_eq!(receive(&mut reader, &part(1, true, &[1; 6])), Ok(vec![Received::Nothing]));
    assert!(reader.is_incomplete());
    assert_eq!(receive(&mut reader, &part(1, false, &[1; 6])), Ok(vec![Received::Nothing]));
    assert!(!reader.is_incomplete());
    assert_eq!(
        receive(&mut reader, &part(1, false, b"c")),
        Ok(vec![Received::Small(1, b"c".to_vec())])
    );
}

#[test]
fn cancelled_message_is_refused_once_and_forgotten() {
    let mut reader = FrameReader::new(10, Arc::new(UnlimitedMemory));
    let expired = RefusalCode::Expired;
    receive(&mut reader, &part(1, true, &[1; 6])).unwrap();
    assert_eq!(receive(&mut reader, &cancel(1)), Ok(vec![Received::Refused(1, expired)]));
    assert_eq!(receive(&mut reader, &cancel(1)), Ok(vec![Received::Nothing]));
    assert!(!reader.is_incomplete());
    // One that was refused already is not refused again.
    receive(&mut reader, &part(2, true, &[1; 6])).unwrap();
    receive(&mut reader, &part(2, true, &[1; 6])).unwrap();
    assert_eq!(receive(&mut reader, &cancel(2)), Ok(vec![Received::Nothing]));
    assert_eq!(
        receive(&mut reader, &part(2, false, b"d")),
        Ok(vec![Received::Small(2, b"d".to_vec())])
    );
}

#[test]
fn complete_messages_are_taken_beside_many_incomplete_ones() {
    let mut reader = FrameReader::new(1_000, Arc::new(UnlimitedMemory));
    let few = PARTIAL_MAX as u32 + 10;
    (0..few).for_each(|id| drop(receive(&mut reader, &part(id, true, b"x")).unwrap()));
    let small = receive(&mut reader, &part(few, false, b"y")).unwrap();
    assert_eq!(small, [Received::Small(few, b"y".to_vec())]);
    let large = receive(&mut reader, &part(0, false, b"z")).unwrap();
    assert_eq!(large, [Received::Large(0, b"xz".to_vec())]);
    assert_eq!(receive(&mut reader, &part(few - 1, false, b"z")), Ok(vec![Received::Nothing]));
}

#[test]
fn memory_is_reserved_and_released() {
    let memory = CountedMemory { most: 300_000, ..CountedMemory::default() };
    let held = Arc::clone(&memory.held);
    let mut reader = FrameReader::new(1 << 20, Arc::new(memory));
    let overloaded = RefusalCode::Overloaded;
    receive(&mut reader, &part(1, true, &[1; 60_000])).unwrap();
    receive(&mut reader, &part(2, true, &[1; 60_000])).unwrap();
    let two = held.load(Ordering::Relaxed);
    assert!(two >= 120_000);
    assert_eq!(
        receive(&mut reader, &part(3, true, &[1])),
        Ok(vec![Received::Refused(3, overloaded)])
    );
    receive(&mut reader, &cancel(2)).unwrap();
    assert_eq!(held.load(Ordering::Relaxed), two / 2);
    receive(&mut reader, &part(1, false, &[1])).unwrap();
    assert_eq!(held.load(Ordering::Relaxed), 0);
}

#[test]
fn frames_ahead_are_seen_once_and_stay_for_next() {
    let mut reader = FrameReader::new(1_000, Arc::new(UnlimitedMemory));
    let parts: Vec<_> = (1..=5).map(|id| part(id, false, &[id as u8; 10])).collect();
    let seen = |reader: &mut FrameReader| reader.peek().map(|payload| payload[0]);
    assert_eq!(seen(&mut reader), None);
    reader.extend(&parts[0]);
    reader.extend(&parts[1]);
    reader.extend(&parts[2][..12]);
    assert_eq!([(); 3].map(|()| seen(&mut reader)), [Some(1), Some(2), None]);
    let next = |reader: &mut FrameReader, is_taken: bool| {
        let id = reader.next(NOW).unwrap().map(|(header, ..)| header.id);
        if let Some(id) = id.filter(|_| is_taken) {
            assert_eq!(reader.take(), [id as u8; 10][..]);
        }
        id
    };
    assert_eq!(next(&mut reader, true), Some(1));
    reader.extend(&parts[2][12..]);
    assert_eq!(seen(&mut reader), Some(3));
    assert_eq!(next(&mut reader, false), Some(2));
    assert_eq!(seen(&mut reader), None);
    assert_eq!(next(&mut reader, false), Some(3));
    reader.extend(&parts[3]);
    reader.extend(&parts[4]);
    assert_eq!(seen(&mut reader), Some(4));
    reader.peek_again();
    assert_eq!([(); 3].map(|()| seen(&mut reader)), [Some(4), Some(5), None]);
    assert_eq!([(); 3].map(|()| next(&mut reader, true)), [Some(4), Some(5), None]);
    assert_eq!(seen(&mut reader), None);
}
