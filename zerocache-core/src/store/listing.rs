//! The keys of a store, page by page, for operators.

use alloc::vec::Vec;
use core::{fmt, str::FromStr};

use super::{
    Backend, Lock, Store,
    backend::Pages,
    slot::{Class, SlotRef},
};
use crate::{
    key::{Key, SHARDS},
    locate::{KeyCopy, digest},
    time::Now,
    version::Version,
};

/// The most entries that are inspected while one shard is locked: some ten microseconds.
const LOCKED_MAX: usize = 256;

/// The progress of a walk over all keys, from the newest place of the first shard to the oldest of the last.
/// As text it is two numbers with a dot between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyCursor {
    shard: u8,
    /// The number of entries of the shard that are left.
    left: u64,
}

impl KeyCursor {
    /// The cursor of a walk that has not begun.
    pub const START: Self = Self { shard: 0, left: u64::MAX };

    /// The cursor of a walk that begins at the newest place of a shard; none if there is no such shard.
    #[must_use]
    pub fn of_shard(shard: u8) -> Option<Self> {
        (usize::from(shard) < SHARDS).then_some(Self { shard, ..Self::START })
    }
}

impl fmt::Display for KeyCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.shard, self.left)
    }
}

/// The reason why a text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor; the number of a shard, a dot and a number of entries are expected")]
pub struct InvalidCursor;

impl FromStr for KeyCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (shard, left) = text.split_once('.').ok_or(InvalidCursor)?;
        let shard: u8 = shard.parse().map_err(|_| InvalidCursor)?;
        let left = left.parse().map_err(|_| InvalidCursor)?;
        let start = Self::of_shard(shard).ok_or(InvalidCursor)?;
        Ok(Self { left, ..start })
    }
}

/// The bounds of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPageLimits {
    /// The most keys.
    pub keys_max: usize,
    /// The most bytes of keys; a single key may be longer.
    pub bytes_max: usize,
    /// The most entries that are inspected.
    pub inspected_max: usize,
}

/// What an entry is, apart from its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key.
    pub key: Vec<u8>,
    /// The length of the value, in bytes.
    pub value_bytes: u64,
    /// The bytes that the entry takes of the budget.
    pub weight: u64,
    /// The remaining lifetime, in milliseconds.
    pub remaining_ms: u64,
    /// The version.
    pub version: Version,
}

/// One page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// Keys of entries that are served.
    pub keys: Vec<KeyInfo>,
    /// Where the next page begins; none after the last one.
    pub next: Option<KeyCursor>,
    /// The number of entries that were inspected.
    pub inspected: usize,
}

impl<B: Backend> Store<B> {
    /// Returns a page of the keys that `is_wanted` accepts, given the key and its metadata, from `cursor` on. It
    /// may be empty although more follow. Counts no reads. `is_wanted` runs under a lock of the store and must
    /// not use the store.
    ///
    /// A key that is held throughout the walk is never left out; one may appear twice, if others were removed
    /// between two pages. Keys that are new since the walk passed their shard are left out.
    pub fn list_keys(
        &self,
        cursor: KeyCursor,
        limits: KeyPageLimits,
        now: Now,
        is_wanted: impl Fn(&[u8], &[u8]) -> bool,
    ) -> KeyPage {
        let mut page = KeyPage::default();
        let (mut bytes, mut at) = (0, cursor);
        while usize::from(at.shard) < SHARDS {
            if page.inspected >= limits.inspected_max || page.keys.len() >= limits.keys_max {
                page.next = Some(at);
                return page;
            }
            let most = LOCKED_MAX.min(limits.inspected_max - page.inspected);
            let is_full = self.shard(usize::from(at.shard)).with(|shard| {
                // Whoever made the cursor up gets what there is.
                at.left = at.left.min(shard.entry_count() as u64);
                for _ in 0..most {
                    let Some(index) = at.left.checked_sub(1) else { return false };
                    let slot = shard.slot(index as u32);
                    let is_listed = slot.class != Class::Reserved && self.is_served(slot, now);
                    if is_listed && is_wanted(slot.key(), slot.metadata()) {
                        let is_over = bytes + slot.key().len() > limits.bytes_max;
                        if page.keys.len() >= limits.keys_max || (is_over && bytes > 0) {
                            return true;
                        }
                        bytes += slot.key().len();
                        page.keys.push(info(slot, now));
                    }
                    at.left = index;
                    page.inspected += 1;
                }
                false
            });
            if is_full {
                page.next = Some(at);
                return page;
            }
            if at.left == 0 {
                at = KeyCursor { shard: at.shard + 1, left: u64::MAX };
            }
        }
        page
    }

