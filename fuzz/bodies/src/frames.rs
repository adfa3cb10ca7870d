//! Framed connections: bytes that may be frames, and messages that become frames.

use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::AsyncWrite;
use zerocache_core::{
    time::Instant,
    wire::{
        RefusalCode, Writer,
        frame::{FrameError, Header, Opcode},
    },
};
use zerocache_net::transport::framed::{
    Encode, Flush, FrameReader, FrameWriter, Incoming, MemoryBudget, MemoryReservation,
    UnlimitedMemory,
};

/// The current time of a frame reader.
const NOW: Instant = Instant::from_millis(5_000);

/// The largest message of the frames that are read: small, so that a short input exceeds it.
const READ_BYTES_MAX: usize = 1_000;

/// The bound on incomplete messages together: 64 of the largest.
const READ_MEMORY_MAX: usize = 64 * READ_BYTES_MAX;

/// Most bytes of all messages that one input sends.
const SENT_BYTES_MAX: usize = 1 << 20;

/// The outcome of one message.
#[derive(Debug, PartialEq)]
enum Received {
    Message(Vec<u8>),
    Refused(RefusalCode),
    Nothing,
}

type ReadResult = (Vec<(Header, u64, Received)>, Option<FrameError>);

/// Reads frames from bytes that arrive in pieces. The input is `count (1) ‖ count lengths of pieces
/// (1 each) ‖ bytes`. The messages must be the same as when all bytes arrive at once.
pub fn frame_reader(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else { return };
    let (lengths, bytes) = rest.split_at(usize::from(*count).min(rest.len()));
    let whole = read(&[bytes]);
    assert_eq!(read(&cut(bytes, lengths)), whole, "the messages depend on how they come");
}

/// The bytes in pieces of these lengths, again and again; 0 is 256.
fn cut<'a>(mut bytes: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut lengths = lengths
        .iter()
        .map(|length| match length {
            0 => 256,
            length => usize::from(*length),
        })
        .cycle();
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let length = lengths.next().unwrap_or(bytes.len()).min(bytes.len());
        let (piece, rest) = bytes.split_at(length);
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn read(pieces: &[&[u8]]) -> ReadResult {
    let memory = Arc::new(Bounded { most: READ_MEMORY_MAX, ..Bounded::default() });
    let mut reader = FrameReader::new(READ_BYTES_MAX, Arc::clone(&memory) as Arc<dyn MemoryBudget>);
    let mut all = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        if number.is_multiple_of(3) {
            reader.extend(piece);
        } else {
            reader.buffer().put_slice(piece);
        }
        loop {
            match next_message(&mut reader, number) {
                Ok(Some(received)) => all.push(received),
                Ok(None) => break,
                Err(error) => return (all, Some(error)),
            }
        }
        if number.is_multiple_of(5) {
            reader.shrink();
        }
    }
    if !reader.is_incomplete() {
        assert_eq!(memory.held.load(Ordering::Relaxed), 0, "memory is not given back");
    }
    (all, None)
}

fn next_message(
    reader: &mut FrameReader,
    number: usize,
) -> Result<Option<(Header, u64, Received)>, FrameError> {
    let Some((header, delay_ms, incoming)) = reader.next(NOW)? else { return Ok(None) };
    let received = match incoming {
        Incoming::Small(message) if number.is_multiple_of(2) => Received::Message(message.to_vec()),
        Incoming::Small(_) => Received::Message(reader.take().to_vec()),
        Incoming::Large(message) => Received::Message(message.to_vec()),
        Incoming::Refused(code) => Received::Refused(code),
        Incoming::Nothing => Received::Nothing,
    };
    Ok(Some((header, delay_ms, received)))
}

/// Memory that is never enough for more than is allowed.
#[derive(Default)]
struct Bounded {
    held: Arc<AtomicUsize>,
    most: usize,
}

struct ChargeGuard(Arc<AtomicUsize>, usize);

impl Drop for ChargeGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl MemoryBudget for Bounded {
    fn try_reserve(&self, bytes: usize) -> Option<MemoryReservation> {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        assert!(held <= self.most, "{held} bytes are held");
        Some(Box::new(ChargeGuard(Arc::clone(&self.held), bytes)))
    }
}

