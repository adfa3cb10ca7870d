//! Drives the core's client machines through the simulated network. Every rule of a client is in
//! `zerocache_core::client`; here requests are sent, timers are set, and outcomes reach the checker.

mod batches;
mod conditions;
mod leases;
mod near;
mod operations;
mod purges;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use zerocache_core::{
    call::CallResult,
    client::{AttemptId, ClientState, HandshakeOutcome, Outgoing, Release},
    cluster::AddressSource,
    route::TierBounds,
    time::Instant,
    version::{Incarnation, Version},
    wire::{Envelope, Hello, Request, RequestMessage, cluster_id},
};

pub(super) use self::operations::RunningRead;
use self::{
    batches::RunningBatch,
    leases::{Computing, LeaseAttempt, RunningLease},
    near::ClientNear,
    operations::RunningOperation,
};
use super::{
    CallToken, Event, World,
    dial::{CLUSTER, region_name},
};
use crate::{
    plan::{ClientPlan, Plan},
    variants::Variant,
};

/// The interval of a client's background work, in microseconds.
const TICK_US: u64 = 50_000;

/// The time-out of a handshake or probe, in milliseconds.
const PROBE_TIMEOUT_MS: u64 = 1_000;

/// A client: the state of the core's machines, and those that are running.
pub(super) struct Client {
    region: usize,
    state: ClientState,
    calls: BTreeMap<CallToken, Purpose>,
    next_token: CallToken,
    operations: BTreeMap<u64, RunningOperation>,
    batches: BTreeMap<u64, RunningBatch>,
    leases: BTreeMap<u64, RunningLease>,
    computing: BTreeMap<u64, Computing>,
    near: Option<ClientNear>,
    /// Operations and batches that wait until a node is known.
    awaiting: BTreeSet<u64>,
    /// When it last closed its connections to a node.
    cut_us: u64,
    /// The versions that it read last, by key.
    found: BTreeMap<usize, Version>,
}

/// The purpose of a call.
#[derive(Debug)]
enum Purpose {
    Dial {
        address: SocketAddr,
    },
    Probe {
        node: Incarnation,
        address: SocketAddr,
    },
    /// The members of a node whose view has changed.
    Members {
        node: Incarnation,
        address: SocketAddr,
        view: u64,
    },
    /// An attempt of an operation or batch.
    Attempt {
        operation: u64,
        id: AttemptId,
    },
    Lease {
        computation: u64,
        attempt: LeaseAttempt,
    },
    Release(Release),
    /// Changes, for the following of this number.
    Follow {
        number: u64,
        asked_us: u64,
    },
}

impl Client {
    pub(super) fn new(plan: &ClientPlan, of: &Plan, variant: Variant) -> Self {
        let (region, bounds) = (plan.region, TierBounds::default());
        let now = Instant::default();
        let mut state = ClientState::new(&region_name(region), bounds, plan.hedge, now);
        state.break_rule(variant.of_client());
        if of.is_hot() {
            state.directory_mut().set_hot_hits(0);
        }
        Self {
            region,
            state,
            calls: BTreeMap::new(),
            next_token: 0,
            operations: BTreeMap::new(),
            batches: BTreeMap::new(),
            leases: BTreeMap::new(),
            computing: BTreeMap::new(),
            near: plan.near.then(|| ClientNear::new(variant.of_client())),
            awaiting: BTreeSet::new(),
            cut_us: 0,
            found: BTreeMap::new(),
        }
    }

    /// Returns whether it closed connections itself at this time or a moment before.
    pub(super) fn has_cut_itself_off(&self, since_us: u64) -> bool {
        self.cut_us > 0 && self.cut_us + leases::STABLE_AFTER_US > since_us
    }

    /// The nodes in rotation at `now`.
    pub(super) fn rotation(&self, now: Instant) -> Vec<Incarnation> {
        let nodes = self.state.directory().nodes().filter(|node| node.in_rotation(now));
        nodes.map(|node| node.info.incarnation).collect()
    }
}

impl World {
    fn client_call(
        &mut self,
        client: usize,
        purpose: Purpose,
        (to, node): (SocketAddr, Option<Incarnation>),
        request: Request,
        (timeout_ms, seen): (u64, u64),
    ) {
        let at = &mut self.clients[client];
        let token = at.next_token;
        at.next_token += 1;
        at.calls.insert(token, purpose);
        let envelope = Envelope {
            cluster: cluster_id(CLUSTER),
            to: node,
            timeout_ms,
            seen: if self.variant.forgets_seen() { 0 } else { seen },
            ..Envelope::default()
        };
        let host = self.host_of(client as u32);
        self.call(host, token, to, RequestMessage { envelope, request }, timeout_ms);
    }

