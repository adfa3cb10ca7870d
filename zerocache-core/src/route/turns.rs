//! Whose turn it is: the nodes to ask for an operation, in their order.
//!
//! When more than half of the local nodes are out, the client doubts its own judgement: those that gave
//! no answer in time take turns again, until a probe, or one more request, confirms that they are gone.
//! Those that refuse connections stay out, and those that have too much to do take turns like the others
//! when most have. When no node at all is in the rotation, in whatever region,
//! all are tried: the fault is then probably the client's.

use alloc::vec::Vec;

use super::{
    directory::{Directory, Known},
    tiers::{Plan, Step, Tier},
};
use crate::{time::Instant, version::Incarnation};

/// The turn of a read that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub(super) turn: usize,
    first: Option<Incarnation>,
    pub(super) is_write: bool,
    /// Whether its request is the oldest to which the node owes an answer.
    pub(super) is_marked: bool,
}

impl Turn {
    /// The same turn, with another node to be asked before all others.
    #[must_use]
    pub const fn with_first(self, first: Option<Incarnation>) -> Self {
        Self { first, ..self }
    }
}

/// Whether most of the local nodes that serve do not take turns.
const fn fails_open(serving: usize, turning: usize) -> bool {
    2 * turning < serving
}

impl Directory {
    /// The nodes to ask for the next read: local ones in turn, then the nearest regions.
    /// `first` is asked before all others if it is in the rotation.
    pub fn plan(&mut self, now: Instant, first: Option<Incarnation>) -> Plan {
        let turn = self.read_turn;
        self.read_turn = turn.wrapping_add(1);
        self.plan_in_turn(turn, now, first)
    }

    /// The first node to ask for the next read, which counts as asked from now on; none when no node
    /// is in the rotation. [`go_on`](Self::go_on) gives the rest of the plan, if it is needed.
    pub fn begin_read(&mut self, now: Instant, first: Option<Incarnation>) -> Option<(Step, Turn)> {
        let turn = self.read_turn;
        let step = self.first_step(turn, now, first)?;
        self.read_turn = turn.wrapping_add(1);
        let is_marked = self.mark(step.node, now);
        Some((step, Turn { turn, first, is_write: false, is_marked }))
    }

    /// As [`begin_read`](Self::begin_read), for a write; `expect_soon` says whether a node that says
    /// nothing for a while is silent, and not waiting for others.
    pub fn begin_write(&mut self, now: Instant, expect_soon: bool) -> Option<(Step, Turn)> {
        let turn = self.write_turn;
        let step = self.first_step(turn, now, None)?;
        self.write_turn = turn.wrapping_add(1);
        let is_marked = expect_soon && self.mark(step.node, now);
        Some((step, Turn { turn, first: None, is_write: true, is_marked }))
    }

    /// The turn of a call that reads or writes many keys: all of them have the same plan, but for the
    /// node that is asked first. [`go_on`](Self::go_on) gives it.
    pub fn take_turn(&mut self, is_write: bool) -> Turn {
        let turns = if is_write { &mut self.write_turn } else { &mut self.read_turn };
        let turn = *turns;
        *turns = turn.wrapping_add(1);
        Turn { turn, first: None, is_write, is_marked: false }
    }

    /// The whole plan of a read or write that began.
    #[must_use]
    pub fn go_on(&self, began: Turn, now: Instant) -> Plan {
        self.plan_in_turn(began.turn, now, began.first)
    }

    fn first_step(&self, turn: usize, now: Instant, first: Option<Incarnation>) -> Option<Step> {
        if let Some(node) = first.and_then(|id| self.nodes.get(&id)).filter(|n| n.is_reachable(now))
        {
            return Some(node.step(if node.is_local { Tier::Local } else { Tier::Nearest }));
        }
        let locals = || self.readers().filter(|node| node.is_local);
        let (mut serving, mut turning) = (0, 0);
        for node in locals() {
            serving += usize::from(node.serves());
            turning += usize::from(node.in_rotation(now));
        }
        if fails_open(serving, turning) {
            let usable = || locals().filter(|node| node.in_rotation(now) || node.in_doubt(now));
            let node = usable().nth(turn.checked_rem(usable().count())?)?;
            return Some(node.step(Tier::Local));
        }
        let at = turn.checked_rem(turning)?;
        let node = locals().filter(|node| node.in_rotation(now)).nth(at)?;
        Some(node.step(Tier::Local))
    }

    /// The nodes to try for the next write. Writes have a turn of their own: in a loop of a read and
    /// a write, one turn for both would send all reads to one node and all writes to the other.
    pub fn plan_write(&mut self, now: Instant) -> Plan {
        let turn = self.write_turn;
        self.write_turn = turn.wrapping_add(1);
        self.plan_in_turn(turn, now, None)
    }

    fn plan_in_turn(&self, turn: usize, now: Instant, first: Option<Incarnation>) -> Plan {
        let locals = || self.readers().filter(|node| node.is_local);
        let serving = locals().filter(|node| node.serves()).count();
        let turning = locals().filter(|node| node.in_rotation(now)).count();
        let is_open = fails_open(serving, turning);
        let usable = |node: &Known| {
            node.in_rotation(now) || (is_open && node.is_local && node.in_doubt(now))
        };
        // What is asked first knows what others may not know yet, however busy it is.
        let first = first.and_then(|id| self.nodes.get(&id));
        let preferred = first.filter(|node| usable(node) || node.is_reachable(now));
        let plan = self.plan_of(turn, preferred, usable);
        if !plan.steps.is_empty() {
            return plan;
        }
        self.plan_of(turn, first.filter(|node| node.serves()), Known::serves)
    }

    fn plan_of(
        &self,
        turn: usize,
        preferred: Option<&Known>,
        usable: impl Fn(&Known) -> bool,
    ) -> Plan {
        let locals: Vec<_> = self.readers().filter(|node| node.is_local && usable(node)).collect();
        let mut steps: Vec<Step> = Vec::with_capacity(Tier::ALL.len() + 1);
        steps.extend(
            preferred
                .map(|node| node.step(if node.is_local { Tier::Local } else { Tier::Nearest })),
        );
        for offset in 0..locals.len() {
            let node = locals[(turn.wrapping_add(offset)) % locals.len()];
            let tier = match steps.iter().filter(|step| step.tier <= Tier::NextLocal).count() {
                0 => Tier::Local,
                1 => Tier::NextLocal,
                _ => break,
            };
            if steps.iter().all(|step| step.node != node.info.incarnation) {
                steps.push(node.step(tier));
            }
        }
        let largest = locals.iter().max_by_key(|node| node.info.bytes_max);
        let largest_local = largest.map(|node| node.step(Tier::NextLocal));
        let mut tiers = [Tier::Nearest, Tier::SecondNearest].into_iter();
        for region in self.regions() {
            let there = |node: &&Known| {
                node.info.region == *region
                    && usable(node)
                    && steps.iter().all(|step| step.node != node.info.incarnation)
            };
            let there: Vec<_> = self.readers().filter(there).collect();
            if there.is_empty() {
                continue;
            }
            let Some(tier) = tiers.next() else { break };
            steps.push(there[turn % there.len()].step(tier));
        }
        Plan { steps, largest_local }
    }
}
