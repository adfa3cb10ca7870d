//! Queueing delay of messages: the time a message took beyond the fastest one of its connection.
//!
//! Sender and receiver have clocks with different origins, so the one-way delay itself is unknown. The
//! least difference between arrival and sending on a connection serves as its base delay (as in LEDBAT,
//! RFC 6817). Any time beyond the base delay was spent in a queue, or in the buffer of a suspended
//! process. It is subtracted from lifetimes and deadlines (contract, section 2).

use crate::time::Instant;

/// The clock drift that is tolerated, in millionths: the base delay rises by that much with time, so that a
/// slow clock does not make every message late. It rises by 30 ms in a minute of suspension.
const DRIFT_MILLIONTHS: u64 = 500;

/// Estimates the queueing delay of the messages of one connection, in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct DelayEstimator {
    base: Option<BaseDelay>,
}

/// The least difference between arrival and sending, and the time of its last update.
#[derive(Clone, Copy, Debug)]
struct BaseDelay {
    /// Arrival minus sending, modulo 2³².
    difference: u32,
    at: Instant,
}

impl DelayEstimator {
    /// Records a message sent at `sent_ms` of the sender's clock and read at `now`. Returns its queueing
    /// delay in milliseconds, which is 0 for the first message.
    pub fn record(&mut self, sent_ms: u32, now: Instant) -> u64 {
        let difference = (now.as_millis() as u32).wrapping_sub(sent_ms);
        let Some(base) = self.base else {
            self.base = Some(BaseDelay { difference, at: now });
            return 0;
        };
        let drift = now.since_ms(base.at).saturating_mul(DRIFT_MILLIONTHS) / 1_000_000;
        let allowed = base.difference.wrapping_add(drift as u32);
        // Modulo 2³²: a negative delay means that this message is the fastest so far.
        let delay = difference.wrapping_sub(allowed) as i32;
        if delay <= 0 {
            self.base = Some(BaseDelay { difference, at: now });
        } else if drift > 0 {
            self.base = Some(BaseDelay { difference: allowed, at: now });
        }
        u64::from(delay.max(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn delay_is_measured_from_the_fastest_message() {
        let mut delays = DelayEstimator::default();
        assert_eq!(delays.record(1_000, at(50_030)), 0);
        assert_eq!(delays.record(1_010, at(50_035)), 0);
        assert_eq!(delays.record(1_020, at(50_055)), 10);
        // Five seconds, less the tolerated drift.
        assert_eq!(delays.record(1_030, at(55_055)), 4_998);
        assert_eq!(delays.record(6_030, at(55_057)), 0);
    }

    #[test]
    fn long_suspension_counts_in_full() {
        let mut delays = DelayEstimator::default();
        assert_eq!(delays.record(0, at(1_000)), 0);
        // Sixty seconds in the buffer, then a message sent after the suspension.
        assert_eq!(delays.record(10, at(61_010)), 59_970);
        assert_eq!(delays.record(60_020, at(61_020)), 0);
    }

    #[test]
    fn slow_sender_clock_causes_no_lasting_delay() {
        let mut delays = DelayEstimator::default();
        let mut worst = 0;
        // The sender's clock loses 200 millionths; one message per second for a day.
        for second in 0..86_400u64 {
            let sent = second * 1_000 - second / 5;
            worst = worst.max(delays.record(sent as u32, at(second * 1_000)));
        }
        assert!(worst <= 2, "{worst}");
    }

    #[test]
    fn clocks_may_wrap() {
        let mut delays = DelayEstimator::default();
        assert_eq!(delays.record(u32::MAX - 5, at(1_000)), 0);
        assert_eq!(delays.record(4, at(1_010)), 0);
        assert_eq!(delays.record(5, at(1_111)), 100);
        // The receiver's milliseconds pass 2³² too.
        let far = u64::from(u32::MAX) + 1;
        assert_eq!(delays.record((far - 1_006) as u32, at(far)), 0);
        assert_eq!(delays.record((far - 1_000) as u32, at(far + 6)), 0);
    }
}
