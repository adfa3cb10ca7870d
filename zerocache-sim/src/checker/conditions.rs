//! Versions that conditional writes replaced or took: each once at a node, and once in a region while nothing goes
//! wrong.

use std::collections::BTreeMap;

use zerocache_core::version::{Incarnation, Version};

use super::{Checker, Rule};
use crate::plan::Plan;

/// A conditional write that was met for a version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetWrite {
    pub(crate) client: usize,
    pub(crate) region: usize,
    pub(crate) key: usize,
    /// The version that it named or took.
    pub(crate) version: Version,
    /// The node that judged it.
    pub(crate) node: Incarnation,
    /// Since when its client knew all nodes and reached them; none if it may not have.
    pub(crate) stable_us: Option<u64>,
}

/// All of them, by key and version.
#[derive(Debug, Default)]
pub(super) struct MetWrites(BTreeMap<(usize, Version), Vec<MetWrite>>);

impl Checker {
    /// A condition was met for a version.
    pub(crate) fn met(&mut self, plan: &Plan, met: MetWrite) {
        let (now_us, all) = (self.now_us, self.met.0.entry((met.key, met.version)).or_default());
        let other = all.iter().copied().find(|other| {
            let since_us = met.stable_us.min(other.stable_us);
            let is_quiet = since_us.is_some_and(|since_us| plan.is_quiet(since_us, now_us));
            other.node == met.node || (other.region == met.region && is_quiet)
        });
        all.push(met);
        if let Some(other) = other {
            let clients = (other.client, met.client);
            let text = format!("clients {clients:?} replace one version: {other:?}, {met:?}");
            self.violate(Rule::Atomic, text);
        }
    }
}
