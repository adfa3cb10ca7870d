//! The writer and the call table under many schedules of their threads, which Shuttle chooses at random from a
//! fixed seed. The writer is the same source, compiled with Shuttle's locks.

mod calls;
mod sync;
#[expect(dead_code, clippy::duplicate_mod, reason = "the models use a part of the same source")]
#[path = "../../writer.rs"]
mod writer;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use shuttle::{
    Config, MaxSteps, Runner,
    future::block_on,
    scheduler::RandomScheduler,
    thread::{spawn, yield_now},
};
use tokio::io::AsyncWrite;
use zerocache_core::wire::{Writer, frame::HEADER_BYTES};

use self::{
    sync::Mutex,
    writer::{Encode, Flush, FrameWriter, GATHERING_MAX, SMALL_BYTES_MAX, Withdrawal},
};
use super::header;

/// The schedules of a model; each takes some 100 us.
const SCHEDULES: usize = 2_000;

/// The schedules within which a model finds a defect.
const SCHEDULES_BROKEN: usize = 20_000;

/// No model takes as many steps, unless it waits for something that never comes.
const STEPS_MAX: usize = 20_000;

fn run(schedules: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.failure_persistence = shuttle::FailurePersistence::None;
    Runner::new(RandomScheduler::new_from_seed(12, schedules), config).run(model);
}

/// Runs a model, of which no schedule panics or waits for ever.
fn holds(model: impl Fn() + Send + Sync + 'static) {
    run(SCHEDULES, model);
}

/// Runs a model that is broken: some schedule panics or waits for ever.
fn fails(model: impl Fn() + Send + Sync + 'static) {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(SCHEDULES_BROKEN, model)));
    assert!(outcome.is_err(), "no schedule shows the defect");
}

/// A stream that accepts bytes only as far as its other side makes room.
#[derive(Clone)]
struct Pipe(Arc<Mutex<PipeState>>);

struct PipeState {
    accepted: Vec<u8>,
    room: usize,
    writer: Option<Waker>,
}

impl Pipe {
    fn new(room: usize) -> Self {
        Self(Arc::new(Mutex::new(PipeState { accepted: Vec::new(), room, writer: None })))
    }

