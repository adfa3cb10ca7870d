//! Who is there: nobody is taken out without a reason, and at the end everybody is known.

use std::collections::BTreeSet;

use zerocache_core::version::Incarnation;

use super::{Checker, Rule, excuses::is_excused};
use crate::plan::Plan;

impl Checker {
    /// A node took another one out of its rotation.
    pub(crate) fn removed(&mut self, plan: &Plan, host: u32, removed: Incarnation) {
        let Some(peer) = self.processes.get(&removed).copied() else {
            return self.violate(Rule::Removal, format!("{host} removes {removed}, who never was"));
        };
        if peer == host || is_excused(plan, host, peer, self.now_us, self.expect()) {
            return;
        }
        self.violate(Rule::Removal, format!("{host} takes {peer} out without a reason"));
    }

    /// Whom a node reaches at the end, of those who live.
    pub(crate) fn view(
        &mut self,
        host: u32,
        reached: &BTreeSet<Incarnation>,
        living: &BTreeSet<Incarnation>,
    ) {
        if reached != living {
            let name = |id: &Incarnation| self.processes.get(id).copied();
            let missing: Vec<_> = living.difference(reached).map(name).collect();
            let ghosts: Vec<_> = reached.difference(living).map(name).collect();
            let text = format!("{host} does not reach {missing:?}, and reaches {ghosts:?}");
            self.violate(Rule::View, text);
        }
    }
}
