//! Gathering: callers whose responses came together send their next requests with one write.
//!
//! Before the driver of a connection wakes callers, it announces how many they are. Then it goes to the end
//! of its runtime's queue, behind them, and writes what they left to it. A sender does not leave its request
//! to the driver
//!
//! - if it is the last one that is expected,
//! - if [`GATHERING_MAX`] has passed since the gathering began and since the last write, or
//! - if it is the first one of a few, and other tasks computed during a recent gathering: the driver, or the
//!   next sender, may have to wait for them again.
//!
//! Invariant: each gathering ends with a write by the driver, unless the writer is closed.

use std::{task::Waker, time::Duration};

use zerocache_core::wire::{Writer, frame::Header};

use super::{Encode, FrameWriter, GATHERING_MAX, SMALL_BYTES_MAX, WriteState, state::WriteJob};

/// The number of gatherings that are cautious after one during which other tasks computed.
const CAUTIOUS_MAX: u8 = 16;

/// Among this many senders the first one waits whatever happens: a write of its own would cost the others more
/// than the one gains.
const MANY_SENDERS: usize = 8;

/// Requests are left to the driver.
pub(super) struct Gathering {
    /// How many senders are still expected.
    expected: usize,
    /// When it began, or a request was last written.
    since: Duration,
    /// When it began, or a request was last sent.
    last: Duration,
    /// The next sender writes at once.
    is_prompt: bool,
    /// No sender came for a while: other tasks compute.
    is_interrupted: bool,
}

impl Gathering {
    /// Counts a sender that began at `at`. Returns whether it must write.
    fn count(&mut self, at: Duration) -> bool {
        let is_last = self.expected == 1;
        self.expected = self.expected.saturating_sub(1);
        self.note_pause(at);
        self.last = self.last.max(at);
        let is_late = at.saturating_sub(self.since) >= GATHERING_MAX;
        let must_write = is_last || is_late || std::mem::take(&mut self.is_prompt);
        if must_write {
            self.since = at;
        }
        must_write
    }

    fn note_pause(&mut self, now: Duration) {
        self.is_interrupted |= now.saturating_sub(self.last) >= GATHERING_MAX;
    }
}

/// What follows the sending of a request, once the lock is released.
enum Next {
    Write(WriteJob),
    Wake(Waker),
    Nothing,
}

impl WriteState {
    /// Writes the request of a sender that began at `at`, or leaves it to the driver.
    fn leave(&mut self, is_alone: bool, at: Duration) -> Next {
        let must_write = match &mut self.gathering {
            Some(gathering) => gathering.count(at),
            None => std::mem::take(&mut self.is_next_prompt) || is_alone,
        };
        if must_write {
            return self.begin().map_or(Next::Nothing, Next::Write);
        }
        self.want_flush().map_or(Next::Nothing, Next::Wake)
    }
}

impl FrameWriter {
    /// Announces that `senders` are about to be woken at `now`. Returns whether their requests are left to the
    /// caller, who must then call [`end_gathering`](Self::end_gathering) after them.
    pub(in crate::transport::framed) fn expect(&self, senders: usize, now: Duration) -> bool {
        if senders == 0 {
            return false;
        }
        let mut state = self.state.lock();
        if senders == 1 {
            // Nothing would join it.
            state.is_next_prompt = true;
            return false;
        }
        let is_prompt = state.is_cautious() && senders < MANY_SENDERS;
        state.begin_gathering(senders, now, is_prompt);
        true
    }

    /// Lets senders that nobody announced join those that have left requests to the driver. Returns the same as
    /// [`expect`](Self::expect).
    pub(in crate::transport::framed) fn expect_others(&self, now: Duration) -> bool {
        let mut state = self.state.lock();
        if state.is_cautious() {
            return false;
        }
        state.begin_gathering(usize::MAX, now, false);
        true
    }

    /// Ends a gathering, and writes what was left to the driver.
    pub(in crate::transport::framed) fn end_gathering(&self, now: Duration) {
        let job = {
            let mut state = self.state.lock();
            if let Some(mut gathering) = state.gathering.take() {
                if state.unsent > 0 {
                    gathering.note_pause(now);
                }
                if gathering.is_interrupted {
                    state.cautious = CAUTIOUS_MAX;
                }
            }
            state.begin()
        };
        if let Some(job) = job {
            self.write(job);
        }
    }

    /// Sends the request of a sender that began at `at`: writes it, or leaves it to the driver. `is_alone` says
    /// that no other call waits. Returns the same as [`send`](Self::send).
    pub(in crate::transport::framed) fn send_gathered(
        &self,
        header: Header,
        message: &impl Encode,
        (is_alone, at): (bool, Duration),
    ) -> Option<u64> {
        let hint = message.size_hint();
        if hint <= SMALL_BYTES_MAX {
            return self.append_gathered(header, hint, |out| message.encode(out), (is_alone, at));
        }
        let position = self.append_chunked(header, message)?;
        let next = self.state.lock().leave(is_alone, at);
        self.follow(next);
        Some(position)
    }

    /// Does the same with a small message.
    pub(in crate::transport::framed) fn append_gathered(
        &self,
        header: Header,
        hint: usize,
        encode: impl FnOnce(&mut Writer<'_>),
        (is_alone, at): (bool, Duration),
    ) -> Option<u64> {
        let mut state = self.state.lock();
        let position = state.append_open(header, hint, encode)?;
        let next = state.leave(is_alone, at);
        drop(state);
        self.follow(next);
        Some(position)
    }

    fn follow(&self, next: Next) {
        match next {
            Next::Write(job) => self.write(job),
            Next::Wake(flusher) => flusher.wake(),
            Next::Nothing => {}
        }
    }
}

impl WriteState {
    fn begin_gathering(&mut self, expected: usize, now: Duration, is_prompt: bool) {
        let (since, last) = (now, now);
        let gathering = Gathering { expected, since, last, is_prompt, is_interrupted: false };
        self.gathering = Some(gathering);
    }

    /// Whether other tasks computed during a recent gathering.
    fn is_cautious(&mut self) -> bool {
        let is_cautious = self.cautious > 0;
        self.cautious = self.cautious.saturating_sub(1);
        is_cautious
    }
}
