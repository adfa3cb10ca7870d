//! The state that a later process of a node needs besides the entries.

use alloc::vec::Vec;

use super::{Repair, Start, sync_ages::Partner};
use crate::{
    cluster::View,
    node::{
        Effect,
        local::{Context, Local},
    },
    store::{Backend, RETENTION_MS, StoredItem},
    time::Now,
    version::Incarnation,
    wire::{Lineage, NodeState, SyncAge},
};

/// What a node knew, in an earlier process, of the completeness of its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistedState {
    /// The incarnation of that process.
    pub node: Incarnation,
    /// For how long it had known versions that no other node knew, in milliseconds.
    pub lived_ms: u64,
    /// The node from which its data descended.
    pub lineage: Lineage,
    /// How long ago the state was taken, in milliseconds.
    pub away_ms: u64,
    /// How long it kept tombstones, in milliseconds.
    pub retention_ms: u64,
    /// When it last had everything that others knew, as of then.
    pub sync_ages: Vec<SyncAge>,
    /// How far its clock was ahead of that of its machine, in milliseconds.
    pub clock_offset_ms: i64,
    /// Whether it kept the values of some keys only, or may have been the only one to have some.
    pub is_placed: bool,
    /// Whether values may be missing that the process had in memory alone: it had not ended in order.
    pub lacks_values: bool,
}

/// What a node has of an earlier process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Restored {
    /// Its snapshot was not asked for.
    #[default]
    NotAsked,
    /// The snapshot is being read. Parts of it may have been refused.
    Reading { is_whole: bool, is_empty: bool },
    /// Nothing that counts: its start is one without data.
    Nothing,
    /// All that it knew when it ended. What came since it lacks, as a node that was cut off.
    Everything,
}

impl Repair {
    /// Asks for the snapshot, unless that was done.
    pub(super) fn ask_to_restore<B: Backend>(&mut self, cx: &mut Context<'_, B>) -> bool {
        // A node that serves cannot go back to what it knew.
        let is_starting = cx.local.readiness.state() == NodeState::Warming;
        if self.restored != Restored::NotAsked || !cx.local.config.has_snapshot || !is_starting {
            return false;
        }
        self.restored = Restored::Reading { is_whole: true, is_empty: true };
        // What is read may have been deleted at the others since.
        cx.local.readiness.is_restored = true;
        cx.out.push(Effect::Restore);
        true
    }

    /// Whether the snapshot is being read.
    pub(in crate::node) fn is_restoring(&self) -> bool {
        matches!(self.start, Start::Restoring)
    }

    /// Whether the node knows at least everything that it knew when it ended, or has all data.
    pub(in crate::node) fn may_persist(&self) -> bool {
        self.has_all_data() || self.restored == Restored::Everything
    }

    /// Imports items of an earlier process.
    pub(in crate::node) fn restore<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        items: Vec<StoredItem>,
    ) {
        for item in items {
            let is_taken = cx.replica.import(cx.now, item);
            if let Restored::Reading { is_whole, is_empty } = &mut self.restored {
                *is_whole &= is_taken;
                *is_empty = false;
            }
        }
    }

    /// Ends the import of an earlier process, of which there may have been nothing usable.
    ///
    /// If some items were refused, because their versions are in the future of this clock, the node does
    /// not know everything that it knew: its start counts as one without data. Otherwise it catches up as a
    /// node that was cut off, and what it has may be outdated until then.
    pub(in crate::node) fn restore_complete<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        state: Option<PersistedState>,
    ) {
        let is_whole = matches!(self.restored, Restored::Reading { is_whole: true, .. });
        if state.is_none() && matches!(self.restored, Restored::Reading { is_empty: true, .. }) {
            // The node has what this process was told, and nothing else.
            cx.local.readiness.is_restored = false;
        }
        self.restored = Restored::Nothing;
        if let Some(state) = state.filter(|_| is_whole) {
            let PersistedState { node, lived_ms, lineage, away_ms, .. } = state;
            let PersistedState { retention_ms, sync_ages, clock_offset_ms, .. } = state;
            let PersistedState { is_placed, lacks_values, .. } = state;
            self.lacks_values = lacks_values;
            let now = cx.now;
            if is_placed {
                self.restored_placed(now.mono);
            }
            let knew_ms = away_ms.saturating_add(retention_ms.min(RETENTION_MS));
            cx.replica.store.forget_before(now.wall_ms.saturating_sub(knew_ms) / 1_000 + 1);
            // It has everything that it knew itself.
            let own = SyncAge { node, age_ms: 0, lived_ms };
            self.ages.restore(&sync_ages, away_ms, now.mono);
            self.ages.restore(&[own], away_ms, now.mono);
            let age_ms = lineage.age_ms.saturating_add(away_ms);
            self.lineage = (lineage.origin, now.mono.minus_ms(age_ms));
            let own = cx.local.id();
            let clock = (clock_offset_ms, self.lineage.1);
            cx.local.clocks.restore(clock, &cx.replica.store, (own, now));
            self.restored = Restored::Everything;
        }
        if matches!(self.start, Start::Restoring) {
            self.start = Start::NoSource { since: cx.now.mono, interrupted: None };
        }
    }

    /// The state that a later process of this node needs besides the entries.
    pub(in crate::node) fn persisted_state(
        &self,
        local: &Local,
        view: &View,
        retention_ms: u64,
        now: Now,
    ) -> PersistedState {
        let Partner { id: node, lived_ms, lineage, ages: sync_ages } = self.describe(local, now);
        let is_placed = view.placement().id() != 0 || self.placed() != 0;
        PersistedState {
            node,
            lived_ms,
            lineage,
            away_ms: 0,
            retention_ms,
            sync_ages,
            clock_offset_ms: local.clocks.offset_ms(),
            is_placed,
            lacks_values: self.lacks_values,
        }
    }
}
