//! What is kept of each node that exists, and of each rumour.

use crate::{time::Instant, version::Incarnation, wire::NodeInfo};

/// A change of a row that is still passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rumour {
    pub(super) id: Incarnation,
    /// How often it is still sent.
    pub(super) sends_left: u8,
    /// Whether the receivers probably know the node, so that its number and age are enough.
    pub(super) is_short: bool,
}

/// What is known of a node.
#[derive(Clone, Debug)]
pub(super) struct NodeEntry {
    pub(super) info: NodeInfo,
    pub(super) renewal: u64,
    pub(super) renewed: Instant,
    pub(super) gone: bool,
    /// The node that named it; `None` if this node met it.
    pub(super) source: Option<Incarnation>,
    /// Whether its properties come from its own handshakes: gossip does not change them.
    pub(super) is_met: bool,
}

impl NodeEntry {
    /// A node with which this one did a handshake.
    pub(super) fn met(info: NodeInfo, renewal: u64, now: Instant) -> Self {
        Self { info, renewal, renewed: now, gone: false, source: None, is_met: true }
    }
}