    /// Sends a request that a machine of the client has planned.
    fn send_planned(
        &mut self,
        client: usize,
        purpose: Purpose,
        outgoing: &Outgoing,
        request: Request,
    ) {
        let Outgoing { step, timeout_ms, seen, .. } = *outgoing;
        let to = (step.address, Some(step.node));
        self.client_call(client, purpose, to, request, (timeout_ms, seen));
    }

    fn client_now(&self, client: usize) -> Instant {
        self.now_at(self.host_of(client as u32)).mono
    }

    pub(super) fn client_discovers(&mut self, client: usize, addresses: Vec<SocketAddr>) {
        let now = self.client_now(client);
        let state = &mut self.clients[client].state;
        for address in addresses {
            state.directory_mut().propose(address, AddressSource::Discovery, now);
        }
        state.discovery_completed();
    }

    /// Dials and probes the nodes that are due.
    pub(super) fn client_tick(&mut self, client: u32) {
        self.schedule_in(TICK_US, Event::ClientTick(client));
        let client = client as usize;
        let now = self.client_now(client);
        self.check_lease_nodes(client);
        self.keep_following(client);
        let state = &mut self.clients[client].state;
        let dials = state.directory_mut().candidates_mut().take_due(now);
        let probes = state.directory_mut().take_due_probes(now);
        for address in dials {
            self.shake_hands(client, Purpose::Dial { address }, address);
        }
        for (node, address) in probes {
            let (purpose, to) = (Purpose::Probe { node, address }, (address, Some(node)));
            self.client_call(client, purpose, to, Request::Ping, (PROBE_TIMEOUT_MS, 0));
        }
        self.view_changed(client);
    }

    fn shake_hands(&mut self, client: usize, purpose: Purpose, address: SocketAddr) {
        let hello = {
            let wall_ms = self.now_at(self.host_of(client as u32)).wall_ms;
            Hello::of_client(CLUSTER, &region_name(self.clients[client].region), wall_ms)
        };
        let request = Request::Hello(Box::new(hello));
        self.client_call(client, purpose, (address, None), request, (PROBE_TIMEOUT_MS, 0));
    }

    /// A call of a client has ended.
    pub(super) fn client_answered(
        &mut self,
        client: usize,
        token: CallToken,
        result: CallResult,
        elapsed_us: u64,
    ) {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        match at.calls.remove(&token) {
            Some(Purpose::Dial { address }) => {
                at.state.handshake_answered(CLUSTER, address, result, now, elapsed_us);
                self.view_changed(client);
            }
            Some(Purpose::Members { node, address, view }) => {
                let state = &mut at.state;
                let outcome = state.handshake_answered(CLUSTER, address, result, now, elapsed_us);
                if outcome == HandshakeOutcome::Introduced {
                    state.directory_mut().members_learned(node, view);
                }
                self.view_changed(client);
            }
            Some(Purpose::Probe { node, address }) => {
                let outcome = at.state.probe_answered(node, result, now, elapsed_us);
                if let Some(view) = outcome.new_view {
                    self.shake_hands(client, Purpose::Members { node, address, view }, address);
                }
                self.view_changed(client);
            }
            Some(Purpose::Lease { computation, attempt }) => {
                self.lease_answered(client, (computation, attempt), result, elapsed_us);
            }
            Some(Purpose::Release(release)) => {
                release.end(now, result, elapsed_us, &mut at.state);
            }
            Some(Purpose::Follow { number, asked_us }) => {
                self.follow_answered(client, (number, asked_us), &result);
            }
            Some(Purpose::Attempt { operation, id }) => {
                self.attempt_answered(client, operation, id, result, elapsed_us);
            }
            None => {}
        }
    }

    /// The directory may have changed: operations that wait for a node look again.
    fn view_changed(&mut self, client: usize) {
        let at = &mut self.clients[client];
        at.state.update_tried();
        for serial in std::mem::take(&mut at.awaiting) {
            self.drive(client, serial, zerocache_core::client::Event::ViewChanged);
        }
    }

    /// The time that an operation or batch asked for has passed.
    pub(super) fn client_timer(&mut self, client: u32, serial: u64) {
        self.drive(client as usize, serial, zerocache_core::client::Event::Timer);
    }
}
