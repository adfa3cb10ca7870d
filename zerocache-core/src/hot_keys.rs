//! The keys that are read most: a space-saving sketch (Metwally, Agrawal, El Abbadi, 2005) whose
//! counts are halved from time to time, so that it follows the load.
//!
//! A key that is not in the sketch takes over the lowest counter; what that had counted is the error of the
//! key's count. A key that makes up more of the reads than one in [`HOT_KEY_COUNTERS`] is always there.

use alloc::{boxed::Box, vec::Vec};

use crate::{key::KeyHash, time::Instant};

/// Keys that a sketch counts at a time.
pub const HOT_KEY_COUNTERS: usize = 16;

/// The time after which all counts are halved, in milliseconds.
pub const HOT_KEYS_HALVED_MS: u64 = 30_000;

/// Bytes of the name of a key that are kept; of a longer one, these first ones.
pub const HOT_KEY_NAME_BYTES_MAX: usize = 256;

/// The shortest time for which a rate is computed, in milliseconds.
const WINDOW_MS_MIN: u64 = 1_000;

/// A sketch of the keys that are read most.
#[derive(Debug)]
pub struct HotKeys {
    counters: Vec<Counter>,
    counters_max: usize,
    keeps_names: bool,
    halved_every_ms: u64,
    halved: Instant,
    /// The time before `halved` that the counts stand for, each halving taken into account, in milliseconds.
    window_ms: u64,
}

#[derive(Debug)]
struct Counter {
    hash: KeyHash,
    count: u32,
    /// The part of the count that may be that of other keys.
    error: u32,
    key_bytes: u32,
    name: Option<Box<[u8]>>,
}

impl Counter {
    /// Whether its key was certainly read: most of the count is its own.
    fn is_certain(&self) -> bool {
        self.error <= self.count / 2
    }
}

/// A key that is read often.
#[derive(Clone, Debug, PartialEq)]
pub struct HotKey<'a> {
    /// Its hash.
    pub hash: KeyHash,
    /// Its length, in bytes.
    pub key_bytes: u32,
    /// The first [`HOT_KEY_NAME_BYTES_MAX`] bytes of the key, if names are kept.
    pub name: Option<&'a [u8]>,
    /// Reads per second that were recorded for it and no other key, over the last minute or so.
    pub reads_per_s: f64,
}

impl HotKeys {
    /// Creates an empty sketch at `now`, which keeps the names of keys if `keeps_names`.
    #[must_use]
    pub const fn new(now: Instant, keeps_names: bool) -> Self {
        Self::with_counters(HOT_KEY_COUNTERS, now, keeps_names)
    }

    const fn with_counters(counters_max: usize, now: Instant, keeps_names: bool) -> Self {
        let halved_every_ms = HOT_KEYS_HALVED_MS;
        let counters = Vec::new();
        Self { counters, counters_max, keeps_names, halved_every_ms, halved: now, window_ms: 0 }
    }

    /// Halves the counts at this interval instead of [`HOT_KEYS_HALVED_MS`], in milliseconds, at least 1: what a key has
    /// counts for once or twice as long.
    #[must_use]
    pub fn halved_every(self, halved_every_ms: u64) -> Self {
        Self { halved_every_ms, ..self }
    }

    /// Counts a read of `key`, whose hash is `hash`.
    pub fn record(&mut self, hash: KeyHash, key: &[u8], now: Instant) {
        self.age(now);
        if let Some(counter) = self.counters.iter_mut().find(|counter| counter.hash == hash) {
            counter.count = counter.count.saturating_add(1);
            return;
        }
        self.add(hash, key);
    }

    /// Returns how often a key was read per second, over one or two intervals of halving: what was recorded for it and no
    /// other key, and 0 if that is less than half of its count.
    #[must_use]
    pub fn reads_per_s(&self, hash: KeyHash, now: Instant) -> f64 {
        let counter = self.counters.iter().find(|counter| counter.hash == hash);
        counter.filter(|counter| counter.is_certain()).map_or(0.0, |counter| {
            f64::from(counter.count - counter.error) * 1e3 / self.window_ms(now) as f64
        })
    }

    /// Counts the first read of a key that has no counter.
    fn add(&mut self, hash: KeyHash, key: &[u8]) {
        let is_full = self.counters.len() >= self.counters_max;
        let lowest = self.counters.iter().enumerate().filter(|_| is_full);
        let lowest = lowest.min_by_key(|(_, counter)| counter.count).map(|(index, _)| index);
        let error = lowest.map_or(0, |index| self.counters[index].count);
        let name = || key[..key.len().min(HOT_KEY_NAME_BYTES_MAX)].into();
        let counter = Counter {
            hash,
            count: error.saturating_add(1),
            error,
            key_bytes: key.len() as u32,
            name: self.keeps_names.then(name),
        };
        match lowest {
            Some(index) => self.counters[index] = counter,
            None => {
                self.counters.reserve_exact(self.counters_max - self.counters.len());
                self.counters.push(counter);
            }
        }
    }

