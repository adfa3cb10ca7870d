//! The node whose changes a client follows.

use core::net::SocketAddr;

use super::directory::{Directory, NodeEntry};
use crate::{
    time::Instant,
    version::Incarnation,
    wire::{NodeState, features},
};

impl Directory {
    /// The next node whose change feed can be followed: a node in sync that supports it, of the client's own
    /// zone, or else of its region, if there is one, another one each time.
    pub fn next_feed_node(&mut self, now: Instant) -> Option<(Incarnation, SocketAddr)> {
        self.next_node_with(features::FEED, now)
    }

    /// The next node to listen to, by the same rules.
    pub fn next_listen_node(&mut self, now: Instant) -> Option<(Incarnation, SocketAddr)> {
        self.next_node_with(features::FEED | features::LISTEN, now)
    }

    /// Whether a node reports versions, deletes and tags of changes.
    #[must_use]
    pub fn can_listen(&self, node: Incarnation) -> bool {
        self.nodes.get(&node).is_some_and(|entry| entry.features & features::LISTEN != 0)
    }

    /// Whether there is such a node that can be followed.
    #[must_use]
    pub fn has_listen_node(&self, now: Instant) -> bool {
        let features = features::FEED | features::LISTEN;
        self.nodes().any(|node| node.is_ready(now) && node.features & features == features)
    }

    fn next_node_with(&mut self, features: u64, now: Instant) -> Option<(Incarnation, SocketAddr)> {
        let supports =
            |node: &&NodeEntry| node.is_ready(now) && node.features & features == features;
        let near = self.nodes().filter(supports).map(NodeEntry::nearness).max();
        let fits = |node: &&NodeEntry| supports(node) && Some(node.nearness()) == near;
        let count = self.nodes().filter(fits).count();
        self.next_watch = self.next_watch.wrapping_add(1);
        let node = self.nodes().filter(fits).nth(self.next_watch.checked_rem(count)?)?;
        Some((node.info.incarnation, node.address))
    }

    /// Whether the change feed of a node may be followed further: the node is in sync and did not fail. A
    /// node that is silent for a moment may, because the feed has a time bound of its own.
    #[must_use]
    pub fn can_follow(&self, node: Incarnation) -> bool {
        let can = |entry: &NodeEntry| !entry.out && entry.info.state == NodeState::InSync;
        self.nodes.get(&node).is_some_and(can)
    }
}
