//! Responses that wait until what must not come back is written.

use std::{
    collections::VecDeque,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Release},
    },
    time::Duration,
};

use parking_lot::Mutex;
use zerocache_net::clock;

use crate::driver::HeldReply;

/// The longest that a response waits. A disk that takes longer does not hold up writers: their changes are
/// acknowledged, and counted, although they are not written.
const HELD_MAX: Duration = Duration::from_millis(500);

/// The jobs that are written, and the responses that wait for more.
#[derive(Default)]
pub(super) struct Acknowledgements {
    written: AtomicU64,
    held: Mutex<VecDeque<Held>>,
}

struct Held {
    mark: u64,
    since: Duration,
    reply: HeldReply,
}

impl Acknowledgements {
    /// Returns whether all jobs up to `mark` are written.
    pub(super) fn has_written(&self, mark: u64) -> bool {
        self.written.load(Acquire) >= mark
    }

    /// Keeps a reply until all jobs up to `mark` are written. Returns it if they are.
    pub(super) fn hold(&self, mark: u64, reply: HeldReply) -> Option<HeldReply> {
        let mut held = self.held.lock();
        // Under the lock, which the writer takes after it has noted what it wrote.
        if self.has_written(mark) {
            return Some(reply);
        }
        held.push_back(Held { mark, since: clock::elapsed(), reply });
        None
    }

    /// Notes that all jobs up to `number` are written. Returns the replies that waited for them.
    pub(super) fn note_written(&self, number: u64) -> Vec<HeldReply> {
        self.written.fetch_max(number, Release);
        self.take(|held| held.mark <= number)
    }

    /// Returns the replies that have waited too long.
    pub(super) fn release_overdue(&self) -> Vec<HeldReply> {
        let now = clock::elapsed();
        self.take(|held| now.saturating_sub(held.since) >= HELD_MAX)
    }

    /// Takes the first replies that `is_due`. They are in the order of their marks and times.
    fn take(&self, is_due: impl Fn(&Held) -> bool) -> Vec<HeldReply> {
        let mut held = self.held.lock();
        let count = held.iter().take_while(|held| is_due(held)).count();
        held.drain(..count).map(|held| held.reply).collect()
    }
}
