//! Entries that are served while no node answers. The rules are those of the core; they are about what calls allow.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use zerocache_core::{
    client::{NearStorage, NearTimes, StrandedEpochs, near_hash},
    metadata::{EntryKind, Metadata},
    route::Tier,
    time::Instant,
    version::{Incarnation, Version},
};

use super::{FeedClaim, Fill, Near, NearEntry, computing::ChangeCount};

/// Most keys that are read again after an outage.
const KEYS_MAX: usize = 4_096;

/// Most bytes of values that are read again after an outage.
const BYTES_MAX: usize = 16 << 20;

/// Own changes of a key that are part of a write which fails: its begin and its end.
const CHANGES_OF_WRITE: u32 = 2;

/// The permission to keep a computed value that cannot be stored, unless something else becomes of its key from the
/// begin of the computation on.
pub(crate) struct UnstoredPermit {
    near: Arc<Near>,
    hash: u64,
    begun: Instant,
    before: ChangeCount,
}

impl UnstoredPermit {
    /// Whether nothing has become of the key but a write that failed, which is of the value itself.
    fn is_valid(&self) -> bool {
        let now = self.near.rules.storage().computing().count(self.hash);
        now.purges == self.before.purges
            && now.of_key.wrapping_sub(self.before.of_key) <= CHANGES_OF_WRITE
    }
}

impl Drop for UnstoredPermit {
    fn drop(&mut self) {
        self.near.rules.storage().computing().end(self.hash);
    }
}

impl fmt::Debug for UnstoredPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnstoredPermit").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl FeedClaim {
    /// Ends the following for another reason than that the node failed.
    pub(crate) fn end(&self) {
        self.0.rules.end_following();
    }
}

impl Near {
    /// Notes that a call allows an outage of `outage_ms`.
    pub(crate) fn want_outage(&self, outage_ms: u64) {
        self.rules.storage().want_outage(outage_ms);
    }

    /// Runs `use_entry` with the entry of `key`, if it may be served at `now` to a call that allows an outage of
    /// `outage_ms`. The caller has found out that no node answers.
    pub(crate) fn in_outage<R>(
        &self,
        key: &[u8],
        outage_ms: u64,
        now: Instant,
        use_entry: impl Fn(&NearEntry) -> R,
    ) -> Option<R> {
        let serves =
            |entry: &NearEntry| entry.key() == key && self.rules.outlives(entry, outage_ms, now);
        let use_entry = |entry: &NearEntry| {
            entry.want();
            use_entry(entry)
        };
        self.rules.storage().find(near_hash(key), serves, use_entry)
    }

    /// A value of `key` is being computed from `now` on.
    pub(crate) fn begin_unstored(self: &Arc<Self>, key: &[u8], now: Instant) -> UnstoredPermit {
        let (near, hash) = (Arc::clone(self), near_hash(key));
        let before = near.rules.storage().computing().begin(hash);
        UnstoredPermit { near, hash, begun: now, before }
    }

    /// Keeps a computed value that could not be stored, because no node can be reached.
    pub(crate) fn keep_unstored(
        permit: &UnstoredPermit,
        key: &[u8],
        value: &[u8],
        (metadata, remaining_ms): (&Metadata, u64),
        now: Instant,
    ) {
        let UnstoredPermit { near, hash, begun, .. } = permit;
        let storage = near.rules.storage();
        if metadata.kind != EntryKind::Value {
            return;
        }
        let Some(epoch) = near.rules.epoch_unstored(now) else { return };
        // No node has it: any version that one has is another value.
        let (version, node) = (Version::new(0, Incarnation(0)), Incarnation(0));
        let fill = Fill { value, version, remaining_ms, metadata, node, tier: Tier::Local };
        let entry = NearEntry::new(NearTimes::unstored(epoch, now), key, &fill);
        if !storage.has_room_for(&entry) {
            return;
        }
        storage.with_recent_writes(*hash, |_| {
            let is_newer =
                |held: &Arc<NearEntry>| held.key() == key && held.times.started() >= *begun;
            if permit.is_valid() && storage.with_item(*hash, is_newer) != Some(true) {
                storage.insert(*hash, Arc::new(entry));
            }
        });
    }

    /// A node has said what it knows of a key: its version, or nothing.
    pub(crate) fn node_answered(&self, key: &[u8], version: Option<Version>) {
        self.rules.node_answered(key, version);
    }

    /// Whether entries are set aside.
    pub(crate) fn has_stranded(&self) -> bool {
        self.rules.storage().has_stranded()
    }

    /// Returns the epochs whose entries are set aside.
    pub(crate) fn stranded(&self) -> StrandedEpochs {
        self.rules.storage().stranded()
    }

    /// Returns keys of entries that are set aside, those first that were asked for meanwhile.
    pub(crate) fn stranded_keys(&self) -> Vec<Bytes> {
        let (mut wanted, mut others, mut bytes) = (Vec::new(), Vec::new(), 0);
        for is_wanted in [true, false] {
            self.rules.storage().each(|entry| {
                let is_next =
                    entry.is_wanted() == is_wanted && self.rules.is_set_aside(&entry.times);
                let len = bytes + entry.value().len();
                if is_next && wanted.len() + others.len() < KEYS_MAX && len <= BYTES_MAX {
                    bytes = len;
                    let keys = if is_wanted { &mut wanted } else { &mut others };
                    keys.push(Bytes::copy_from_slice(entry.key()));
                }
            });
        }
        wanted.append(&mut others);
        wanted
    }