    fn make_room(&self, bytes: usize) {
        let waker = {
            let mut state = self.0.lock();
            state.room += bytes;
            state.writer.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn accepted(&self) -> Vec<u8> {
        self.0.lock().accepted.clone()
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        let count = bytes.len().min(state.room);
        if count == 0 {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.room -= count;
        state.accepted.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A message of these bytes.
struct Bytes(Vec<u8>);

impl Encode for Bytes {
    fn encode(&self, out: &mut Writer<'_>) {
        out.bytes(1, &self.0);
    }

    fn size_hint(&self) -> usize {
        self.0.len() + 8
    }
}

/// Runs the flusher of a writer until that is closed.
fn flusher(writer: &Arc<FrameWriter>) -> shuttle::thread::JoinHandle<()> {
    let writer = Arc::clone(writer);
    spawn(move || {
        while block_on(std::future::poll_fn(|context| writer.poll_flush(context))) {
            writer.flush();
        }
    })
}

fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        yield_now();
    }
}

fn position(all: &[u8], part: &[u8]) -> Option<usize> {
    all.windows(part.len()).position(|window| window == part)
}

/// Two threads send two messages each, over a stream that accepts a few bytes at a time. Each arrives once,
/// whole, and those of a thread in order. `is_flushed` is whether the flusher runs.
fn senders(is_flushed: bool) {
    const BYTES: usize = 5;
    let pipe = Pipe::new(0);
    let writer = Arc::new(FrameWriter::new(Box::new(pipe.clone())));
    let flusher = is_flushed.then(|| flusher(&writer));
    let message = |sender: u8, n: u8| vec![b'A' + 2 * sender + n; BYTES];
    let senders = [0, 1].map(|sender: u8| {
        let writer = Arc::clone(&writer);
        spawn(move || {
            for (n, flush) in [(0, Flush::Now), (1, Flush::Soon)] {
                let sent = writer.send(header(1), &Bytes(message(sender, n)), flush);
                assert!(sent.is_some(), "the writer is open");
            }
        })
    });
    let peer = pipe.clone();
    let peer = spawn(move || (0..10).for_each(|_| peer.make_room(11)));
    senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
    peer.join().expect("no panic");
    pipe.make_room(1_000);
    wait_until(|| writer.is_flushed());
    let accepted = pipe.accepted();
    let ends = |sender| [0, 1].map(|n| position(&accepted, &message(sender, n)).expect("arrives"));
    for [first, second] in [ends(0), ends(1)] {
        assert!(first < second, "in order");
    }
    let (bytes, queued) = writer.accepted_and_queued();
    assert_eq!((bytes, queued), (accepted.len() as u64, 0));
    assert!(
        accepted.len() >= 4 * (HEADER_BYTES + BYTES) && accepted.len() < 5 * (HEADER_BYTES + BYTES)
    );
    writer.close();
    flusher.into_iter().for_each(|flusher| flusher.join().expect("no panic"));
}

#[test]
fn messages_of_several_threads_arrive_once_and_in_order() {
    holds(|| senders(true));
}

#[test]
fn messages_without_a_flusher_are_found_not_to_arrive() {
    fails(|| senders(false));
}

/// A large message is withdrawn while another thread sends it: it arrives whole or not at all.
fn withdrawal(withdraw: fn(&FrameWriter) -> bool) {
    const ID: u32 = 7;
    const BYTES: usize = 3 * SMALL_BYTES_MAX;
    let pipe = Pipe::new(0);
    let writer = Arc::new(FrameWriter::new(Box::new(pipe.clone())));
    let flusher = flusher(&writer);
    let sent = writer.send(header(ID), &Bytes(vec![0; BYTES]), Flush::Soon);
    assert!(sent.is_some(), "the writer is open");
    let peer = pipe.clone();
    let peer = spawn(move || peer.make_room(10 * BYTES));
    let is_withdrawn = withdraw(&writer);
    peer.join().expect("no panic");
    wait_until(|| writer.is_flushed());
    let arrived = pipe.0.lock().accepted.len();
    if is_withdrawn {
        assert_eq!(arrived, 0, "nothing of it was sent");
    } else {
        assert!(arrived >= BYTES, "{arrived} of {BYTES} bytes");
    }
    writer.close();
    flusher.join().expect("no panic");
}

#[test]
fn withdrawn_message_was_not_begun() {
    holds(|| withdrawal(|writer| writer.withdraw_unsent(7)));
}

#[test]
fn withdrawal_under_two_locks_is_found_to_cut_a_message() {
    fails(|| {
        withdrawal(|writer| writer.is_unsent(7) && writer.withdraw(7) != Withdrawal::Nothing);
    });
}

/// A driver gathers the requests of two threads, of which one sends more than is expected of it. All arrive,
/// without another flusher. `ends` is whether the driver ends the gathering.
fn gathering(ends: bool) {
    let pipe = Pipe::new(0);
    let writer = Arc::new(FrameWriter::new(Box::new(pipe.clone())));
    assert!(writer.expect(2, Duration::ZERO));
    let senders = [0, 1].map(|sender: u8| {
        let writer = Arc::clone(&writer);
        spawn(move || {
            for n in 0..=sender {
                let message = Bytes(vec![b'A' + 2 * sender + n; 5]);
                let at = GATHERING_MAX / 4 * u32::from(n);
                let sent = writer.send_gathered(header(1), &message, (false, at));
                assert!(sent.is_some(), "the writer is open");
            }
        })
    });
    let peer = pipe.clone();
    let peer = spawn(move || peer.make_room(1_000));
    yield_now();
    if ends {
        writer.end_gathering(Duration::ZERO);
    }
    let flusher = flusher(&writer);
    senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
    peer.join().expect("no panic");
    wait_until(|| writer.is_flushed());
    let accepted = pipe.accepted();
    for letter in [b'A', b'C', b'D'] {
        assert!(position(&accepted, &[letter; 5]).is_some(), "arrives");
    }
    writer.close();
    flusher.join().expect("no panic");
}

#[test]
fn gathered_requests_arrive() {
    holds(|| gathering(true));
}

#[test]
fn gathering_that_does_not_end_is_found_to_keep_requests() {
    fails(|| gathering(false));
}