    /// Returns the keys that are certainly read, in no order: those of whose counts most are their own.
    pub fn list(&mut self, now: Instant) -> impl Iterator<Item = HotKey<'_>> {
        self.age(now);
        let window_ms = self.window_ms(now);
        let hot = self.counters.iter().filter(|counter| counter.is_certain());
        hot.map(move |counter| HotKey {
            hash: counter.hash,
            key_bytes: counter.key_bytes,
            name: counter.name.as_deref(),
            reads_per_s: f64::from(counter.count - counter.error) * 1e3 / window_ms as f64,
        })
    }

    /// The time that the counts stand for, in milliseconds.
    fn window_ms(&self, now: Instant) -> u64 {
        (self.window_ms + now.since_ms(self.halved)).max(WINDOW_MS_MIN)
    }

    /// Halves the counts as often as it is due.
    fn age(&mut self, now: Instant) {
        let times = now.since_ms(self.halved) / self.halved_every_ms;
        if times == 0 {
            return;
        }
        self.halved = self.halved.plus_ms(times * self.halved_every_ms);
        // After more halvings than bits there is nothing left, and the window no longer changes.
        let times = times.min(32) as u32;
        for _ in 0..times {
            self.window_ms = self.window_ms.midpoint(self.halved_every_ms);
        }
        for counter in &mut self.counters {
            counter.count = counter.count.checked_shr(times).unwrap_or(0);
            counter.error = counter.error.checked_shr(times).unwrap_or(0);
        }
        self.counters.retain(|counter| counter.count > 0);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use alloc::{collections::BTreeSet, format, string::String};

    use super::*;
    use crate::key::SHARDS;

    const START: Instant = Instant::from_millis(5_000);

    /// The sketches of all shards.
    struct Sketches(Vec<HotKeys>);

    impl Sketches {
        fn new(counters: usize) -> Self {
            Self((0..SHARDS).map(|_| HotKeys::with_counters(counters, START, true)).collect())
        }

        fn record(&mut self, key: &str, now: Instant) {
            let hash = KeyHash::of(key.as_bytes());
            self.0[hash.shard()].record(hash, key.as_bytes(), now);
        }

        /// The hottest keys, the first one first.
        fn top(&mut self, count: usize, now: Instant) -> Vec<(String, f64)> {
            let mut all: Vec<_> = self.0.iter_mut().flat_map(|part| part.list(now)).collect();
            all.sort_by(|a, b| b.reads_per_s.total_cmp(&a.reads_per_s));
            let named = all.into_iter().take(count).map(|key| {
                let name = String::from_utf8(key.name.expect("a name").to_vec()).expect("text");
                (name, key.reads_per_s)
            });
            named.collect()
        }
    }

    /// Draws `count` ranks below `keys` by Zipf's law with the exponent `skew`.
    fn zipf(keys: u32, skew: f64, count: usize) -> impl Iterator<Item = usize> {
        let mut sum = 0.0;
        let cumulated: Vec<f64> = (1..=keys)
            .map(|rank| {
                sum += 1.0 / f64::from(rank).powf(skew);
                sum
            })
            .collect();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..count).map(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = (state >> 11) as f64 / (1_u64 << 53) as f64 * sum;
            cumulated.partition_point(|sum| *sum < at)
        })
    }

    #[test]
    fn hot_keys_of_a_zipf_load_are_found() {
        // Of 4 million reads, those that are sampled.
        const SAMPLES: usize = 250_000;
        for skew in [0.8, 1.0, 1.2] {
            let mut sketches = Sketches::new(HOT_KEY_COUNTERS);
            for rank in zipf(100_000, skew, SAMPLES) {
                sketches.record(&format!("key {rank}"), START);
            }
            let found = sketches.top(10, START.plus_ms(10_000));
            let names: BTreeSet<_> = found.iter().map(|(name, _)| name.as_str()).collect();
            let wanted: Vec<_> = (0..10).map(|rank| format!("key {rank}")).collect();
            let wanted: BTreeSet<_> = wanted.iter().map(String::as_str).collect();
            assert_eq!(names, wanted, "skew {skew}: {found:?}");
        }
    }

    #[test]
    fn hot_key_rates_follow_the_load() {
        let mut sketches = Sketches::new(HOT_KEY_COUNTERS);
        // 20 reads per second of one key for five minutes.
        let mut now = START;
        for _ in 0..300 * 20 {
            now = now.plus_ms(50);
            sketches.record("old", now);
        }
        let (name, rate) = sketches.top(1, now).remove(0);
        assert!(name == "old" && (18.0..22.0).contains(&rate), "{name}: {rate}");
        // Then 40 of another one.
        for _ in 0..120 * 40 {
            now = now.plus_ms(25);
            sketches.record("new", now);
        }
        let top = sketches.top(2, now);
        assert!(top[0].0 == "new" && (30.0..44.0).contains(&top[0].1), "{top:?}");
        assert!(top[1].0 == "old" && top[1].1 < 3.0, "{top:?}");
        assert!(sketches.top(2, now.plus_ms(3_600_000)).is_empty());
    }

    #[test]
    fn hot_keys_are_not_those_that_are_read_once() {
        let mut sketch = HotKeys::new(START, false);
        for n in 0..10_000_u32 {
            let key = n.to_le_bytes();
            sketch.record(KeyHash::of(&key), &key, START);
        }
        assert_eq!(sketch.counters.len(), HOT_KEY_COUNTERS);
        assert_eq!(sketch.list(START).count(), 0);
    }

    #[test]
    fn hot_key_names_are_bounded_and_kept_on_request_only() {
        let key = [b'x'; 1_000];
        let hash = KeyHash::of(&key);
        for keeps_names in [false, true] {
            let mut sketch = HotKeys::new(START, keeps_names);
            sketch.record(hash, &key, START);
            let hot = sketch.list(START).next().expect("a key");
            assert_eq!((hot.hash, hot.key_bytes), (hash, 1_000));
            assert_eq!(hot.name, keeps_names.then_some(&key[..HOT_KEY_NAME_BYTES_MAX]));
        }
    }
}
