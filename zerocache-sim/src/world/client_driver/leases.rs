//! Computations under leases: a client asks for a lease, computes for a while, writes with the token, or dies.

use zerocache_core::{
    call::{CallFailure, CallResult},
    client::{AttemptId, Event as Input, LeaseAction, LeaseOutcome, LeaseRequest, Release},
    route::{LeaseRange, Step},
    version::Version,
    wire::Request,
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

/// After its start, and after its connections were closed, a client knows all nodes and reaches them within
/// this time, in microseconds.
pub(super) const STABLE_AFTER_US: u64 = 5 * SECOND_US;

/// A request for a lease, to one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeaseAttempt {
    id: AttemptId,
    asked_us: u64,
    timeout_ms: u64,
    /// Its client had its connections for a while.
    is_stable: bool,
}

/// A request for a lease, until all its answers have come.
pub(super) struct RunningLease {
    machine: LeaseRequest,
    key: usize,
    plan: Computation,
    /// The client cannot use values of up to this version.
    newer_than: Option<Version>,
    /// Since when the client knew all nodes and reached them, at the last attempt; none if it may not have.
    stable_us: Option<u64>,
    /// The attempts whose answers have not come.
    pending: usize,
    is_over: bool,
}

/// A computation under a lease.
pub(super) struct Computing {
    key: usize,
    plan: Computation,
    /// The node that granted the lease.
    step: Step,
    token: Version,
    stable_us: Option<u64>,
}

impl World {
    /// Asks for the lease to compute a value.
    pub(super) fn begin_computing(
        &mut self,
        client: usize,
        key: usize,
        id: WriteId,
        plan: Computation,
    ) {
        let now = self.client_now(client);
        let in_all = self.plan.workload.leases_in_all_regions;
        let range = if in_all { LeaseRange::All } else { LeaseRange::Region };
        let mut hash = self.keys[key].hash();
        if self.variant.scatters_leases() {
            hash.0 ^= client as u128;
        }
        let machine = LeaseRequest::new(hash, range, plan.wait_ms, u64::MAX, now);
        let at = &mut self.clients[client];
        let newer_than = at.found.get(&key).copied().filter(|_| plan.needs_newer);
        let (stable_us, pending, is_over) = (None, 0, false);
        let running = RunningLease { machine, key, plan, newer_than, stable_us, pending, is_over };
        at.leases.insert(id, running);
        self.drive_lease(client, id, Input::Start, 0);
    }

    /// Asks other nodes for leases whose nodes have left the directory.
    pub(super) fn check_lease_nodes(&mut self, client: usize) {
        let ids: Vec<_> = self.clients[client].leases.keys().copied().collect();
        for id in ids {
            self.drive_lease(client, id, Input::Timer, 0);
        }
    }

    /// An attempt to get a lease has ended.
    pub(super) fn lease_answered(
        &mut self,
        client: usize,
        (id, attempt): (WriteId, LeaseAttempt),
        result: CallResult,
        elapsed_us: u64,
    ) {
        let LeaseAttempt { asked_us, timeout_ms, is_stable, .. } = attempt;
        let Some(running) = self.clients[client].leases.get_mut(&id) else { return };
        running.pending -= 1;
        if matches!(result, Err(CallFailure::NoAnswer)) {
            let waited_ms = elapsed_us / 1_000;
            // Otherwise its connection was closed, or had to be opened first.
            let is_due = is_stable && waited_ms >= timeout_ms;
            if is_due && self.plan.is_quiet(asked_us, self.now_us) {
                let text = format!("client {client} got no answer about a lease in {waited_ms} ms");
                self.checker.violate(Rule::Waits, text);
            }
        }
        let input = Input::Answer { id: attempt.id, result, elapsed_us };
        self.drive_lease(client, id, input, asked_us);
    }

