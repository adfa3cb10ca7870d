//! Purges: which entries they end, and from when on.

use std::collections::BTreeMap;

use zerocache_core::{
    purge::PurgeMode,
    version::{Incarnation, Version},
};

use super::{Checker, Rule, StoredValue};
use crate::{
    clock::{EPOCH_MS, SECOND_US},
    plan::Plan,
    purges::{Register, stale_ms},
    workload::{WriteId, write_of},
};

/// Nodes take a purge for later than it was by the journeys of its messages, and if it is repeated by what
/// their clocks differ, in microseconds.
const LATER_US: u64 = 2 * SECOND_US;

/// Clocks differ by up to this, in milliseconds.
const CLOCKS_MS: u64 = 2_000;

/// The purges that nodes have had.
#[derive(Debug, Default)]
pub(super) struct Purges {
    registers: Vec<Register>,
    /// The number of the key of the first register: they come after all other keys.
    first: usize,
    /// When each purge was first at a node, by register.
    had: Vec<BTreeMap<Version, u64>>,
    /// Wall clocks may be wrong by more than nodes accept.
    wild_clocks: bool,
}

impl Purges {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            registers: plan.registers.clone(),
            first: plan.workload.keys,
            had: vec![BTreeMap::new(); plan.registers.len()],
            wild_clocks: plan.profile.has_wild_clocks(),
        }
    }

    /// A node has this version of a key, which may be that of a register.
    pub(super) fn note(&mut self, key: usize, version: Option<Version>, now_us: u64) {
        let had = key.checked_sub(self.first).and_then(|at| self.had.get_mut(at));
        if let Some((had, version)) = had.zip(version) {
            had.entry(version).or_insert(now_us);
        }
    }

    /// The registers whose purges are of a write, with the numbers of their keys.
    fn of(&self, key: usize, id: WriteId) -> impl Iterator<Item = (usize, &Register)> {
        let all = self.registers.iter().enumerate();
        all.filter(move |(_, it)| it.is_of(key, id)).map(|(at, it)| (self.first + at, it))
    }
}

impl Checker {
    /// Returns whether a key is that of a register.
    pub(crate) fn is_register(&self, key: usize) -> bool {
        key >= self.purges.first
    }

    /// Checks what a node serves, holds or `gives` to another one: no purge that it knew has ended it.
    pub(crate) fn check_purged(&mut self, host: u32, does: &str, held: &StoredValue<'_>) {
        let Some(id) = write_of(held.value) else { return };
        let ended = self.purges.of(held.key, id).find_map(|(number, register)| {
            let purge = self.floor_of(host, number)?;
            let is_judged = held.version < register.judges_below(purge);
            (is_judged && self.ends_life(number, (id, purge), held)).then_some((*register, purge))
        });
        if let Some((register, purge)) = ended {
            let StoredValue { key, version, remaining_ms, .. } = held;
            let text = format!(
                "{host} {does} {version} of key {key}, write {id}, for {remaining_ms} ms, and knows \
                 the purge {purge} of {register}"
            );
            self.violate(Rule::Purge, text);
        }
    }

    /// Returns whether a purge leaves an entry no such lifetime.
    fn ends_life(
        &self,
        number: usize,
        (id, purge): (WriteId, Version),
        held: &StoredValue<'_>,
    ) -> bool {
        let at = number - self.purges.first;
        if self.purges.registers[at].mode == PurgeMode::Hard {
            return true;
        }
        let stale_ms = self.stale_ms(id);
        let had_us = self.purges.had[at].get(&purge).filter(|_| !self.purges.wild_clocks);
        let until_us = self.now_us + held.remaining_ms * 1_000;
        let is_late = |had_us: &u64| until_us > had_us + stale_ms * 1_000 + LATER_US;
        held.remaining_ms > stale_ms || had_us.is_some_and(is_late)
    }

    fn stale_ms(&self, id: WriteId) -> u64 {
        self.ttl_ms(id).map_or(0, |ttl_ms| stale_ms(id, ttl_ms))
    }