    /// Drops what is set aside, once it has been read again.
    pub(crate) fn drop_stranded(&self, stranded: &StrandedEpochs) {
        self.rules.drop_stranded(stranded);
    }

    /// Drops what is set aside once no call wants it any more.
    pub(crate) fn expire_stranded(&self, now: Instant) {
        self.rules.expire_stranded(now);
    }
}

#[cfg(test)]
mod tests {
    use zerocache_core::client::FEED_VALID_MS;

    use super::super::{FillPermit, tests::*};
    use super::*;

    const OUTAGE_MS: u64 = 100_000;

    fn wanted() -> (Arc<Near>, FeedClaim) {
        let (near, claim) = followed(4 << 20);
        near.want_outage(OUTAGE_MS);
        (near, claim)
    }

    fn is_served(near: &Near, key: &[u8], ms: u64) -> bool {
        near.in_outage(key, OUTAGE_MS, at(ms), |_| ()).is_some()
    }

    /// Follows another node from then on.
    fn follow(near: &Arc<Near>, ms: u64) -> FeedClaim {
        let claim = near.claim().expect("nobody else follows");
        claim.rules().apply_changes(at(ms), true, (&[], &[]), at(ms));
        claim
    }

    #[test]
    fn ends_are_spread_over_the_last_tenth() {
        let (near, claim) = wanted();
        let keys: Vec<_> = (0..100_u32).map(u32::to_be_bytes).collect();
        keys.iter().for_each(|key| read(&near, key, b"v", 1, at(1_000)));
        drop(claim);
        let served = |ms: u64| keys.iter().filter(|key| is_served(&near, *key, 1_000 + ms)).count();
        assert!(get(&near, &keys[0], at(1_001)).is_none(), "only when no node answers");
        assert_eq!((served(1), served(89_999), served(100_000)), (100, 100, 0));
        assert!((30..70).contains(&served(95_000)), "{}", served(95_000));
        // Reads that allow less get less.
        assert!(near.in_outage(&keys[0], 10_000, at(11_000), |_| ()).is_none());
        near.expire_stranded(at(50_000));
        assert_eq!(near.stats().entries, 100);
        near.expire_stranded(at(1_000 + OUTAGE_MS + FEED_VALID_MS));
        assert_eq!(near.stats().entries, 0);
    }

    #[test]
    fn nodes_that_come_and_go_lose_nothing_and_a_gap_loses_all() {
        let (near, mut claim) = wanted();
        for n in 0..4_u8 {
            read(&near, &[n], b"v", 1, at(u64::from(n) * 10 + 1));
            drop(claim);
            claim = follow(&near, u64::from(n + 1) * 10);
        }
        assert!((0..4).all(|n| is_served(&near, &[n], 100)));
        // A change that the node reports, what it says of a key, and a write of this process.
        claim.rules().apply_changes(at(50), false, (&[(near_hash(&[0]), 2)], &[]), at(50));
        near.node_answered(&[1], None);
        near.begin_write(&[2]);
        assert_eq!([0, 1, 2, 3].map(|n| is_served(&near, &[n], 100)), [false, false, false, true]);
        near.drop_stranded(&StrandedEpochs::default());
        assert!(is_served(&near, &[3], 100), "others than were read again");
        claim.rules().apply_changes(at(60), true, (&[], &[]), at(60));
        assert!(!is_served(&near, &[3], 100));
    }

    #[test]
    fn value_that_is_past_its_lifetime_before_the_outage_is_not_served() {
        let (near, claim) = wanted();
        let insert = |key: &[u8], ahead_ms| {
            let mut metadata = Metadata::default();
            metadata.refresh_ahead_ms = ahead_ms;
            let permit: FillPermit = near.begin_fill(at(0)).expect("a node is followed");
            near.insert(permit, key, &fill(b"v", 1, 5_000, &metadata), at(0));
        };
        insert(b"k", 0);
        insert(b"ahead", 4_000);
        let listen = |ms| claim.rules().apply_changes(at(ms), false, (&[], &[]), at(ms));
        listen(4_999);
        assert!(is_served(&near, b"k", 6_000) && is_served(&near, b"ahead", 6_000));
        listen(5_000);
        assert!(!is_served(&near, b"k", 6_000) && !is_served(&near, b"ahead", 6_000));
    }

    #[test]
    fn own_write_without_an_outcome_keeps_out_what_was_read_before_its_end() {
        let (near, claim) = wanted();
        let permit = near.begin_fill(at(1)).expect("a node is followed");
        near.begin_write(b"k");
        near.end_write(b"k", None, at(1));
        near.insert(permit, b"k", &fill(b"v", 1, LIFE_MS, &Metadata::default()), at(1));
        let unstored = near.begin_unstored(b"k", at(1));
        drop(claim);
        assert!(!is_served(&near, b"k", 2));
        // The write of a computed value fails, and nothing else happens to the key.
        near.begin_write(b"k");
        near.end_write(b"k", None, at(2));
        Near::keep_unstored(&unstored, b"k", b"v", (&Metadata::default(), LIFE_MS), at(2));
        assert!(is_served(&near, b"k", 3));
        near.begin_write(b"k");
        Near::keep_unstored(&unstored, b"k", b"v", (&Metadata::default(), LIFE_MS), at(2));
        assert!(!is_served(&near, b"k", 3), "it was deleted meanwhile");
    }
}
