//! Clients compute under leases: ask for leave, compute for a while, write with the token, or die.

use zerocache_core::{
    call::CallFailure,
    route::{LeaseRange, Step, TierBounds},
    time::Instant,
    version::Version,
    wire::{Request, Response},
};

use super::{
    super::{Event, World, hosts, trace, transport::Link},
    Purpose,
};
use crate::{
    checker::Rule,
    clock::SECOND_US,
    workload::{Computation, ComputationEnd, Operation, WriteId},
};

/// So many nodes are asked for a lease, when those before turn out to be gone.
const NODES_ASKED_MAX: u8 = 3;

/// How long giving a leave back may take, in milliseconds.
const RELEASE_TIMEOUT_MS: u64 = 500;

/// After its start, and after its connections ended, a client knows all nodes and reaches them within this
/// time, in microseconds.
pub(super) const SETTLES_US: u64 = 5 * SECOND_US;

/// A question for leave, to one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    step: Step,
    asked_us: u64,
    timeout_ms: u64,
    /// Whether its client had its connections for a while.
    is_sure: bool,
}

/// A computation, from the question for leave on.
pub(super) struct Computing {
    key: usize,
    plan: Computation,
    began: Instant,
    /// The node that is asked, or gave the leave.
    step: Option<Step>,
    asked: u8,
    /// Since when it knew all nodes and reached them, at the last question; none if it may not have.
    sure_us: Option<u64>,
    /// Values of up to this version are of no use to it.
    over: Option<Version>,
    token: Option<Version>,
}

impl World {
    /// Asks for the leave to compute a value.
    pub(super) fn begin_computing(
        &mut self,
        client: usize,
        key: usize,
        id: WriteId,
        plan: Computation,
    ) {
        let began = self.client_now(client);
        let (step, asked, sure_us, token) = (None, 0, None, None);
        let over = self.clients[client].found.get(&key).copied().filter(|_| plan.over);
        let computing = Computing { key, plan, began, step, asked, sure_us, over, token };
        self.clients[client].computing.insert(id, computing);
        self.ask_for_leave(client, id);
    }

    fn ask_for_leave(&mut self, client: usize, id: WriteId) {
        let now = self.client_now(client);
        let in_all = self.plan.workload.leases_in_all_regions;
        let range = if in_all { LeaseRange::All } else { LeaseRange::Region };
        let at = &mut self.clients[client];
        let Some(computing) = at.computing.get_mut(&id) else { return };
        let mut hash = self.keys[computing.key].hash();
        if self.variant.scatters_leases() {
            hash.0 ^= client as u128;
        }
        let chosen = at.directory.lease_node(hash, range);
        let before = computing.step.map(|step| step.node);
        let chosen = chosen.filter(|step| Some(step.node) != before);
        let Some(step) = chosen.filter(|_| computing.asked < NODES_ASKED_MAX) else {
            at.computing.remove(&id);
            self.counts.lease_unavailable += 1;
            return;
        };
        let now_us = self.now_us;
        let stable_since_us = at.cut_us.max(self.plan.begin_us) + SETTLES_US;
        let is_sure = now_us >= stable_since_us && self.plan.is_quiet(now_us, now_us);
        computing.step = Some(step);
        computing.asked += 1;
        computing.sure_us = is_sure.then_some(now_us);
        let wait_ms = computing.plan.wait_ms.saturating_sub(now.since_ms(computing.began));
        let (life_ms, over) = (computing.plan.life_ms, computing.over);
        let key = self.keys[computing.key].clone();
        if wait_ms == 0 {
            at.directory.request_sent(step.node, now);
        }
        let timeout_ms = wait_ms + TierBounds::default().of(step.tier);
        let question = Question { step, asked_us: now_us, timeout_ms, is_sure };
        let purpose = Purpose::Lease { computation: id, question };
        let request = Request::Lease { key, lease_ms: life_ms, wait_ms, newer_than: over };
        self.client_call(client, purpose, (step.address, Some(step.node)), request, timeout_ms);
    }

