//! The keys that are read most, as far as the reads that are measured tell: one in 16.

use std::{fmt, str::FromStr};

use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use zerocache_core::{
    hot_keys::{HOT_KEY_NAME_BYTES_MAX, HotKeys},
    key::{KeyHash, SHARDS},
    time::Instant,
};
use zerocache_net::clock;

use crate::{hex, sampling::READS_PER_SAMPLE};

/// What a node keeps of the keys that are read most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HotKeyMode {
    /// Nothing.
    Off,
    /// Hashes and lengths.
    #[default]
    Hash,
    /// Names too; they are shown to those who may administer the node.
    Plain,
}

impl HotKeyMode {
    const ALL: [Self; 3] = [Self::Off, Self::Hash, Self::Plain];

    /// Returns the name of the mode, as the flag has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Hash => "hash",
            Self::Plain => "plain",
        }
    }
}

impl FromStr for HotKeyMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mode = Self::ALL.into_iter().find(|mode| mode.as_str() == text);
        mode.ok_or_else(|| format!("\"{text}\" is not known; use off, hash or plain"))
    }
}

impl fmt::Display for HotKeyMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Counts sampled reads by key. Shared by reference.
pub struct HotKeyTracker {
    mode: HotKeyMode,
    /// One sketch for each shard of the store; none if the mode is off.
    shards: Box<[Mutex<HotKeys>]>,
}

/// A key that is read often.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HotKeyInfo {
    /// Its hash.
    #[serde(serialize_with = "as_hex")]
    pub hash: KeyHash,
    /// Its length, in bytes.
    pub key_bytes: u32,
    /// Reads per second of it on this node, at least.
    pub reads_per_s: f64,
    /// The key as hexadecimal digits, or the beginning of a long one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_hex: Option<String>,
    /// The same as text, as far as it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

fn as_hex<S: Serializer>(hash: &KeyHash, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:032x}", { hash.0 }))
}

impl HotKeyTracker {
    /// Creates a tracker that has counted nothing.
    #[must_use]
    pub fn new(mode: HotKeyMode) -> Self {
        let shards = if mode == HotKeyMode::Off { 0 } else { SHARDS };
        let (now, keeps_names) = (clock::mono(), mode == HotKeyMode::Plain);
        let sketch = |_| Mutex::new(HotKeys::new(now, keeps_names));
        Self { mode, shards: (0..shards).map(sketch).collect() }
    }

    /// Returns what is kept of keys.
    #[must_use]
    pub const fn mode(&self) -> HotKeyMode {
        self.mode
    }

    /// Counts a sampled read, unless another thread counts one of the same shard.
    pub(crate) fn record(&self, key: &[u8], now: Instant) {
        if self.mode == HotKeyMode::Off {
            return;
        }
        let hash = KeyHash::of(key);
        if let Some(mut sketch) = self.shards[hash.shard()].try_lock() {
            sketch.record(hash, key, now);
        }
    }

    /// Returns the `count` keys that are read most, the first one first; with names if they are kept and
    /// `shows_names`.
    #[must_use]
    pub fn list(&self, count: usize, shows_names: bool) -> Vec<HotKeyInfo> {
        let now = clock::mono();
        let mut all = Vec::new();
        for sketch in &self.shards {
            all.extend(sketch.lock().list(now).map(|key| {
                let name = key.name.filter(|_| shows_names);
                let rate = key.reads_per_s * f64::from(READS_PER_SAMPLE);
                HotKeyInfo {
                    hash: key.hash,
                    key_bytes: key.key_bytes,
                    reads_per_s: (rate * 10.0).round() / 10.0,
                    key_hex: name.map(hex::encode),
                    key: name.map(|name| text_of(name, key.key_bytes)),
                }
            }));
        }
        all.sort_by(|a, b| b.reads_per_s.total_cmp(&a.reads_per_s).then(a.hash.cmp(&b.hash)));
        all.truncate(count);
        all
    }
}

/// Returns a key as text; of one that is longer than what is kept, the beginning and an ellipsis.
fn text_of(name: &[u8], key_bytes: u32) -> String {
    let mut text = String::from_utf8_lossy(name).into_owned();
    if key_bytes as usize > HOT_KEY_NAME_BYTES_MAX {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_only_where_they_are_kept_and_wanted() {
        for (mode, shows_names, name) in [
            (HotKeyMode::Hash, true, None),
            (HotKeyMode::Plain, false, None),
            (HotKeyMode::Plain, true, Some("abc\u{e9}")),
        ] {
            let tracker = HotKeyTracker::new(mode);
            tracker.record("abc\u{e9}".as_bytes(), clock::mono());
            let all = tracker.list(9, shows_names);
            assert_eq!((all.len(), all[0].key_bytes, all[0].key.as_deref()), (1, 5, name));
            let json = serde_json::to_value(&all[0]).expect("JSON");
            let hash = format!("{:032x}", { KeyHash::of("abc\u{e9}".as_bytes()).0 });
            assert_eq!(json["hash"].as_str(), Some(hash.as_str()));
            assert_eq!(json["key_hex"].as_str(), name.map(|_| "616263c3a9"));
        }
        let tracker = HotKeyTracker::new(HotKeyMode::Off);
        tracker.record(b"a", clock::mono());
        assert!(tracker.list(9, true).is_empty());
    }

    #[test]
    fn busy_sketch_is_passed_over() {
        let tracker = HotKeyTracker::new(HotKeyMode::Hash);
        let held = tracker.shards[KeyHash::of(b"a").shard()].lock();
        tracker.record(b"a", clock::mono());
        drop(held);
        assert!(tracker.list(9, true).is_empty());
    }

    #[test]
    fn hottest_keys_are_first_and_bounded() {
        let tracker = HotKeyTracker::new(HotKeyMode::Plain);
        for n in 0..200_u32 {
            for _ in 0..=n {
                tracker.record(&n.to_be_bytes(), clock::mono());
            }
        }
        let keys: Vec<_> =
            tracker.list(3, true).into_iter().filter_map(|key| key.key_hex).collect();
        assert_eq!(keys, ["000000c7", "000000c6", "000000c5"]);
    }

    #[test]
    fn modes_are_named() {
        for mode in HotKeyMode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("on".parse::<HotKeyMode>().is_err());
    }
}
