//! What is kept of each node that exists, and of what is passed on.

use crate::{time::Instant, version::Incarnation, wire::NodeInfo};

/// Something to be passed on.
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    pub(super) id: Incarnation,
    pub(super) left: u8,
    /// Whether the receivers probably know the node, so that its number and age are enough.
    pub(super) short: bool,
}

/// What is known of a node.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) info: NodeInfo,
    pub(super) renewal: u64,
    pub(super) renewed: Instant,
    pub(super) gone: bool,
    /// Who told of it; none of a node that this one met.
    pub(super) teller: Option<Incarnation>,
    /// Whether it says itself what it is, in handshakes: others have no say in that.
    pub(super) is_met: bool,
}

impl Known {
    /// A node that this one spoke to.
    pub(super) fn met(info: NodeInfo, renewal: u64, now: Instant) -> Self {
        Self { info, renewal, renewed: now, gone: false, teller: None, is_met: true }
    }
}
