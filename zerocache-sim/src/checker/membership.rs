//! Membership: no node is removed without a reason, and at the end all nodes are known.

use std::collections::{BTreeMap, BTreeSet};

use zerocache_core::version::Incarnation;

use super::{
    Checker, Rule,
    excuses::{Path, is_excused},
};
use crate::plan::Plan;

impl Checker {
    /// A node took another one out of its rotation.
    pub(crate) fn removed(&mut self, plan: &Plan, host: u32, removed: Incarnation, path: Path) {
        let Some(peer) = self.host_of(removed) else {
            return self
                .violate(Rule::Removal, format!("{host} removes {removed}, which never existed"));
        };
        if peer == host || is_excused(plan, (host, peer), path, self.now_us) {
            return;
        }
        self.violate(Rule::Removal, format!("{host} removes {peer} without a reason"));
    }

    /// Checks the view of a node at the end. It reaches all nodes of its own region and some of
    /// each other one. It knows all running nodes, and reaches no other.
    pub(crate) fn view(
        &mut self,
        (host, region): (u32, usize),
        reached: &BTreeSet<Incarnation>,
        known: &BTreeSet<Incarnation>,
        living: &BTreeMap<Incarnation, usize>,
    ) {
        let name = |id: &Incarnation| self.host_of(*id);
        let ghosts = reached.iter().filter(|id| !living.contains_key(id));
        let ghosts: Vec<_> = ghosts.map(name).collect();
        let unknown = living.keys().filter(|id| !known.contains(id));
        let unknown: Vec<_> = unknown.map(name).collect();
        let reaches = |of: usize| reached.iter().any(|id| living.get(id) == Some(&of));
        let missing = living
            .iter()
            .filter(|(id, of)| if **of == region { !reached.contains(id) } else { !reaches(**of) });
        let missing: Vec<_> = missing.map(|(id, _)| name(id)).collect();
        if !(ghosts.is_empty() && unknown.is_empty() && missing.is_empty()) {
            let text = format!(
                "{host} does not know {unknown:?}, does not reach {missing:?}, and reaches {ghosts:?}"
            );
            self.violate(Rule::View, text);
        }
    }
}
