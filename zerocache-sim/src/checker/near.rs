//! Values that are served near: what was reported to the process, and what the node that it follows knew.

use std::collections::BTreeMap;

use zerocache_core::{
    client::{FEED_VALID_MS, RECENT_WRITE_MS},
    purge::TargetId,
    version::{Incarnation, Version},
    wire::KeyChange,
};

use super::{Checker, Rule};

/// How old what is served near may be (contract section 5), in milliseconds.
pub(crate) const NEAR_AGE_MS: u64 = 5_000;

/// What clocks lose in these times, and whole milliseconds, in microseconds.
const ROUNDING_US: u64 = 5_000;

/// The changes that were reported to a client.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// The node that it follows, once that has answered.
    node: Option<Incarnation>,
    /// The time at which changes may have been missed last.
    gap_us: u64,
    /// The time of the last request that was answered.
    asked_us: u64,
    /// The highest stamp that was reported, by the hash of the key, and when.
    changes: BTreeMap<u64, (u64, u64)>,
    /// The same of purges, by the identity of the target.
    purges: BTreeMap<u64, (u64, u64)>,
}

/// A value that was served near.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NearHit<'a> {
    pub(crate) client: usize,
    pub(crate) key: usize,
    /// The hash by which the key is reported.
    pub(crate) hash: u64,
    pub(crate) version: Version,
    pub(crate) value: &'a [u8],
    /// When the read or write that brought it began and ended.
    pub(crate) began_us: u64,
    pub(crate) kept_us: u64,
}

impl Checker {
    /// A client got the answer to a request for changes.
    pub(crate) fn changes_reported(
        &mut self,
        client: usize,
        node: Incarnation,
        asked_us: u64,
        (lost, changes, purges): (bool, &[KeyChange], &[KeyChange]),
    ) {
        let now_us = self.now_us;
        let reported = self.reported.entry(client).or_default();
        if lost || reported.node != Some(node) {
            reported.gap_us = now_us;
        }
        (reported.node, reported.asked_us) = (Some(node), asked_us);
        let Reported { changes: known_changes, purges: known_purges, .. } = reported;
        let changes = changes.iter().map(|row| (true, row));
        let purges = purges.iter().map(|row| (false, row));
        for (is_change, &(hash, stamp)) in changes.chain(purges) {
            let known = if is_change { &mut *known_changes } else { &mut *known_purges };
            let known = known.entry(hash).or_default();
            if stamp >= known.0 {
                *known = (stamp, now_us);
            }
        }
    }

    /// A purge of a client was acknowledged: entries of the target with stamps up to this one have ended.
    pub(crate) fn purged_by(&mut self, client: usize, target: TargetId, stamp: u64) {
        let reported = self.reported.entry(client).or_default();
        let known = reported.purges.entry(target.0).or_default();
        *known = (*known).max((stamp, self.now_us));
    }

    /// A client does not follow its node any more.
    pub(crate) fn following_ended(&mut self, client: usize) {
        let gap_us = self.now_us;
        let reported = self.reported.entry(client).or_default();
        (reported.node, reported.gap_us) = (None, gap_us);
    }

    /// A client was given this without asking a node.
    pub(crate) fn near_hit(&mut self, hit: &NearHit<'_>) {
        let NearHit { client, key, hash, version, value, began_us, kept_us } = *hit;
        let Some(reported) = self.reported.get(&client) else { return };
        let since_ms = |at_us: u64| (self.now_us - at_us).saturating_sub(ROUNDING_US) / 1_000;
        let keeps_out =
            |change_us: u64| kept_us + ROUNDING_US < change_us + RECENT_WRITE_MS * 1_000;
        let is_older =
            |(stamp, reported_us): &(u64, u64)| *stamp > version.stamp() && keeps_out(*reported_us);
        let node = reported.node.filter(|_| since_ms(reported.asked_us) < FEED_VALID_MS);
        // What the node knew when it was asked, and had not known when it was followed first.
        let knew = node.and_then(|node| self.newest_of(node, key));
        let knew_newer = knew.is_some_and(|(known, at_us)| {
            known.stamp() > version.stamp()
                && at_us > reported.gap_us
                && at_us <= reported.asked_us
                && keeps_out(at_us)
        });
        let is_reported = |target: u64, stamp: u64| {
            let known = reported.purges.get(&target);
            known.is_some_and(|(below, reported_us)| *below > stamp && keeps_out(*reported_us))
        };
        let was_known =
            |at_us: u64| at_us > reported.gap_us && at_us <= reported.asked_us && keeps_out(at_us);
        let is_purged = self.is_purged_near((key, version, value), node, (is_reported, was_known));
        let fault = if node.is_none() {
            "while no node tells of changes"
        } else if since_ms(began_us) >= NEAR_AGE_MS {
            "too long after it was read"
        } else if began_us < reported.gap_us {
            "although changes may have been missed since it was read"
        } else if reported.changes.get(&hash).is_some_and(is_older) {
            "although a newer version was reported"
        } else if knew_newer {
            "although the node that is followed knew a newer version"
        } else if is_purged {
            "although a purge had ended it"
        } else {
            return;
        };
        let hit = NearHit { value: &[], ..*hit };
        let text =
            format!("client {client} is served {version} of key {key} near, {fault}: {hit:?}");
        self.violate(if is_purged { Rule::Purge } else { Rule::Near }, text);
    }
}