/// Sends messages over a writer and reads them again. The input is steps of `what (1) ‖ number
/// (2)`, see `WriterDriver::step`; its bytes are also the lengths of the pieces in which the frames
/// arrive.
pub fn frame_writer(data: &[u8]) {
    let mut driver = WriterDriver::new();
    for step in data.chunks_exact(3) {
        driver.step(step[0], usize::from(u16::from_be_bytes([step[1], step[2]])));
    }
    let (sent, stream) = driver.finish();
    let mut reader = FrameReader::new(SENT_BYTES_MAX + 16, Arc::new(UnlimitedMemory));
    let mut received = BTreeMap::new();
    for (number, piece) in cut(&stream, data).into_iter().enumerate() {
        reader.extend(piece);
        while let Some((header, _, outcome)) =
            next_message(&mut reader, number).expect("a writer sends frames")
        {
            match outcome {
                Received::Message(message) => {
                    assert!(received.insert(header.id, message).is_none(), "{} twice", header.id);
                }
                Received::Refused(code) => panic!("{} is refused: {code:?}", header.id),
                Received::Nothing => {}
            }
        }
    }
    assert!(received == sent, "{} messages of {} arrive as sent", received.len(), sent.len());
    assert!(!reader.is_incomplete(), "more was sent than messages");
}

/// The bytes that a stream accepted, and how many more it accepts.
#[derive(Clone, Default)]
struct SinkStream(Arc<Mutex<(Vec<u8>, usize)>>);

impl AsyncWrite for SinkStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().expect("one thread");
        let count = bytes.len().min(state.1);
        if count == 0 {
            return Poll::Pending;
        }
        state.1 -= count;
        state.0.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A message whose size may differ from its hint.
struct Message {
    bytes: Bytes,
    hint: usize,
}

impl Encode for Message {
    fn encode(&self, out: &mut Writer<'_>) {
        out.shared(1, &self.bytes);
    }

    fn size_hint(&self) -> usize {
        self.hint
    }
}

struct WriterDriver {
    writer: FrameWriter,
    sink: SinkStream,
    sent: BTreeMap<u32, Vec<u8>>,
    bytes: usize,
}

impl WriterDriver {
    fn new() -> Self {
        let sink = SinkStream::default();
        let writer = FrameWriter::new(Box::new(sink.clone()));
        Self { writer, sink, sent: BTreeMap::new(), bytes: 0 }
    }

    /// 0 to 3 send a message of `number` bytes or four times that, with or without the right hint;
    /// 4 makes room for `number` bytes, 5 flushes, 6 works, 7 withdraws a message that was not
    /// begun.
    fn step(&mut self, op: u8, number: usize) {
        match op % 8 {
            op @ 0..=3 => {
                let bytes = if op >= 2 { 4 * number } else { number };
                if self.bytes + bytes <= SENT_BYTES_MAX {
                    self.send(bytes, if op % 2 == 0 { bytes + 8 } else { number / 4 });
                }
            }
            4 => self.sink.0.lock().expect("one thread").1 += number,
            5 => self.writer.flush(),
            6 => self.work(),
            _ => {
                let id = number as u32;
                if self.writer.withdraw_unsent(id) {
                    self.sent.remove(&id);
                }
            }
        }
    }

    fn send(&mut self, bytes: usize, hint: usize) {
        let id = self.sent.last_key_value().map_or(0, |(id, _)| id + 1);
        let message = Message { bytes: Bytes::from(vec![id as u8; bytes]), hint };
        let mut encoded = BytesMut::new();
        message.encode(&mut Writer::new(&mut encoded));
        let header =
            Header { opcode: Opcode::Response, more: false, id, sent_ms: 0, timeout_ms: 0 };
        let flush = [Flush::Now, Flush::Soon, Flush::Later][id as usize % 3];
        self.writer.send(header, &message, flush).expect("the writer is open");
        self.sent.insert(id, encoded.to_vec());
        self.bytes += bytes;
    }

    fn work(&mut self) {
        if self.writer.poll_flush(&Context::from_waker(Waker::noop())) == Poll::Ready(true) {
            self.writer.flush();
        }
    }

    /// Returns the sent messages and the bytes of the stream.
    fn finish(mut self) -> (BTreeMap<u32, Vec<u8>>, Vec<u8>) {
        self.sink.0.lock().expect("one thread").1 = usize::MAX;
        // Each round moves at least one chunk.
        for _ in 0..10_000 {
            if self.writer.is_flushed() {
                break;
            }
            self.work();
            self.writer.flush();
        }
        assert!(self.writer.is_flushed(), "something is left");
        let stream = std::mem::take(&mut self.sink.0.lock().expect("one thread").0);
        (self.sent, stream)
    }
}
