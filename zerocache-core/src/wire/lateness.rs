//! How much longer a message was on its way than the fastest one of its connection.
//!
//! Sender and receiver have clocks with different origins. The least difference between arrival and
//! sending that a connection has shown stands for the journey; what a message took beyond it, it
//! spent in a queue or in the buffer of a process that stood still, and is subtracted from lifetimes
//! and deadlines (contract, section 2).

use crate::time::Instant;

/// How fast two clocks may drift apart, in millionths: the least difference rises by that much with
/// time, so that a slow clock does not make everything late for ever. In a minute of standing still
/// it rises by 30 ms.
const DRIFT_MILLIONTHS: u64 = 500;

/// The least journey seen on one connection, in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lateness {
    fastest: Option<Fastest>,
}

/// The least difference and when it was true.
#[derive(Clone, Copy, Debug)]
struct Fastest {
    /// Arrival minus sending, modulo 2³².
    difference: u32,
    at: Instant,
}

impl Lateness {
    /// How late a message is that was sent at `sent_ms` of the sender's clock and is read at `now`, in
    /// milliseconds. The first one is on time.
    pub fn of(&mut self, sent_ms: u32, now: Instant) -> u64 {
        let difference = (now.as_millis() as u32).wrapping_sub(sent_ms);
        let Some(fastest) = self.fastest else {
            self.fastest = Some(Fastest { difference, at: now });
            return 0;
        };
        let drift = now.since_ms(fastest.at).saturating_mul(DRIFT_MILLIONTHS) / 1_000_000;
        let allowed = fastest.difference.wrapping_add(drift as u32);
        // Modulo 2³²: a negative number is a message faster than all before.
        let late = difference.wrapping_sub(allowed) as i32;
        if late <= 0 {
            self.fastest = Some(Fastest { difference, at: now });
        } else if drift > 0 {
            self.fastest = Some(Fastest { difference: allowed, at: now });
        }
        u64::from(late.max(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn the_fastest_message_is_the_measure() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.of(1_000, at(50_030)), 0);
        assert_eq!(lateness.of(1_010, at(50_035)), 0);
        assert_eq!(lateness.of(1_020, at(50_055)), 10);
        // Five seconds, less what the clocks may have drifted meanwhile.
        assert_eq!(lateness.of(1_030, at(55_055)), 4_998);
        assert_eq!(lateness.of(6_030, at(55_057)), 0);
    }

    #[test]
    fn a_long_freeze_is_seen_whole() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.of(0, at(1_000)), 0);
        // Sixty seconds in the buffer, then what was sent after it.
        assert_eq!(lateness.of(10, at(61_010)), 59_970);
        assert_eq!(lateness.of(60_020, at(61_020)), 0);
    }

    #[test]
    fn a_slow_sender_is_not_late_for_ever() {
        let mut lateness = Lateness::default();
        let mut worst = 0;
        // Its clock loses 200 millionths; a message each second for a day.
        for second in 0..86_400u64 {
            let sent = second * 1_000 - second / 5;
            worst = worst.max(lateness.of(sent as u32, at(second * 1_000)));
        }
        assert!(worst <= 2, "{worst}");
    }

    #[test]
    fn the_sender_clock_may_wrap() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.of(u32::MAX - 5, at(1_000)), 0);
        assert_eq!(lateness.of(4, at(1_010)), 0);
        assert_eq!(lateness.of(5, at(1_111)), 100);
        // The receiver's milliseconds pass 2³² too.
        let far = u64::from(u32::MAX) + 1;
        assert_eq!(lateness.of((far - 1_006) as u32, at(far)), 0);
        assert_eq!(lateness.of((far - 1_000) as u32, at(far + 6)), 0);
    }
}
