//! What a client learns from handshakes and probes.

use alloc::string::String;
use core::net::SocketAddr;

use super::ClientState;
use crate::{
    access::Denial,
    call::CallResult,
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
        self.note_denial(address, denial_of(&result));
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
                directory.set_features(node, hello.features);
                HandshakeOutcome::Introduced
            }
            Ok(Response::Refused(refusal)) if refusal.code == RefusalCode::WrongCluster => {
                directory.candidates_mut().set_aside(address, now);
                HandshakeOutcome::OtherCluster(refusal.text)
            }
            result => {
                directory.candidates_mut().failed(address, now);
                match denial_of(&result) {
                    Some((denial, text)) => HandshakeOutcome::Denied(denial, text),
                    None => HandshakeOutcome::Failed,
                }
            }
        }
    }

    /// Returns why nodes deny this client everything, and the words of one of them, if one does and no node
    /// is reachable: the reason why none can be asked.
    #[must_use]
    pub fn denial(&self, now: Instant) -> Option<(Denial, &str)> {
        let (_, denial, text) = self.denied.as_ref()?;
        let is_alone = !self.directory().nodes().any(|node| node.is_reachable(now));
        is_alone.then_some((*denial, text))
    }

    /// Forgets why nodes denied this client: it has other credentials now.
    pub fn forget_denial(&mut self) {
        self.denied = None;
    }

    /// Records whether the node at `address` denied a handshake.
    fn note_denial(&mut self, address: SocketAddr, denial: Option<(Denial, String)>) {
        let is_its = |denied: &DeniedBy| denied.0 == address;
        match denial {
            Some((denial, text)) => self.denied = Some((address, denial, text)),
            None if self.denied.as_ref().is_some_and(is_its) => self.denied = None,
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
            self.note_denial(address, denial_of(&result));
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

/// The address of a node that denied a handshake, the reason, and its words.
pub(super) type DeniedBy = (SocketAddr, Denial, String);

fn denial_of(result: &CallResult) -> Option<(Denial, String)> {
    let Ok(Response::Refused(refusal)) = result else { return None };
    Some((Denial::from_refusal_code(refusal.code)?, refusal.text.clone()))
}

/// Whether the node that was meant no longer stands where it was asked.
const fn is_elsewhere(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::WrongNode | RefusalCode::WrongCluster)
}
