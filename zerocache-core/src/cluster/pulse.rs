//! Heartbeats to one member and the echoes that came back.

use crate::{time::Instant, wire::SessionKey};

/// Which of the last 64 numbers have come, so that none counts twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    highest: u64,
    /// Bit `n` stands for the number `highest - n`.
    seen: u64,
}

impl Window {
    /// Takes a number; false when it came before, or is too old to tell. Numbers begin with 1.
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

    /// How many of the `count` numbers up to `last` have come; `count` is at most 64.
    #[must_use]
    pub fn count(&self, last: u64, count: u64) -> u32 {
        let numbers = last.saturating_sub(count) + 1..=last;
        let seen = |n: u64| {
            self.highest.checked_sub(n).is_some_and(|b| b < 64 && self.seen & (1 << b) != 0)
        };
        numbers.filter(|n| seen(*n)).count() as u32
    }
}

/// A member comes back when this many of the last [`BEATS_JUDGED`] beats were echoed: of a link that
/// loses 30 % of what it carries nearly always, of one that loses 70 % rarely.
const ECHOES_MIN: u32 = 4;
const BEATS_JUDGED: u64 = 12;

/// A member whose datagrams passed before, and which answers on the connection for this long without
/// a single echo, is back without them, in milliseconds: something between has begun to keep them.
const FALLBACK_MS: u64 = 5_000;

/// The pause before a member comes back that went down soon after it had come back, in milliseconds;
/// doubled with each time, up to [`RELAPSE_DOUBLINGS_MAX`] times.
const RELAPSE_MS: u64 = 500;
const RELAPSE_DOUBLINGS_MAX: u32 = 3;

/// A member that stayed up for this long is as good as any other, in milliseconds.
const STEADY_MS: u64 = 20_000;

/// Heartbeats to one member.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// The key that it gave for the datagrams to it.
    pub key: Option<SessionKey>,
    /// The number of the last beat.
    sequence: u64,
    echoes: Window,
    /// When the latest beat that was echoed had been sent.
    echoed: Option<Instant>,
    /// Whether datagrams to it and back have passed.
    passed: bool,
    /// Since when it answers every call, while it is out.
    answering: Option<Instant>,
    has_been_down: bool,
    relapses: u32,
    until: Instant,
}

impl Pulse {
    /// A beat with this number, above all before, was sent.
    pub fn beat(&mut self, sequence: u64) {
        self.sequence = sequence;
    }

    /// Takes the echo of a beat that was sent at `sent`; false when it is none, or came before.
    pub fn echoed(&mut self, sequence: u64, sent: Instant) -> bool {
        if sequence > self.sequence || !self.echoes.accept(sequence) {
            return false;
        }
        self.echoed = self.echoed.max(Some(sent));
        self.passed = true;
        true
    }

    /// Whether datagrams pass at `now`, within `patience_ms`.
    #[must_use]
    pub fn passes(&self, now: Instant, patience_ms: u64) -> bool {
        self.echoed.is_some_and(|sent| now.since_ms(sent) < patience_ms)
    }

    /// The member answered on the connection while it was out.
    pub fn answered(&mut self, now: Instant) {
        self.answering.get_or_insert(now);
    }

    /// Whether it answers on the connection, while it is out.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        self.answering.is_some()
    }

    /// A call to it failed.
    pub fn failed(&mut self) {
        self.answering = None;
    }

    /// The member went down, having been up since `since`.
    pub fn went_down(&mut self, now: Instant, since: Instant) {
        self.answering = None;
        let relapsed = self.has_been_down && now.since_ms(since) < STEADY_MS;
        self.relapses = if relapsed { self.relapses.saturating_add(1) } else { 0 };
        self.has_been_down = true;
        let pause_ms = match self.relapses.checked_sub(1) {
            None => 0,
            Some(before) => RELAPSE_MS << before.min(RELAPSE_DOUBLINGS_MAX),
        };
        self.until = now.plus_ms(pause_ms);
    }

    /// Whether a member that is out may come back: it answers on the connection and, if datagrams
    /// passed before, enough of them pass again. A link that barely carries anything does not flap.
    #[must_use]
    pub fn may_return(&self, now: Instant) -> bool {
        let Some(answering) = self.answering else { return false };
        if now < self.until {
            return false;
        }
        if !self.passed {
            return true;
        }
        let echoes = self.echoes.count(self.sequence, BEATS_JUDGED);
        echoes >= ECHOES_MIN || (echoes == 0 && now.since_ms(answering) >= FALLBACK_MS)
    }

    /// The member is back. Where datagrams no longer pass nothing is expected of them.
    pub fn returned(&mut self) {
        self.passed &= self.echoes.count(self.sequence, BEATS_JUDGED) > 0;
        self.answering = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn no_number_counts_twice() {
        let mut window = Window::default();
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
        let mut window = Window::default();
        (1..=20).filter(|n| n % 2 == 0).for_each(|n| assert!(window.accept(n)));
        assert_eq!((window.count(20, 10), window.count(21, 10), window.count(20, 64)), (5, 5, 10));
    }

    #[test]
    fn a_link_that_barely_carries_datagrams_brings_nobody_back() {
        let mut pulse = Pulse::default();
        pulse.beat(7);
        assert!(pulse.echoed(7, at(0)) && !pulse.echoed(7, at(0)));
        assert!(!pulse.echoed(8, at(0)), "never sent");
        pulse.went_down(at(90_000), at(0));
        pulse.answered(at(91_000));
        for n in 0..100 {
            pulse.beat(8 + n);
            if n % 8 == 0 {
                pulse.echoed(8 + n, at(91_000 + n * 100));
            }
            assert!(!pulse.may_return(at(91_000 + n * 100)), "beat {n}");
        }
        for n in 108..112 {
            pulse.beat(n);
            pulse.echoed(n, at(101_000));
        }
        assert!(pulse.may_return(at(101_000)));
    }

    #[test]
    fn without_datagrams_the_connection_is_enough() {
        let mut pulse = Pulse::default();
        pulse.went_down(at(90_000), at(0));
        assert!(!pulse.may_return(at(90_500)), "it has not answered");
        pulse.answered(at(90_500));
        assert!(pulse.may_return(at(90_500)));
        // Where they passed before and do not any more it takes longer.
        pulse.beat(1);
        pulse.echoed(1, at(91_000));
        pulse.beat(21);
        assert!(!pulse.may_return(at(95_000)));
        assert!(pulse.may_return(at(95_500)));
        pulse.returned();
        pulse.answered(at(96_000));
        assert!(pulse.may_return(at(96_000)));
    }

    #[test]
    fn whoever_relapses_waits_longer_each_time() {
        let mut pulse = Pulse::default();
        let mut waits = [0; 7];
        let mut up = at(0);
        let mut now = at(100_000);
        for wait in &mut waits {
            pulse.went_down(now, up);
            pulse.answered(now);
            let down = now;
            while !pulse.may_return(now) {
                now = now.plus_ms(10);
            }
            *wait = now.since_ms(down);
            pulse.returned();
            up = now;
            now = now.plus_ms(3_000);
        }
        assert_eq!(waits, [0, 500, 1_000, 2_000, 4_000, 4_000, 4_000]);
    }
}
