//! What a later life of a node has to know besides its entries, and what is made of it.

use alloc::vec::Vec;

use super::{Node, ages::Partner, start::Start};
use crate::{
    store::{Backend, RETENTION_MS},
    time::Now,
    version::Incarnation,
    wire::{Lineage, SyncAge},
};

/// What a node knew of its own knowledge in an earlier life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistedState {
    /// Which life that was.
    pub node: Incarnation,
    /// For how long it had known what nobody else did, in milliseconds.
    pub lived_ms: u64,
    /// From whom it had what it knew.
    pub line: Lineage,
    /// How long ago that was, in milliseconds.
    pub away_ms: u64,
    /// How long it kept traces, in milliseconds.
    pub retention_ms: u64,
    /// When it had last had everything that others knew, as it was then.
    pub ages: Vec<SyncAge>,
}

impl<B: Backend> Node<B> {
    /// Everything of the earlier life is here, or there was nothing that could be used.
    ///
    /// If some of it was refused, because it was stamped in the future of this clock, the node does not know
    /// everything that it knew: it has started alone.
    pub(in crate::node) fn restored(&mut self, now: Now, memory: Option<PersistedState>) {
        let memory = memory.filter(|_| !self.repair.is_restored_in_part);
        if let Some(PersistedState { node, lived_ms, line, away_ms, retention_ms, ages }) = memory {
            let knew_ms = away_ms.saturating_add(retention_ms.min(RETENTION_MS));
            self.store.forget_before(now.wall_ms.saturating_sub(knew_ms) / 1_000 + 1);
            // It has everything that it knew itself.
            let itself = SyncAge { node: node, age_ms: 0, lived_ms };
            self.repair.ages.inherit(&ages, away_ms, now.mono);
            self.repair.ages.inherit(&[itself], away_ms, now.mono);
            let line_ms = line.age_ms.saturating_add(away_ms);
            self.repair.line = (line.origin, now.mono.minus_ms(line_ms));
        }
        if matches!(self.repair.start, Start::Restoring) {
            self.started_with_all(now);
        }
    }

    /// What a later life of this node has to know besides its entries.
    #[must_use]
    pub fn persisted_state(&self, now: Now) -> PersistedState {
        let now = self.clocks.adjust(now);
        let Partner { id: node, lived_ms, line, ages } = self.itself(now);
        PersistedState {
            node,
            lived_ms,
            line,
            away_ms: 0,
            retention_ms: self.store.retention_ms(now),
            ages,
        }
    }
}