    /// Describes what is known of a key, as a reader would get it: its value, or its tombstone. Counts no read.
    #[must_use]
    pub fn key_copy(&self, key: &Key, now: Now, with_digest: bool) -> KeyCopy {
        let hash = key.hash();
        let (mut copy, entry) = self.shard(hash.shard()).with(|shard| {
            let slot = shard.entry(hash).filter(|slot| slot.key() == key.as_bytes());
            let Some(slot) = slot else {
                let known = shard.version(hash);
                return (
                    known.map_or_else(KeyCopy::default, |v| KeyCopy::tombstone(v, false)),
                    None,
                );
            };
            let end = self.purged_from(slot);
            let is_purged = end.is_some_and(|end| end <= now.mono);
            if is_purged || slot.is_expired(now.mono) {
                return (KeyCopy::tombstone(slot.version, is_purged), None);
            }
            let entry = slot.entry();
            let expires = end.map_or(entry.expires, |end| end.min(entry.expires));
            let mut copy = KeyCopy::of(&entry, expires, now);
            copy.bytes = slot.value_bytes() as u64;
            (copy, (with_digest && !slot.is_on_disk()).then(|| entry.to_entry()))
        });
        // Not under the lock: a large value takes milliseconds.
        copy.digest = entry.map(|entry| digest(&entry));
        copy
    }

    /// Describes the entry of a key, if there is one that has not expired. Counts no read.
    #[must_use]
    pub fn key_info(&self, key: &Key, now: Now) -> Option<KeyInfo> {
        let hash = key.hash();
        self.shard(hash.shard()).with(|shard| {
            let slot = shard.peek(hash, key.as_bytes(), now.mono)?;
            self.is_served(slot, now).then(|| info(slot, now))
        })
    }
}

