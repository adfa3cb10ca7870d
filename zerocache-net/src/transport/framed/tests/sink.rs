//! A stream to write to whose room and faults a test decides.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use parking_lot::Mutex;
use tokio::{io::AsyncWrite, task::coop};

/// The stream and the test's view of it.
#[derive(Clone, Default)]
pub(super) struct Sink(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    taken: Vec<u8>,
    writes: usize,
    room: usize,
    flush_pending: bool,
    fails: bool,
    waker: Option<Waker>,
}

impl Sink {
    pub(super) fn with_room(room: usize) -> Self {
        let sink = Self::default();
        sink.0.lock().room = room;
        sink
    }

    pub(super) fn endless() -> Self {
        Self::with_room(usize::MAX)
    }

    /// Makes room, and wakes whoever waits for it.
    pub(super) fn make_room(&self, room: usize) {
        let waker = {
            let mut state = self.0.lock();
            state.room = room;
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// From now on flushing does not end, or does.
    pub(super) fn hold_flush(&self, hold: bool) {
        let waker = {
            let mut state = self.0.lock();
            state.flush_pending = hold;
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    pub(super) fn fail(&self) {
        self.0.lock().fails = true;
    }

    pub(super) fn taken(&self) -> Vec<u8> {
        self.0.lock().taken.clone()
    }

    /// How many writes brought what was taken.
    pub(super) fn writes(&self) -> usize {
        self.0.lock().writes
    }

    /// Whether somebody waits to be woken by it.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.lock().waker.is_some()
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // As a socket does: in its turn a task may do only so much.
        ready!(pin!(coop::consume_budget()).poll(context));
        let mut state = self.0.lock();
        if state.fails {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(state.room);
        if count == 0 {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.room -= count;
        state.taken.extend_from_slice(&bytes[..count]);
        state.writes += 1;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.flush_pending {
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Counts how often it was woken.
#[derive(Default)]
pub(super) struct Woken(AtomicUsize);

impl Woken {
    pub(super) fn waker() -> (Arc<Self>, Waker) {
        let woken = Arc::new(Self::default());
        (Arc::clone(&woken), Waker::from(woken))
    }

    /// Whether it was woken since it was last asked.
    pub(super) fn take(&self) -> bool {
        self.0.swap(0, Ordering::Relaxed) > 0
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
