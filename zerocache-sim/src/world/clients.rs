//! Clients: the core's directory and ladder, and around them what the client package does.

mod computing;
mod operations;

use std::{collections::BTreeMap, net::SocketAddr};

use zerocache_core::{
    call::CallFailure,
    cluster::AddressSource,
    key::KeyHash,
    route::{Budget, Directory, Step, Turn, Walk},
    time::Instant,
    version::{Incarnation, Version},
    wire::{
        Ack, Envelope, Hello, PROTOCOL, RefusalCode, Request, RequestMessage, Response, cluster_id,
    },
};

use self::computing::{Computing, Question};
use super::{
    CallToken, Event, World,
    dial::{CLUSTER, region_name},
};
use crate::{
    checker::AcknowledgedWrite,
    workload::{Operation, WriteId},
};

/// How often a client looks what is due, in microseconds.
const TURN_US: u64 = 50_000;

/// How long a handshake or probe may take, in milliseconds.
const PROBE_TIMEOUT_MS: u64 = 1_000;

/// For this long after a write its node is asked first for the key, in milliseconds.
const REMEMBERED_MS: u64 = 2_000;

/// A client.
pub(super) struct Client {
    region: usize,
    directory: Directory,
    calls: BTreeMap<CallToken, Purpose>,
    next_token: CallToken,
    operations: BTreeMap<u64, Running>,
    computing: BTreeMap<u64, Computing>,
    /// When it last ended its connections to a node.
    cut_us: u64,
    /// The values that it was given last, by key.
    found: BTreeMap<usize, Version>,
    own_writes: BTreeMap<KeyHash, (OwnWrite, Instant)>,
    /// The highest stamp that nodes told.
    seen: u64,
}

/// A client's last write of a key.
#[derive(Clone, Copy)]
struct OwnWrite {
    node: Incarnation,
    version: Option<Version>,
    is_delete: bool,
}

/// What a call is for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Dial {
        address: SocketAddr,
    },
    Probe {
        node: Incarnation,
        address: SocketAddr,
    },
    /// The members of a node whose view has changed.
    Learn {
        node: Incarnation,
        address: SocketAddr,
        view: u64,
    },
    Try {
        operation: u64,
    },
    /// A question for leave.
    Lease {
        computation: u64,
        question: Question,
    },
    /// A leave that is given back.
    Release {
        node: Incarnation,
    },
}

/// An operation under way.
pub(super) struct Running {
    pub(super) key: usize,
    operation: Operation,
    /// The leave under which the value was computed.
    token: Option<Version>,
    id: WriteId,
    budget: Budget,
    /// The turn of its first request.
    turn: Option<Turn>,
    walk: Option<Walk>,
    asked: Option<PendingRequest>,
    missed: bool,
    refused: bool,
    /// For a read: what its client knows that it wrote a moment before.
    written: Option<OwnWrite>,
    /// The same as the checker knows it.
    pub(super) own: Option<AcknowledgedWrite>,
}

/// The request under way.
#[derive(Clone, Copy)]
struct PendingRequest {
    step: Step,
    timeout_ms: u64,
    expect_soon: bool,
    seen: u64,
}

impl Running {
    fn is_read(&self) -> bool {
        self.operation == Operation::Get
    }

    /// Whether a node that says nothing for a while is silent, and not waiting for others.
    fn expect_soon(&self) -> bool {
        match self.operation {
            Operation::Get | Operation::Compute(_) => true,
            Operation::Put { ack, .. } | Operation::Delete { ack } => ack == Ack::Local,
        }
    }
}

impl Client {
    pub(super) fn new(region: usize) -> Self {
        Self {
            region,
            directory: Directory::new(region_name(region)),
            calls: BTreeMap::new(),
            next_token: 0,
            operations: BTreeMap::new(),
            computing: BTreeMap::new(),
            cut_us: 0,
            found: BTreeMap::new(),
            own_writes: BTreeMap::new(),
            seen: 0,
        }
    }

    /// Whether it ended connections itself at this time or a moment before.
    pub(super) fn has_cut_itself_off(&self, since_us: u64) -> bool {
        self.cut_us > 0 && self.cut_us + computing::SETTLES_US > since_us
    }

    /// Nodes that take turns at `now`.
    pub(super) fn rotation(&self, now: Instant) -> Vec<Incarnation> {
        let nodes = self.directory.nodes().filter(|node| node.in_rotation(now));
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
        timeout_ms: u64,
    ) {
        let at = &mut self.clients[client];
        let token = at.next_token;
        at.next_token += 1;
        at.calls.insert(token, purpose);
        let envelope = Envelope {
            cluster: cluster_id(CLUSTER),
            to: node,
            timeout_ms,
            seen: if self.variant.forgets_seen() { 0 } else { at.seen },
            ..Envelope::default()
        };
        let host = self.host_of(client as u32);
        self.call(host, token, to, RequestMessage { envelope, request }, timeout_ms);
    }

