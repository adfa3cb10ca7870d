//! What a client learns from handshakes and probes.

use alloc::string::String;
use core::net::SocketAddr;

use super::ClientState;
use crate::{
    access::Denial,
    call::{CallFailure, CallResult},
    cluster::AddressSource,
    route::NodeEntry,
    time::Instant,
    version::Incarnation,
    wire::{RefusalCode, Response},
};

/// The outcome of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeOutcome {
    /// A node of the client's cluster introduced itself.
    Introduced,
    /// The node belongs to another cluster, and says so with these words.
    OtherCluster(String),
    /// The node has nothing to do with this client, and says why.
    Denied(Denial, String),
    /// The node could not prove that it is one of the cluster, or did not accept the client's certificate.
    Unverified,
    /// No node that can be used answered.
    Failed,
}

/// The outcome of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeOutcome {
    /// Whether the node stands in the client's own region; none if it did not answer.
    pub is_local: Option<bool>,
    /// The number of its view, if the node reaches other nodes than when its members were last learned. A
    /// handshake tells the members.
    pub new_view: Option<u64>,
}

impl ClientState {
    /// Records the answer to a handshake at `address` by a client of `cluster`.
    pub fn handshake_answered(
        &mut self,
        cluster: &str,
        address: SocketAddr,
        result: CallResult,
        now: Instant,
        elapsed_us: u64,
    ) -> HandshakeOutcome {
        self.note_denial(address, &result);
        let directory = self.directory_mut();
        match result {
            Ok(Response::Hello(hello)) if hello.cluster == cluster => {
                let Some(info) = hello.node else {
                    directory.candidates_mut().failed(address, now);
                    return HandshakeOutcome::Introduced;
                };
                let node = info.incarnation;
                for address in hello.members.iter().flat_map(|member| &member.addresses) {
                    directory.propose(*address, AddressSource::Node(node), now);
                }
                directory.handshake_completed(info, address, now, elapsed_us);
                directory.set_features(node, hello.features, now);
                HandshakeOutcome::Introduced
            }
            Ok(Response::Refused(refusal)) if refusal.code == RefusalCode::WrongCluster => {
                directory.candidates_mut().set_aside(address, now);
                HandshakeOutcome::OtherCluster(refusal.text)
            }
            result => {
                let candidates = directory.candidates_mut();
                match Obstacle::of(address, &result) {
                    Some(obstacle) => {
                        candidates.denied(address, now);
                        match obstacle {
                            Obstacle::Denied(denial, text) => {
                                HandshakeOutcome::Denied(denial, text)
                            }
                            Obstacle::Unverified(_) => HandshakeOutcome::Unverified,
                        }
                    }
                    None => {
                        candidates.failed(address, now);
                        HandshakeOutcome::Failed
                    }
                }
            }
        }
    }

    /// Returns what stands between this client and the nodes, if a node is there and none is reachable: the
    /// reason why none can be asked.
    #[must_use]
    pub fn obstacle(&self, now: Instant) -> Option<&Obstacle> {
        let (_, obstacle) = self.obstacle.as_ref()?;
        let is_alone = !self.directory().nodes().any(|node| node.is_reachable(now));
        is_alone.then_some(obstacle)
    }

    /// Records that the client has other credentials: it tries at once whether what stood between it and the
    /// nodes is gone.
    pub fn credentials_changed(&mut self, now: Instant) {
        self.directory_mut().candidates_mut().retry_all(now);
    }

    /// Records whether the node at `address` has nothing to do with this client.
    fn note_denial(&mut self, address: SocketAddr, result: &CallResult) {
        let is_known = self.obstacle.as_ref().is_some_and(|(of, _)| *of == address);
        match Obstacle::of(address, result) {
            Some(obstacle) => self.obstacle = Some((address, obstacle)),
            None if is_known => self.obstacle = None,
            None => {}
        }
    }

    /// Records the answer of a node to a probe.
    pub fn probe_answered(
        &mut self,
        node: Incarnation,
        result: CallResult,
        now: Instant,
        elapsed_us: u64,
    ) -> ProbeOutcome {
        if let Some(address) = self.directory().node(node).map(|node| node.address) {
            self.note_denial(address, &result);
        }
        let directory = self.directory_mut();
        let mut outcome = ProbeOutcome { is_local: None, new_view: None };
        match result {
            Ok(Response::Pong { incarnation, state, view, .. }) if incarnation == node => {
                let changed = directory.probe_answered(node, state, view, now, elapsed_us);
                outcome.new_view = changed.then_some(view);
                outcome.is_local = directory.node(node).map(NodeEntry::is_local);
            }
            Ok(Response::Pong { .. }) => directory.node_replaced(node, now),
            Ok(Response::Refused(refusal)) if is_elsewhere(refusal.code) => {
                directory.node_replaced(node, now);
            }
            Ok(_) | Err(_) => directory.request_failed(node, now),
        }
        outcome
    }
}

/// What stands between a client and a node that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The node has nothing to do with this client, and says why.
    Denied(Denial, String),
    /// The node at this address could not prove that it is one of the cluster, or did not accept the
    /// client's certificate.
    Unverified(SocketAddr),
}

impl Obstacle {
    fn of(address: SocketAddr, result: &CallResult) -> Option<Self> {
        match result {
            Ok(Response::Refused(refusal)) => {
                let denial = Denial::from_refusal_code(refusal.code)?;
                Some(Self::Denied(denial, refusal.text.clone()))
            }
            Err(CallFailure::Unverified) => Some(Self::Unverified(address)),
            _ => None,
        }
    }
}

/// Whether the node that was meant no longer stands where it was asked.
const fn is_elsewhere(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::WrongNode | RefusalCode::WrongCluster)
}