    /// Asks the next nodes for what is asked of nodes that are gone.
    pub(super) fn look_for_gone(&mut self, client: usize) {
        let at = &self.clients[client];
        let gone = at.computing.iter().filter(|(_, computing)| {
            let is_available = |step: &Step| at.directory.is_available(step);
            computing.token.is_none() && !computing.step.as_ref().is_some_and(is_available)
        });
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.ask_for_leave(client, id);
        }
    }

    /// What came of a question for leave.
    pub(super) fn leased(
        &mut self,
        client: usize,
        (id, question): (WriteId, Question),
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
    ) {
        let Question { step, asked_us, timeout_ms, is_sure } = question;
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let computing = at.computing.get_mut(&id).filter(|computing| {
            computing.token.is_none() && computing.step.is_some_and(|asked| asked.node == step.node)
        });
        let response = match result {
            Ok(response) => {
                let is_its = at.directory.record_response(step.node, &response, now, None);
                is_its.then_some(response)
            }
            Err(CallFailure::NoAnswer) => {
                at.directory.request_timed_out(step.node, now);
                let waited_ms = elapsed_us / 1_000;
                // Otherwise its connection has ended, or had to come about first.
                let is_due = is_sure && waited_ms >= timeout_ms;
                if is_due && self.plan.is_quiet(asked_us, self.now_us) {
                    let text =
                        format!("client {client} was told nothing of a lease in {waited_ms} ms");
                    self.checker.violate(Rule::Waits, text);
                }
                None
            }
            Err(_) => {
                at.directory.request_failed(step.node, now);
                None
            }
        };
        match (response, computing) {
            (Some(Response::LeaseGranted { token }), Some(computing)) => {
                computing.token = Some(token);
                let (duration_us, life_ms) = (computing.plan.duration_us, computing.plan.life_ms);
                at.seen = at.seen.max(token.stamp());
                self.counts.leases += 1;
                trace!(self, "client {client} computes write {id} with {token}");
                self.checker.granted(id, token, asked_us, life_ms);
                self.check_choice(client, id);
                let client = client as u32;
                self.schedule_in(duration_us, Event::Computed { client, id });
            }
            // Nobody waits for it any more.
            (Some(Response::LeaseGranted { token }), None) => {
                if let Some(key) = self.checker.key_of(id) {
                    self.give_back(client, step, key, (token, false));
                }
            }
            (Some(Response::Found { value, version, .. }), Some(computing)) => {
                let (key, is_useless) = (computing.key, Some(version) <= computing.over);
                at.seen = at.seen.max(version.stamp());
                at.found.insert(key, version);
                at.computing.remove(&id);
                self.counts.lease_found += 1;
                self.checker.received(key, version, &value);
                if is_useless {
                    self.checker.protocol_error(&format!(
                        "client {client} is given {version} of key {key} again"
                    ));
                }
            }
            (Some(_), Some(_)) => {
                at.computing.remove(&id);
                self.counts.lease_busy += 1;
            }
            (None, Some(_)) => self.ask_for_leave(client, id),
            (_, None) => {}
        }
    }

    /// The time of a computation is over.
    pub(in crate::world) fn computed(&mut self, client: u32, id: WriteId) {
        let client = client as usize;
        let Some(computing) = self.clients[client].computing.remove(&id) else { return };
        let Computing { key, plan, step: Some(step), token: Some(token), .. } = computing else {
            return;
        };
        let Computation { bytes, ttl, ack, end, .. } = plan;
        trace!(self, "client {client} ends write {id}: {end:?}");
        if matches!(end, ComputationEnd::Disconnected | ComputationEnd::Dead) {
            self.cut_off(client, step);
        }
        match end {
            ComputationEnd::Written | ComputationEnd::Disconnected => {
                self.counts.filled += 1;
                self.checker.sends(id);
                let put = Operation::Put { bytes, ttl, ack };
                self.begin_operation(client, (key, put), id, Some(token));
            }
            ComputationEnd::Released => self.give_back(client, step, key, (token, false)),
            ComputationEnd::Failed => self.give_back(client, step, key, (token, true)),
            ComputationEnd::Abandoned | ComputationEnd::Dead => {}
        }
    }

    /// Those who compute a key at a time have leave from one node, as long as nothing goes wrong.
    fn check_choice(&mut self, client: usize, id: WriteId) {
        let in_all = self.plan.workload.leases_in_all_regions;
        let region = self.clients[client].region;
        let Some(own) = self.clients[client].computing.get(&id) else { return };
        let others = self.clients.iter().filter(|other| in_all || other.region == region);
        let elsewhere = others.flat_map(|other| &other.computing).find(|(_, other)| {
            let began_us = own.sure_us.min(other.sure_us);
            let node = |computing: &Computing| computing.step.map(|step| step.node);
            other.key == own.key
                && other.token.is_some()
                && node(other) != node(own)
                && began_us.is_some_and(|began_us| self.plan.is_quiet(began_us, self.now_us))
        });
        if let Some((other, _)) = elsewhere {
            let text = format!("writes {id} and {other} are computed with leave from two nodes");
            self.checker.violate(Rule::Exclusive, text);
        }
    }

    fn give_back(
        &mut self,
        client: usize,
        step: Step,
        key: usize,
        (token, failed): (Version, bool),
    ) {
        let request = Request::Release { key: self.keys[key].clone(), token, failed };
        let (purpose, to) = (Purpose::Release { node: step.node }, (step.address, Some(step.node)));
        self.client_call(client, purpose, to, request, RELEASE_TIMEOUT_MS);
    }

    /// Ends a client's connections to a node.
    fn cut_off(&mut self, client: usize, step: Step) {
        self.clients[client].cut_us = self.now_us;
        let host = self.host_of(client as u32);
        let Some(to) = hosts::at(step.address) else { return };
        for lane in 0..self.plan.lanes {
            let link = self.hosts[host as usize].links.get(&(to, lane));
            if let Some(Link::Open(connection)) = link {
                self.close(*connection, 0);
            }
        }
    }
}
