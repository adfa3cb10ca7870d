//! What a near cache keeps when no node can be reached: the entries of the last epochs are set aside, and are
//! served in place of answers that no node gives.
//!
//! An entry was valid at least until the followed node was asked last with an answer, and when it was read. From
//! then on it may be served for as long as its reader says. It is removed by writes, deletes and purges of this
//! process, by changes that the next node reports, and by whatever a node says about its key.

use super::near::{FEED_VALID_MS, NearItem, NearRules, NearStorage, NearTimes, near_hash};
use crate::{time::Instant, version::Version};

/// Epochs whose entries are set aside: the nodes of a cluster that starts again may fail several times before all
/// entries have been read again.
const EPOCHS_MAX: usize = 4;

/// Entries of one outage end within this part of their bound, before it, and not all at once.
const SPREAD: u64 = 10;

/// Epochs whose entries are set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StrandedEpochs {
    /// Each with the time until which its changes are known. The latest is the first.
    epochs: [Option<(u64, Instant)>; EPOCHS_MAX],
    /// Until when an entry is known to have been valid.
    last: Instant,
}

impl StrandedEpochs {
    /// Whether nothing is set aside.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.epochs[0].is_none()
    }

    /// Whether the epochs are those of `other`.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.epochs == other.epochs
    }

    fn add(&mut self, epoch: u64, known: Instant) {
        self.epochs.rotate_right(1);
        self.epochs[0] = Some((epoch, known));
        self.last = self.last.max(known);
    }

    fn known(&self, epoch: u64) -> Option<Instant> {
        let known = |(of, known): &(u64, Instant)| (*of == epoch).then_some(*known);
        self.epochs.iter().flatten().find_map(known)
    }
}

impl<S: NearStorage> NearRules<S> {
    /// Ends the following of a node that failed. Entries are set aside if readers want them during an outage.
    pub fn lose_node(&self) {
        let storage = self.storage();
        if storage.outage_ms() == 0 {
            self.end_following();
        } else if let Some(known) = self.known() {
            // First, so that no own write misses them.
            storage.update_stranded(|stranded| stranded.add(storage.epoch(), known));
            storage.set_valid_until(Instant::default());
            storage.renew_epoch();
        }
    }

    /// Until when changes are known, while a node is followed.
    fn known(&self) -> Option<Instant> {
        let until = self.storage().valid_until().as_millis();
        (until > 0).then(|| Instant::from_millis(until.saturating_sub(FEED_VALID_MS)))
    }

    /// Whether an entry with these times is set aside.
    #[must_use]
    pub fn is_set_aside(&self, times: &NearTimes) -> bool {
        self.storage().stranded().known(times.epoch()).is_some()
    }

    /// Whether an entry may be served at `now`, while no node answers, to a reader who allows an outage of `outage_ms`.
    ///
    /// It was fresh when its validity was known last. Its lifetime may end during the outage.
    #[must_use]
    pub fn outlives(&self, item: &impl NearItem, outage_ms: u64, now: Instant) -> bool {
        let (epoch, started) = (item.times().epoch(), item.times().started());
        let current = self.known().filter(|_| epoch == self.storage().epoch());
        let Some(known) = current.or_else(|| self.storage().stranded().known(epoch)) else {
            return false;
        };
        let valid = known.max(started);
        // Another one for each key and process.
        let mixed =
            (near_hash(item.key()) ^ started.as_millis()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let spread_ms = ((mixed >> 32) * (outage_ms / SPREAD)) >> 32;
        now.since_ms(valid) < outage_ms - spread_ms && item.is_fresh(valid)
    }

    /// The epoch for a value that was computed at `now` and could not be stored, because no node can be reached.
    pub fn epoch_unstored(&self, now: Instant) -> Option<u64> {
        let storage = self.storage();
        if storage.outage_ms() == 0 {
            return None;
        }
        if self.is_followed(now) {
            // The end of the node is not known yet.
            return Some(storage.epoch());
        }
        let mut epoch = None;
        storage.update_stranded(|stranded| {
            if stranded.is_empty() {
                // What is there already was valid when the node answered last.
                stranded.add(storage.epoch(), self.known().unwrap_or_default());
                storage.renew_epoch();
            }
            stranded.last = stranded.last.max(now);
            epoch = stranded.epochs[0].map(|(epoch, _)| epoch);
        });
        epoch
    }

    /// A node has said what it knows of a key at `now`: its version, or nothing. An older entry that is set aside is
    /// removed.
    pub fn node_answered(&self, key: &[u8], version: Option<Version>) {
        if self.storage().has_stranded() {
            self.storage().remove_if(near_hash(key), |item| {
                let is_older = version.is_none_or(|version| item.version() < version);
                is_older && item.key() == key && self.is_set_aside(item.times())
            });
        }
    }

    /// Drops the entries of these epochs, once they have been read again, unless another node has failed meanwhile.
    pub fn drop_stranded(&self, stranded: &StrandedEpochs) {
        if !stranded.is_empty() {
            self.storage().drop_stranded(stranded);
        }
    }

    /// Drops what is set aside once no reader wants it any more.
    pub fn expire_stranded(&self, now: Instant) {
        let stranded = self.storage().stranded();
        // An entry may have been read for as long after that.
        if now.since_ms(stranded.last) >= self.storage().outage_ms() + FEED_VALID_MS {
            self.drop_stranded(&stranded);
        }
    }
}