    fn client_now(&self, client: usize) -> Instant {
        self.now_at(self.host_of(client as u32)).mono
    }

    pub(super) fn client_discovers(&mut self, client: usize, addresses: Vec<SocketAddr>) {
        let now = self.client_now(client);
        for address in addresses {
            self.clients[client].directory.propose(address, AddressSource::Discovery, now);
        }
    }

    /// Dials and probes what is due.
    pub(super) fn client_tick(&mut self, client: u32) {
        self.schedule_in(TURN_US, Event::ClientTick(client));
        let client = client as usize;
        let now = self.client_now(client);
        self.look_for_gone(client);
        let directory = &mut self.clients[client].directory;
        let dials = directory.candidates_mut().take_due(now);
        let probes = directory.take_due_probes(now);
        for address in dials {
            self.shake_hands(client, Purpose::Dial { address }, address);
        }
        for (node, address) in probes {
            let purpose = Purpose::Probe { node, address };
            self.client_call(
                client,
                purpose,
                (address, Some(node)),
                Request::Ping,
                PROBE_TIMEOUT_MS,
            );
        }
    }

    fn shake_hands(&mut self, client: usize, purpose: Purpose, address: SocketAddr) {
        let hello = Hello {
            cluster: CLUSTER.to_owned(),
            protocol: PROTOCOL,
            features: 0,
            auth: bytes::Bytes::new(),
            wall_ms: self.now_at(self.host_of(client as u32)).wall_ms,
            node: None,
            region: region_name(self.clients[client].region),
            members: Vec::new(),
            entries: 0,
            session: None,
        };
        let request = Request::Hello(Box::new(hello));
        self.client_call(client, purpose, (address, None), request, PROBE_TIMEOUT_MS);
    }

    /// A call of a client has ended.
    pub(super) fn client_answered(
        &mut self,
        client: usize,
        token: CallToken,
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
    ) {
        match self.clients[client].calls.remove(&token) {
            Some(Purpose::Dial { address }) => {
                self.introduced(client, address, result, elapsed_us);
            }
            Some(Purpose::Learn { node, address, view }) => {
                let introduced = self.introduced(client, address, result, elapsed_us);
                let directory = &mut self.clients[client].directory;
                if introduced {
                    directory.members_learned(node, view);
                }
            }
            Some(Purpose::Probe { node, address }) => {
                self.probed(client, (node, address), result, elapsed_us);
            }
            Some(Purpose::Lease { computation, question }) => {
                self.leased(client, (computation, question), result, elapsed_us);
            }
            Some(Purpose::Release { node }) => {
                let now = self.client_now(client);
                if result.is_ok() {
                    self.clients[client].directory.record_answer(node, now, Some(elapsed_us));
                }
            }
            Some(Purpose::Try { operation }) => {
                self.tried(client, operation, result, elapsed_us);
            }
            None => {}
        }
    }

    fn introduced(
        &mut self,
        client: usize,
        address: SocketAddr,
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
    ) -> bool {
        let now = self.client_now(client);
        let directory = &mut self.clients[client].directory;
        let Ok(Response::Hello(hello)) = result else {
            directory.candidates_mut().failed(address, now);
            return false;
        };
        match hello.node {
            Some(info) => {
                let node = info.incarnation;
                for address in hello.members.iter().flat_map(|member| &member.addresses) {
                    directory.propose(*address, AddressSource::Node(node), now);
                }
                directory.handshake_completed(info, address, now, elapsed_us);
                directory.set_features(node, hello.features);
            }
            None => directory.candidates_mut().failed(address, now),
        }
        true
    }

    fn probed(
        &mut self,
        client: usize,
        (node, address): (Incarnation, SocketAddr),
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
    ) {
        let now = self.client_now(client);
        let directory = &mut self.clients[client].directory;
        match result {
            Ok(Response::Pong { incarnation, state, view, .. }) if incarnation == node => {
                if directory.probe_answered(node, state, view, now, elapsed_us) {
                    self.shake_hands(client, Purpose::Learn { node, address, view }, address);
                }
            }
            Ok(Response::Pong { .. }) => directory.node_replaced(node, now),
            Ok(Response::Refused(refusal)) if is_elsewhere(refusal.code) => {
                directory.node_replaced(node, now);
            }
            Ok(_) | Err(_) => directory.request_failed(node, now),
        }
    }
}

fn is_elsewhere(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::WrongNode | RefusalCode::WrongCluster)
}
