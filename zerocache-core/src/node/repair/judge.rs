//! Whether this node is outdated, as it finds out in a round.
//!
//! Invariant: one round at a time drops what its partner does not know.

use super::{Repair, compare::Round, sync_ages::Verdict};
use crate::{cluster::View, node::local::Context, store::Backend, wire::NodeState};

impl Repair {
    /// Judges whether this node is outdated. A round that is not judged does not show what this node has: it is about to
    /// copy, or drops values already; it still has to hear what the source of its copy had of others; or the partner is
    /// not in sync, and has what this node lacks.
    pub(super) fn judge<B: Backend>(
        &mut self,
        cx: &Context<'_, B>,
        view: &View,
        round: &mut Round,
    ) {
        let id = round.partner.id;
        if self.copy_source(cx.local, view).is_some_and(|source| {
            // The source has copied itself since: what it says is not of what was copied.
            let copied_ms = round.began.since_ms(source.began);
            source.id == id && round.partner.lived_ms + copied_ms / 1_000 < copied_ms
        }) {
            self.copy_source = None;
        }
        let source = self.copy_source(cx.local, view);
        let is_other = source.is_some_and(|source| source.id != id);
        if !self.start.is_done() || self.is_resyncing() || is_other {
            return;
        }
        let is_trusted = source.is_some() || !cx.replica.store.detects_outdated();
        let verdict = match is_trusted {
            true => Verdict::Equal,
            false => {
                let from_ms = round.window.from.saturating_mul(1_000);
                let retention_ms = cx.now.wall_ms.saturating_sub(from_ms);
                self.describe(cx.local, cx.now).compare(&round.partner, retention_ms)
            }
        };
        let member = view.member(id);
        let is_in_sync = member.is_some_and(|member| member.info.state == NodeState::InSync);
        let has_missed = match &verdict {
            Verdict::Equal => false,
            Verdict::Outdated => true,
            Verdict::Source(missed) => !missed.is_empty(),
        };
        // It has what this node lacks, and is to be asked for that later.
        if has_missed && !is_in_sync {
            return;
        }
        if verdict == Verdict::Equal {
            round.compare_edge();
        }
        if verdict == Verdict::Outdated {
            self.miss_source(id);
        }
        round.verdict = Some(verdict);
    }

    /// Whether a round found this node to be outdated, and is not over: the partner of another one may not know what is
    /// copied after it.
    fn is_resyncing(&self) -> bool {
        self.rounds.values().any(|round| round.verdict == Some(Verdict::Outdated))
    }

    /// Notes that this node begins to drop what its source does not know. Rounds that are under way would bring it back. And
    /// it forgets deletes that no round passes on: they would hide what is copied, and be forgotten then.
    pub(super) fn begin_to_drop<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        round: &mut Round,
    ) {
        round.drops = true;
        self.abort_rounds(cx.local, view, cx.now);
        cx.replica.store.forget_before(round.first_known());
    }
}