    /// Passes an event to the machine of a lease request, and carries out its action. An answer is to an
    /// attempt that began at `asked_us`.
    fn drive_lease(&mut self, client: usize, id: WriteId, input: Input, asked_us: u64) {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(running) = at.leases.get_mut(&id) else { return };
        let key = running.key;
        match running.machine.on(now, input, &mut at.state) {
            LeaseAction::Wait => {}
            LeaseAction::Send { request, wait_ms } => {
                let stable_since_us = at.cut_us.max(self.plan.begin_us) + STABLE_AFTER_US;
                let now_us = self.now_us;
                let is_stable = now_us >= stable_since_us && self.plan.is_quiet(now_us, now_us);
                running.stable_us = is_stable.then_some(now_us);
                running.pending += 1;
                let (lease_ms, newer_than) = (running.plan.lease_ms, running.newer_than);
                let (asked_us, timeout_ms) = (now_us, request.timeout_ms);
                let attempt = LeaseAttempt { id: request.id, asked_us, timeout_ms, is_stable };
                let purpose = Purpose::Lease { computation: id, attempt };
                let key = self.keys[key].clone();
                let message = Request::Lease { key, lease_ms, wait_ms, newer_than };
                self.send_planned(client, purpose, &request, message);
            }
            LeaseAction::Release(step, token) => self.release(client, step, key, (token, false)),
            LeaseAction::Done(outcome) => {
                running.is_over = true;
                self.lease_completed(client, id, outcome, asked_us);
            }
        }
        let at = &mut self.clients[client];
        if at.leases.get(&id).is_some_and(|running| running.is_over && running.pending == 0) {
            at.leases.remove(&id);
        }
    }

    fn lease_completed(
        &mut self,
        client: usize,
        id: WriteId,
        outcome: LeaseOutcome,
        asked_us: u64,
    ) {
        let at = &mut self.clients[client];
        let Some(RunningLease { key, plan, newer_than, stable_us, .. }) = at.leases.get(&id) else {
            return;
        };
        let (key, newer_than) = (*key, *newer_than);
        match outcome {
            LeaseOutcome::Granted(step, token) => {
                let computing =
                    Computing { key, plan: plan.clone(), step, token, stable_us: *stable_us };
                let (duration_us, lease_ms) = (plan.duration_us, plan.lease_ms);
                at.computing.insert(id, computing);
                self.counts.leases += 1;
                trace!(self, "client {client} computes write {id} with {token}");
                self.checker.granted(id, token, asked_us, lease_ms);
                self.check_choice(client, id);
                let client = client as u32;
                self.schedule_in(duration_us, Event::Computed { client, id });
            }
            LeaseOutcome::Found(_, item) => {
                let version = item.version;
                at.found.insert(key, version);
                self.counts.lease_found += 1;
                self.checker.received(key, version, &item.value);
                if Some(version) <= newer_than {
                    self.checker.protocol_error(&format!(
                        "client {client} is given {version} of key {key} again"
                    ));
                }
            }
            LeaseOutcome::Busy(_) | LeaseOutcome::Refused(_) => self.counts.lease_busy += 1,
            LeaseOutcome::Unavailable => self.counts.lease_unavailable += 1,
        }
    }

    /// The time of a computation is over.
    pub(in crate::world) fn computed(&mut self, client: u32, id: WriteId) {
        let client = client as usize;
        let Some(computing) = self.clients[client].computing.remove(&id) else { return };
        let Computing { key, plan, step, token, .. } = computing;
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
                self.begin_write(client, (key, put), id, Some(token));
            }
            ComputationEnd::Released => self.release(client, step, key, (token, false)),
            ComputationEnd::Failed => self.release(client, step, key, (token, true)),
            ComputationEnd::Abandoned | ComputationEnd::Dead => {}
        }
    }

    /// All processes that compute a key at a time have the lease from one node, as long as nothing goes wrong.
    fn check_choice(&mut self, client: usize, id: WriteId) {
        let in_all = self.plan.workload.leases_in_all_regions;
        let region = self.clients[client].region;
        let Some(own) = self.clients[client].computing.get(&id) else { return };
        let others = self.clients.iter().filter(|other| in_all || other.region == region);
        let elsewhere = others.flat_map(|other| &other.computing).find(|(_, other)| {
            let began_us = own.stable_us.min(other.stable_us);
            other.key == own.key
                && other.step.node != own.step.node
                && began_us.is_some_and(|began_us| self.plan.is_quiet(began_us, self.now_us))
        });
        if let Some((other, _)) = elsewhere {
            let text = format!("writes {id} and {other} are computed with leases of two nodes");
            self.checker.violate(Rule::Exclusive, text);
        }
    }

    fn release(&mut self, client: usize, step: Step, key: usize, (token, failed): (Version, bool)) {
        let now = self.client_now(client);
        let (release, outgoing) = Release::begin(step, now, &mut self.clients[client].state);
        let request = Request::Release { key: self.keys[key].clone(), token, failed };
        self.send_planned(client, Purpose::Release(release), &outgoing, request);
    }

    /// Closes a client's connections to a node.
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
