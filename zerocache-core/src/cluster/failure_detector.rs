//! The failure detector of one member: the heartbeats to it, and the echoes that came back.

use crate::{time::Instant, wire::Session};

/// The most numbers that a sender may leave out: those of more than a day.
const JUMP_MAX: u64 = 1 << 20;

/// The numbers received among the last 64, so that none counts twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayWindow {
    highest: u64,
    /// Bit `n` stands for the number `highest - n`.
    seen: u64,
}

impl ReplayWindow {
    /// Accepts a number. Returns false if it came before, or is too old to tell. Numbers begin with 1.
    pub fn accept(&mut self, number: u64) -> bool {
        if number == 0 {
            return false;
        }
        if let Some(ahead) = number.checked_sub(self.highest).filter(|ahead| *ahead > 0) {
            let kept = u32::try_from(ahead).ok().and_then(|by| self.seen.checked_shl(by));
            self.seen = kept.unwrap_or(0) | 1;
            self.highest = number;
            return true;
        }
        let behind = self.highest - number;
        let bit = if behind < 64 { 1 << behind } else { return false };
        let fresh = self.seen & bit == 0;
        self.seen |= bit;
        fresh
    }

    /// Accepts a number as [`accept`](Self::accept) does, unless it is so far beyond those before that no
    /// sender can have come to it.
    pub fn accept_near(&mut self, number: u64) -> bool {
        let is_first = self.highest == 0;
        let is_near = is_first || number.saturating_sub(self.highest) <= JUMP_MAX;
        is_near && self.accept(number)
    }

    /// Returns how many of the `count` numbers up to `last` have come; `count` is at most 64.
    #[must_use]
    pub fn count(&self, last: u64, count: u64) -> u32 {
        let numbers = last.saturating_sub(count) + 1..=last;
        let seen = |n: u64| {
            self.highest.checked_sub(n).is_some_and(|b| b < 64 && self.seen & (1 << b) != 0)
        };
        numbers.filter(|n| seen(*n)).count() as u32
    }
}

/// A member returns when this many of the last [`HEARTBEATS_JUDGED`] heartbeats were echoed: nearly always
/// on a link that loses 30 % of its packets, rarely on one that loses 70 %.
const ECHOES_MIN: u32 = 4;
const HEARTBEATS_JUDGED: u64 = 12;

/// A member whose datagrams passed before, and which responds on the connection for this long without a
/// single echo, returns without them, in milliseconds: something on the path has begun to drop them.
const FALLBACK_MS: u64 = 5_000;

/// The pause before a member returns that went down soon after its last return, in milliseconds; doubled
/// with each relapse, up to [`RELAPSE_DOUBLINGS_MAX`] times.
const RELAPSE_MS: u64 = 500;
const RELAPSE_DOUBLINGS_MAX: u32 = 3;

/// A member that stayed up for this long counts as stable, in milliseconds.
const STEADY_MS: u64 = 20_000;

/// A key with which no heartbeat was echoed for this long is renewed, in milliseconds. Where datagrams do not
/// pass that is in vain, and costs one handshake.
const KEY_MS_UNANSWERED: u64 = 60_000;

/// The heartbeats between this node and one member, since it is a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatCounts {
    /// Sent to the member.
    pub sent: u64,
    /// Echoes of these that were taken as signs of life.
    pub acknowledged: u64,
    /// Heartbeats of the member that were echoed to it.
    pub answered: u64,
}

/// The failure detector of one member.
#[derive(Clone, Debug, Default)]
pub struct FailureDetector {
    /// The heartbeats so far.
    pub heartbeats: HeartbeatCounts,
    /// What the member gave for the datagrams to it.
    pub session: Option<Session>,
    /// The number of the last heartbeat.
    sequence: u64,
    echoes: ReplayWindow,
    /// When the latest echoed heartbeat was sent.
    last_echoed: Option<Instant>,
    /// Whether a datagram to the member was echoed.
    has_echoed: bool,
    /// Since when the member responds to every call, while it is unreachable.
    responding_since: Option<Instant>,
    has_been_down: bool,
    relapses: u32,
    returns_after: Instant,
}

impl FailureDetector {
    /// Returns the number of the heartbeat that is being sent: `first` for the first one, and one more for each
    /// after it.
    pub fn next_heartbeat(&mut self, first: u64) -> u64 {
        self.sequence = if self.sequence == 0 { first } else { self.sequence + 1 };
        self.heartbeats.sent += 1;
        self.sequence
    }

    /// Accepts the echo of a heartbeat that was sent at `sent`. Returns false if it is none, or came before.
    pub fn echo_received(&mut self, sequence: u64, sent: Instant) -> bool {
        if sequence > self.sequence || !self.echoes.accept(sequence) {
            return false;
        }
        self.last_echoed = self.last_echoed.max(Some(sent));
        self.has_echoed = true;
        self.heartbeats.acknowledged += 1;
        true
    }

    /// Returns whether a heartbeat of the last `patience_ms` was echoed.
    #[must_use]
    pub fn is_echoing(&self, now: Instant, patience_ms: u64) -> bool {
        self.last_echoed.is_some_and(|sent| now.since_ms(sent) < patience_ms)
    }

    /// Returns whether heartbeats to the member have not been echoed for long, although it responds, and its
    /// key is as old: it may take them for repeated ones, or have forgotten the key.
    #[must_use]
    pub fn is_unanswered(&self, now: Instant, last_handshake: Instant) -> bool {
        let is_old = now.since_ms(last_handshake) >= KEY_MS_UNANSWERED;
        is_old && self.session.is_some() && !self.is_echoing(now, KEY_MS_UNANSWERED)
    }