fn info<P: Pages>(slot: SlotRef<'_, P>, now: Now) -> KeyInfo {
    KeyInfo {
        key: slot.key().to_vec(),
        value_bytes: slot.value_bytes() as u64,
        weight: slot.weight(),
        remaining_ms: slot.expires.since_ms(now.mono),
        version: slot.version,
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, format, string::ToString};

    use bytes::Bytes;

    use super::*;
    use crate::{
        entry::{Change, Record},
        metadata::{Metadata, has_tag},
        purge::{PurgeMode, PurgeTarget, PurgeValue, TargetId},
        store::{Capacity, SingleThread},
        version::Incarnation,
    };

    const NOW: Now = Now::new(10_000, 1_000_000);

    fn key(n: u64) -> Key {
        Key::within(Bytes::from(format!("k{n}/{}", n % 3)), 64).expect("a key")
    }

    fn put(store: &Store<SingleThread>, n: u64, life_ms: u64) {
        let change = Change::Put {
            value: Bytes::from(alloc::vec![b'v'; n as usize % 40]),
            metadata: Bytes::new(),
            expires: NOW.mono.plus_ms(life_ms),
        };
        let version = Version::new((NOW.wall_ms << Version::COUNTER_BITS) + n, Incarnation(1));
        store.apply(&Record { key: key(n), version, change }, NOW);
    }

    fn delete(store: &Store<SingleThread>, n: u64) {
        let stamp = (NOW.wall_ms << Version::COUNTER_BITS) + 1_000_000 + n;
        let version = Version::new(stamp, Incarnation(1));
        store.apply(&Record { key: key(n), version, change: Change::Delete }, NOW);
    }

    fn store(count: u64) -> Store<SingleThread> {
        let store = Store::new(Capacity { entries_max: 1 << 20, bytes_max: 1 << 30 });
        (0..count).for_each(|n| put(&store, n, 5_000 + n));
        store
    }

    /// Walks the whole store; `between` runs between two pages. Returns how often each key came.
    fn walk(
        store: &Store<SingleThread>,
        limits: KeyPageLimits,
        mut between: impl FnMut(usize),
    ) -> BTreeMap<Vec<u8>, u64> {
        let (mut found, mut pages) = (BTreeMap::new(), 0);
        let mut cursor = Some(KeyCursor::START);
        while let Some(at) = cursor {
            let page = store.list_keys(at, limits, NOW, |_, _| true);
            assert!(page.keys.len() <= limits.keys_max && page.inspected <= limits.inspected_max);
            assert!(page.inspected > 0 || page.next.is_none() || !page.keys.is_empty(), "{at}");
            page.keys.into_iter().for_each(|info| *found.entry(info.key).or_default() += 1);
            cursor = page.next.map(|next| next.to_string().parse().expect("a cursor"));
            between(pages);
            pages += 1;
        }
        found
    }

    #[test]
    fn pages_hold_every_key_once() {
        let store = store(5_000);
        let wide = KeyPageLimits { keys_max: 1_024, bytes_max: 1 << 16, inspected_max: 16_384 };
        for limits in [
            wide,
            KeyPageLimits { keys_max: 1, ..wide },
            KeyPageLimits { keys_max: 97, ..wide },
            KeyPageLimits { bytes_max: 1, ..wide },
            KeyPageLimits { bytes_max: 500, ..wide },
            KeyPageLimits { inspected_max: 10, ..wide },
        ] {
            let found = walk(&store, limits, |_| {});
            assert_eq!(found.len(), 5_000, "{limits:?}");
            assert!(found.values().all(|times| *times == 1), "{limits:?}");
        }
        assert_eq!(store.stats().counts.hits + store.stats().counts.misses, 0);
    }

    #[test]
    fn key_that_stays_is_not_left_out_while_others_go() {
        let store = store(3_000);
        let limits = KeyPageLimits { keys_max: 50, bytes_max: 1 << 16, inspected_max: 16_384 };
        let found = walk(&store, limits, |page| {
            let gone = page as u64 * 37 % 1_500 * 2;
            (gone..gone + 20).step_by(2).for_each(|n| delete(&store, n));
            put(&store, 10_000 + page as u64, 5_000);
        });
        for n in (1..3_000).step_by(2) {
            assert!(found.contains_key(&key(n).as_bytes()[..]), "{n}");
        }
    }

    #[test]
    fn description_is_that_of_the_entry() {
        let store = store(100);
        let info = store.key_info(&key(41), NOW).expect("an entry");
        assert_eq!((info.value_bytes, info.remaining_ms), (1, 5_041));
        assert_eq!((&info.key[..], info.version.stamp() & 0xffff), (&key(41).as_bytes()[..], 41));
        assert!(info.weight > 40);
        let limits = KeyPageLimits { keys_max: 1_024, bytes_max: 1 << 16, inspected_max: 16_384 };
        let page = store.list_keys(KeyCursor::START, limits, NOW, |key, _| key.ends_with(b"/2"));
        assert!(page.keys.contains(&info) && page.keys.len() == 33 && page.next.is_none());
        delete(&store, 41);
        put(&store, 7, 0);
        assert_eq!((store.key_info(&key(41), NOW), store.key_info(&key(7), NOW)), (None, None));
        let found = walk(&store, limits, |_| {});
        assert_eq!(found.len(), 98, "neither deleted nor expired keys are listed");
    }

    #[test]
    fn entries_with_a_tag_are_listed_until_they_are_purged() {
        let store = store(100);
        let metadata = |tags: core::ops::Range<usize>| {
            let mut metadata = Metadata::default();
            // So long that the last ones are kept as hashes.
            tags.for_each(|n| metadata.add_tag(format!("{n:0>100}")).expect("a tag"));
            metadata.encode()
        };
        let record = |n: u64, change| {
            let stamp = (NOW.wall_ms << Version::COUNTER_BITS) + 10_000 + n;
            Record { key: key(n), version: Version::new(stamp, Incarnation(1)), change }
        };
        for (n, tags) in [(1, 0..1), (2, 0..20), (3, 19..20), (4, 18..19)] {
            let value = Bytes::from_static(b"v");
            let expires = NOW.mono.plus_ms(5_000);
            store.apply(&record(n, Change::Put { value, metadata: metadata(tags), expires }), NOW);
        }
        let listed = |tag: usize| {
            let id = TargetId::of_tag(format!("{tag:0>100}").as_bytes());
            let limits = KeyPageLimits { keys_max: 100, bytes_max: 1 << 16, inspected_max: 1_000 };
            let page =
                store.list_keys(KeyCursor::START, limits, NOW, |_, metadata| has_tag(metadata, id));
            let mut keys: Vec<_> = page.keys.into_iter().map(|info| info.key).collect();
            keys.sort();
            keys
        };
        let keys =
            |all: &[u64]| all.iter().map(|n| key(*n).as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(listed(19), keys(&[2, 3]), "as a hash and as text");
        assert_eq!((listed(0), listed(18), listed(17)), (keys(&[1, 2]), keys(&[2, 4]), keys(&[2])));
        assert_eq!(listed(20), keys(&[]));
        let purge = PurgeValue { hold_ms: 0, life_ms: 60_000 }.encode();
        let target = PurgeTarget::tag(&format!("{:0>100}", 18)).expect("a tag");
        let expires = NOW.mono.plus_ms(60_000);
        let change = Change::Put { value: purge, metadata: Bytes::new(), expires };
        let purge = Record { key: target.key(PurgeMode::Hard), ..record(9, change) };
        store.apply(&purge, NOW);
        assert_eq!((listed(19), listed(18)), (keys(&[3]), keys(&[])), "purged, and not yet swept");
    }

    #[test]
    fn text_of_a_cursor_is_checked() {
        for bad in ["", ".", "1", "1.", ".1", "64.0", "-1.0", "0.-1", "0.99999999999999999999"] {
            assert_eq!(bad.parse::<KeyCursor>(), Err(InvalidCursor), "{bad}");
        }
        let far: KeyCursor = "63.18446744073709551615".parse().expect("a cursor");
        let limits = KeyPageLimits { keys_max: 10, bytes_max: 1 << 16, inspected_max: 100 };
        let page = store(0).list_keys(far, limits, NOW, |_, _| true);
        assert_eq!(page, KeyPage::default());
    }
}
