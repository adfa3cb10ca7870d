//! A stranger, who reaches all nodes and is none: it poses as one, and neither keeps the heartbeats of that node
//! from counting nor has a node that does not exist believed.

use std::net::{IpAddr, Ipv4Addr};

use zerocache_core::{
    cluster::Gossip,
    node::{Caller, Input, RequestId},
    version::Incarnation,
    wire::{
        CONTENT_BYTES_MAX, Datagram, DatagramKind, Envelope, Hello, NodeInfo, NodeState, Request,
        RequestMessage, Response, Session, SessionKey, cluster_id, features,
    },
};

use super::{
    Event, World,
    dial::{CLUSTER, region_name},
    trace,
};
use crate::{checker::Rule, clock::SECOND_US, profile::Profile, random::Random};

/// The address of the stranger, at which no host is.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 250, 0, 9));

/// The time between two acts, in microseconds.
const EVERY_US: u64 = SECOND_US;

/// Heartbeats are counted for this long before the end, in microseconds.
const COUNTED_US: u64 = 8 * SECOND_US;

/// So many of ten heartbeats are echoed while nothing goes wrong: the last ones are still on their way, and those
/// around a renewal of the key are lost.
const ECHOED_OF_TEN: u64 = 8;

/// A heartbeat with this number, which is possible, makes all others old.
const FORGED_SEQUENCE: u64 = 1_000_000;

/// The state of the stranger.
#[derive(Debug)]
pub(super) struct Stranger {
    random: Random,
    /// Heartbeats of each node that were sent and echoed, some time before the end.
    counted: Vec<Option<(Incarnation, u64, u64)>>,
}

impl Stranger {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed ^ 0x57a6), counted: Vec::new() }
    }
}

impl World {
    /// When the stranger acts first, if there is one.
    pub(super) fn stranger_begins_us(&self) -> Option<u64> {
        (self.plan.profile == Profile::Strangers).then_some(self.plan.begin_us)
    }

    /// The stranger poses as one node and talks to another one. Near the end it only counts.
    pub(super) fn strange(&mut self) {
        let counts_us = self.plan.end_us - COUNTED_US;
        if self.now_us >= counts_us {
            self.stranger.counted = self.heartbeats();
            return;
        }
        let next_us = self.now_us + EVERY_US;
        let is_over = next_us >= self.plan.heal_us;
        self.schedule(if is_over { counts_us } else { next_us }, Event::Stranger);
        let is_awake = |host: &u32| {
            let at = &self.hosts[*host as usize];
            self.nodes[*host as usize].is_some() && at.is_up && at.frozen_since_us.is_none()
        };
        let mut hosts: Vec<u32> = (0..self.nodes.len() as u32).filter(is_awake).collect();
        self.stranger.random.shuffle(&mut hosts);
        if let [name, to, ..] = hosts[..] {
            self.pose(name, to);
        }
    }

    /// Poses at `to` as the node of the host `name`.
    fn pose(&mut self, name: u32, to: u32) {
        trace!(self, "a stranger poses as {name} at {to}");
        let info = |incarnation, address| NodeInfo {
            incarnation,
            region: region_name(self.plan.nodes[name as usize].region),
            zone: None,
            addresses: vec![address],
            state: NodeState::InSync,
            bytes_max: 1 << 20,
            name: None,
            replicas: zerocache_core::cluster::Replicas::All,
        };
        let address = self.hosts[name as usize].address;
        let of = |host: u32| self.nodes[host as usize].as_ref().map(|at| at.incarnation);
        let (Some(victim), Some(own)) = (of(name), of(to)) else { return };
        let invented = info(Incarnation(self.stranger.random.number()), address);
        let victim_info = info(victim, address);
        let hello = Hello {
            features: features::ALL | features::SEALED_DATAGRAMS,
            node: Some(victim_info.clone()),
            members: vec![invented.clone()],
            ..Hello::of_client(CLUSTER, &victim_info.region, self.now_at(to).wall_ms)
        };
        let now = self.now_at(to).mono;
        let mut told = Gossip::new(victim_info, now);
        told.met(&invented, now);
        let content = told.speak(own, now, CONTENT_BYTES_MAX);
        let answer = self.ask_as(victim, to, Request::Hello(Box::new(hello)));
        for request in [Request::Gossip(content.clone()), Request::Goodbye] {
            self.ask_as(victim, to, request);
        }
        // Without a key it tries one that is certainly wrong.
        let guess = Session { key: SessionKey::from_bytes([0; 32]), generation: None };
        let session = match answer {
            Some(Response::Hello(hello)) => hello.session.unwrap_or(guess),
            _ => guess,
        };
        let heartbeat = Datagram {
            from: victim,
            to: own,
            kind: DatagramKind::Heartbeat,
            generation: session.generation,
            sequence: FORGED_SEQUENCE,
            time_ms: now.as_millis(),
            content,
        };
        let bytes = heartbeat.seal(&session.key);
        self.node_input(to, vec![Input::Datagram { from: address, bytes }]);
    }

    /// Sends a node a request in another node's name.
    fn ask_as(&mut self, name: Incarnation, to: u32, request: Request) -> Option<Response> {
        let envelope =
            Envelope { cluster: cluster_id(CLUSTER), from: Some(name), ..Envelope::default() };
        // A defective node takes a claim for a proof.
        let identity = self.variant.trusts_claims().then_some(name);
        let caller = Caller { identity, ..Caller::unauthenticated(Some(ADDRESS)) };
        let id = RequestId(self.stranger.random.number() | 3 << 62);
        self.ask_node((caller, to), id, RequestMessage { envelope, request })
    }

    /// The heartbeats of each node so far that were sent and echoed.
    fn heartbeats(&self) -> Vec<Option<(Incarnation, u64, u64)>> {
        let counts = self.nodes.iter().map(|process| {
            let process = process.as_ref()?;
            let counts = process.node.datagram_counts();
            Some((process.incarnation, counts.heartbeats_sent, counts.heartbeats_acknowledged))
        });
        counts.collect()
    }

    /// At the end: the stranger has achieved nothing.
    pub(super) fn check_stranger(&mut self) {
        if self.plan.profile != Profile::Strangers {
            return;
        }
        let after = self.heartbeats();
        for (host, pair) in self.stranger.counted.iter().zip(after).enumerate() {
            let (Some((id, sent, echoed)), Some((id_now, sent_now, echoed_now))) = pair else {
                continue;
            };
            let (sent, echoed) = (sent_now - sent, echoed_now - echoed);
            if *id == id_now && echoed * 10 < sent * ECHOED_OF_TEN {
                let text = format!("only {echoed} of {sent} heartbeats of {host} were echoed");
                return self.checker.violate(Rule::Strangers, text);
            }
        }
        for host in 0..self.nodes.len() as u32 {
            let now = self.now_at(host);
            let Some(process) = self.nodes[host as usize].as_ref() else { continue };
            let known = process.node.status(now).nodes;
            let invented = known.iter().find(|node| self.checker.host_of(node.id).is_none());
            if let Some(node) = invented {
                let text = format!("{host} knows {}, which never existed", node.id);
                return self.checker.violate(Rule::Strangers, text);
            }
        }
    }
}