    /// Notes that the member responded on the connection while it was unreachable.
    pub fn responded(&mut self, now: Instant) {
        self.responding_since.get_or_insert(now);
    }

    /// Returns whether the member responds on the connection, while it is unreachable.
    #[must_use]
    pub fn is_responding(&self) -> bool {
        self.responding_since.is_some()
    }

    /// Notes that a call to the member failed.
    pub fn call_failed(&mut self) {
        self.responding_since = None;
    }

    /// Notes that the member went down, having been up since `since`.
    pub fn went_down(&mut self, now: Instant, since: Instant) {
        self.responding_since = None;
        let relapsed = self.has_been_down && now.since_ms(since) < STEADY_MS;
        self.relapses = if relapsed { self.relapses.saturating_add(1) } else { 0 };
        self.has_been_down = true;
        let pause_ms = match self.relapses.checked_sub(1) {
            None => 0,
            Some(before) => RELAPSE_MS << before.min(RELAPSE_DOUBLINGS_MAX),
        };
        self.returns_after = now.plus_ms(pause_ms);
    }

    /// Returns whether an unreachable member may return: it responds on the connection and, if datagrams
    /// passed before, enough of them pass again. A link that barely carries anything does not flap.
    #[must_use]
    pub fn may_return(&self, now: Instant) -> bool {
        let Some(since) = self.responding_since else { return false };
        if now < self.returns_after {
            return false;
        }
        if !self.has_echoed {
            return true;
        }
        let echoes = self.echoes.count(self.sequence, HEARTBEATS_JUDGED);
        echoes >= ECHOES_MIN || (echoes == 0 && now.since_ms(since) >= FALLBACK_MS)
    }

    /// Notes that the member is back. Where datagrams no longer pass, echoes are not required.
    pub fn returned(&mut self) {
        self.has_echoed &= self.echoes.count(self.sequence, HEARTBEATS_JUDGED) > 0;
        self.responding_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn number_is_accepted_once() {
        let mut window = ReplayWindow::default();
        for (number, fresh) in [
            (1, true),
            (1, false),
            (3, true),
            (2, true),
            (2, false),
            (0, false),
            (70, true),
            (6, false),
            (7, true),
            (7, false),
            (1_000, true),
            (70, false),
            (u64::MAX, true),
            (u64::MAX, false),
            (1_000, false),
        ] {
            assert_eq!(window.accept(number), fresh, "{number}");
        }
        let mut window = ReplayWindow::default();
        (1..=20).filter(|n| n % 2 == 0).for_each(|n| assert!(window.accept(n)));
        assert_eq!((window.count(20, 10), window.count(21, 10), window.count(20, 64)), (5, 5, 10));
    }

    #[test]
    fn number_far_beyond_the_others_is_not_accepted() {
        let mut window = ReplayWindow::default();
        assert!(!window.accept_near(0));
        assert!(window.accept_near(1 << 50), "the first may be any");
        assert!(!window.accept_near((1 << 50) + (1 << 20) + 1));
        assert!(!window.accept_near(u64::MAX));
        assert!(window.accept_near((1 << 50) + (1 << 20)));
        assert!(window.accept_near((1 << 50) + (1 << 20) - 1));
    }

    #[test]
    fn lossy_link_does_not_return_a_member() {
        let mut detector = FailureDetector::default();
        assert_eq!(detector.next_heartbeat(7), 7);
        assert!(detector.echo_received(7, at(0)) && !detector.echo_received(7, at(0)));
        assert!(!detector.echo_received(8, at(0)), "never sent");
        detector.went_down(at(90_000), at(0));
        detector.responded(at(91_000));
        for n in 0..100 {
            assert_eq!(detector.next_heartbeat(1), 8 + n);
            if n % 8 == 0 {
                detector.echo_received(8 + n, at(91_000 + n * 100));
            }
            assert!(!detector.may_return(at(91_000 + n * 100)), "heartbeat {n}");
        }
        for n in 108..112 {
            assert_eq!(detector.next_heartbeat(1), n);
            detector.echo_received(n, at(101_000));
        }
        assert!(detector.may_return(at(101_000)));
    }

    #[test]
    fn connection_is_enough_where_no_datagrams_pass() {
        let mut detector = FailureDetector::default();
        detector.went_down(at(90_000), at(0));
        assert!(!detector.may_return(at(90_500)), "it has not responded");
        detector.responded(at(90_500));
        assert!(detector.may_return(at(90_500)));
        // Where datagrams passed before and do not any more, it takes longer.
        detector.next_heartbeat(1);
        detector.echo_received(1, at(91_000));
        (0..20).for_each(|_| _ = detector.next_heartbeat(1));
        assert!(!detector.may_return(at(95_000)));
        assert!(detector.may_return(at(95_500)));
        detector.returned();
        detector.responded(at(96_000));
        assert!(detector.may_return(at(96_000)));
    }

    #[test]
    fn each_relapse_doubles_the_wait() {
        let mut detector = FailureDetector::default();
        let mut waits = [0; 7];
        let mut up = at(0);
        let mut now = at(100_000);
        for wait in &mut waits {
            detector.went_down(now, up);
            detector.responded(now);
            let down = now;
            while !detector.may_return(now) {
                now = now.plus_ms(10);
            }
            *wait = now.since_ms(down);
            detector.returned();
            up = now;
            now = now.plus_ms(3_000);
        }
        assert_eq!(waits, [0, 500, 1_000, 2_000, 4_000, 4_000, 4_000]);
    }
}
