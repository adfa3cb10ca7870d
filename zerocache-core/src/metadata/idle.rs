//! The time to idle: each use restarts the fresh time, within the lifetime of the entry.

use super::Metadata;
use crate::ttl::Ttl;

impl Metadata {
    /// Sets the idle time of an entry that is fresh for at most `fresh`, and returns its fresh time when it is stored.
    pub fn set_idle(&mut self, idle: Ttl, fresh: Ttl) -> Ttl {
        if idle >= fresh {
            return fresh;
        }
        (self.idle_ms, self.idle_most_ms) = (idle.as_millis(), fresh.as_millis());
        idle
    }

    /// Returns after how long a use of an entry with a remaining lifetime of `remaining_ms` is to be reported, in
    /// milliseconds: a quarter of the idle time after the last one. `None` if a use does not lengthen its life.
    #[must_use]
    pub fn use_due_ms(&self, remaining_ms: u64) -> Option<u64> {
        let is_extended = self.idle_ms > 0 && self.idle_most_ms > self.idle_ms;
        let last_ms = self.idle_ms - self.idle_ms / 4;
        is_extended.then(|| self.fresh_ms(remaining_ms).saturating_sub(last_ms))
    }

    /// Returns what a use makes of a fresh entry with a remaining lifetime of `remaining_ms`: its metadata, and its
    /// fresh time. `None` if that does not lengthen its life.
    #[must_use]
    pub fn used(&self, remaining_ms: u64) -> Option<(Self, Ttl)> {
        let fresh_ms = self.fresh_ms(remaining_ms);
        let passed_ms = self.idle_ms.min(self.idle_most_ms).saturating_sub(fresh_ms);
        let most_ms = self.idle_most_ms.saturating_sub(passed_ms);
        let fresh = Ttl::from_millis(self.idle_ms.min(most_ms)).ok()?;
        let is_longer = fresh_ms > 0 && fresh.as_millis() > fresh_ms;
        is_longer.then(|| (Self { idle_most_ms: most_ms, ..self.clone() }, fresh))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_lengthen_a_life_up_to_its_end() {
        let minutes = |n: u64| Ttl::from_secs(60 * n).unwrap();
        let ms = |n: u64| n * 60_000;
        let mut metadata = Metadata { stale_while_ms: 5_000, ..Metadata::default() };
        assert_eq!(metadata.set_idle(minutes(40), minutes(30)), minutes(30));
        assert_eq!((metadata.idle_ms, metadata.use_due_ms(9), metadata.used(9)), (0, None, None));
        assert_eq!(metadata.set_idle(minutes(20), minutes(60)), minutes(20));
        assert_eq!(Metadata::decode(&metadata.encode()), Ok(metadata.clone()));
        // Told a quarter of the idle time after the last use.
        assert_eq!(metadata.use_due_ms(ms(20) + 5_000), Some(ms(5)));
        assert_eq!(metadata.use_due_ms(ms(15) + 5_000), Some(0));
        assert_eq!(metadata.use_due_ms(5_000), Some(0));
        assert_eq!(metadata.used(ms(20) + 5_000), None, "at once");
        assert_eq!(metadata.used(5_000), None, "not fresh any more");
        // Used each 15 minutes: 60 in all.
        let (mut left, mut passed) = (minutes(20), 0);
        while let Some((used, fresh)) = metadata.used(left.as_millis() - ms(15) + 5_000) {
            (metadata, left, passed) = (used, fresh, passed + 15);
            assert_eq!(metadata.idle_most_ms, ms(60 - passed));
        }
        assert_eq!((passed, left), (45, minutes(15)));
        assert_eq!(metadata.use_due_ms(ms(15) + 5_000), None, "nothing lengthens it further");
    }
}
