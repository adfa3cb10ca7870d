//! Which codec the choice `auto` tries first for a type.
//!
//! Values are written in bincode. If it does not read one back, the next values of the type are written in
//! MessagePack, and after some of them bincode is tried again: after 1, 3, 7 … 1,023 values, as long as it fails,
//! and sooner again each time that it does not. So one odd value costs one attempt, and so does, in the long run, a
//! type that bincode never reads back.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// The logarithm of the number of values until bincode is tried again, at most.
const LEVEL_MAX: u32 = 10;

/// The preference of one type. Concurrent writers may lose a step, which is harmless.
#[derive(Debug, Default)]
pub(crate) struct Preference {
    level: AtomicU32,
    /// The number of values until bincode is tried again.
    left: AtomicU32,
    /// It was said that MessagePack is used.
    is_known: AtomicBool,
}

/// The codecs to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    BincodeFirst,
    MessagePackFirst,
}

impl Preference {
    /// Returns the codecs to try for the next value.
    pub(super) fn order(&self) -> Order {
        match self.left.load(Relaxed) {
            0 => Order::BincodeFirst,
            left => {
                self.left.store(left - 1, Relaxed);
                Order::MessagePackFirst
            }
        }
    }

    /// Notes that bincode, tried first, has read a value back.
    pub(super) fn note_bincode(&self) {
        let level = self.level.load(Relaxed);
        if level > 0 {
            self.set_level(level - 1);
        }
    }

    /// Notes that MessagePack has read a value back, which bincode may have `refused` before.
    pub(super) fn note_messagepack(&self, refused: bool) {
        if refused {
            self.set_level((self.level.load(Relaxed) + 1).min(LEVEL_MAX));
        }
    }

    /// Returns true once.
    pub(super) fn is_news(&self) -> bool {
        !self.is_known.load(Relaxed) && !self.is_known.swap(true, Relaxed)
    }

    fn set_level(&self, level: u32) {
        self.level.store(level, Relaxed);
        self.left.store((1 << level) - 1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes values, of which bincode reads back those of which `reads` says so. Returns how often it was tried.
    fn write(preference: &Preference, count: u32, reads: impl Fn(u32) -> bool) -> u32 {
        let mut tried = 0;
        for number in 0..count {
            if preference.order() != Order::BincodeFirst {
                preference.note_messagepack(false);
                continue;
            }
            tried += 1;
            if reads(number) {
                preference.note_bincode();
            } else {
                preference.note_messagepack(true);
            }
        }
        tried
    }

    #[test]
    fn odd_value_moves_a_type_for_one_value() {
        let preference = Preference::default();
        assert_eq!(write(&preference, 1_000, |number| number != 500), 999);
    }

    #[test]
    fn type_that_bincode_never_reads_back_is_hardly_tried_there() {
        let preference = Preference::default();
        assert_eq!(write(&preference, 2_000, |_| false), 10);
        assert!(write(&preference, 10_000, |_| false) <= 10);
        // When its values change, it comes back.
        assert!(write(&preference, 10_000, |_| true) > 7_000);
    }
}