    /// Returns whether a purge that some node has had ends a write of this version, now or `before_us` from now.
    pub(super) fn may_be_purged(
        &self,
        (key, id): (usize, WriteId),
        version: Version,
        before_us: u64,
    ) -> bool {
        self.purges.of(key, id).any(|(number, register)| {
            let had = &self.purges.had[number - self.purges.first];
            had.iter().any(|(purge, had_us)| {
                let until_us = match register.mode {
                    PurgeMode::Hard => 0,
                    // A node that corrects its clock gives its purges other versions, later than they were.
                    PurgeMode::Soft if self.wild_clocks => 0,
                    PurgeMode::Soft => had_us + self.stale_ms(id) * 1_000,
                };
                version < register.judges_below(*purge) && until_us <= self.now_us + before_us
            })
        })
    }

    /// The same, of the write with this version.
    pub(crate) fn may_be_ended(&self, key: usize, version: Version, before_us: u64) -> bool {
        let id = self.versions.get(&(version, key)).copied().unwrap_or(0);
        self.may_be_purged((key, id), version, before_us)
    }

    /// Returns whether nodes have had purges, however early, of the write with this version of a key.
    pub(crate) fn is_of_purges(&self, key: usize, version: Version) -> bool {
        let id = self.versions.get(&(version, key)).copied().unwrap_or(0);
        self.purges
            .of(key, id)
            .any(|(number, _)| !self.purges.had[number - self.purges.first].is_empty())
    }

    /// Returns whether a node has had a purge that ends a write.
    pub(crate) fn is_purged_at(
        &self,
        host: u32,
        (key, id): (usize, WriteId),
        version: Version,
    ) -> bool {
        self.purges.of(key, id).any(|(number, register)| {
            let purge = self.ever_at(host, number);
            purge.is_some_and(|purge| version < register.judges_below(purge))
        })
    }

    /// Returns whether purges that a node has had may end a write now, with a version of its own or this one.
    pub(super) fn may_supersede(
        &self,
        host: u32,
        (key, id): (usize, WriteId),
        token: Option<Version>,
    ) -> bool {
        if let Some(token) = token {
            return self.is_purged_at(host, (key, id), token);
        }
        let now_ms = EPOCH_MS + self.now_us / 1_000;
        self.purges.of(key, id).any(|(number, register)| {
            let below = self.ever_at(host, number).map(|purge| register.judges_below(purge));
            let holds = |below: Version| below.wall_ms() + CLOCKS_MS >= now_ms;
            register.hold_ms > 0 && below.is_some_and(|below| self.wild_clocks || holds(below))
        })
    }

    /// Checks an entry at the end against the latest purges that nodes know, by the numbers of their keys.
    pub(crate) fn check_purged_at_last(
        &mut self,
        holder: &str,
        held: &StoredValue<'_>,
        latest: impl Fn(usize) -> Option<Version>,
    ) {
        let Some(id) = write_of(held.value) else { return };
        let ended = self.purges.of(held.key, id).find_map(|(number, register)| {
            let purge = latest(number)?;
            let is_judged = held.version < register.judges_below(purge);
            (is_judged && self.ends_life(number, (id, purge), held)).then_some((*register, purge))
        });
        if let Some((register, purge)) = ended {
            let StoredValue { key, version, .. } = held;
            let text = format!(
                "{holder} has {version} of key {key}, write {id}, at the end, after the purge {purge} of \
                 {register}"
            );
            self.violate(Rule::Purge, text);
        }
    }

    /// The purges that end a write and that a followed node, or the process itself, has had before a time: returns
    /// whether one keeps a value of this version from being served near.
    pub(super) fn is_purged_near(
        &self,
        (key, version, value): (usize, Version, &[u8]),
        node: Option<Incarnation>,
        (applies, was_known): (impl Fn(u64, u64) -> bool, impl Fn(u64) -> bool),
    ) -> bool {
        let Some(id) = write_of(value) else { return false };
        self.purges.of(key, id).any(|(number, register)| {
            let target = register.target().id().0;
            let is_judged = |purge: Version| version < register.judges_below(purge);
            let known = node.and_then(|node| self.newest_of(node, number));
            applies(target, version.stamp())
                || known.is_some_and(|(purge, at_us)| is_judged(purge) && was_known(at_us))
        })
    }
}
