//! The addresses that nodes claim: this node's own, which may change, and those that two of them claim.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::super::{Effect, Node};
use crate::{cluster::Reach, store::Backend, time::Now, wire::NodeInfo};

impl<B: Backend> Node<B> {
    /// This node can be reached at other addresses from now on: it introduces itself again to whom it
    /// reaches, and gossip tells the others.
    pub(in crate::node) fn readdressed(
        &mut self,
        now: Now,
        addresses: Vec<SocketAddr>,
        out: &mut Vec<Effect>,
    ) {
        if addresses == self.config.info.addresses {
            return;
        }
        self.config.info.addresses.clone_from(&addresses);
        self.known.gossip.readdressed(addresses, now.mono);
        let reached = self.view.members().filter(|member| member.reach == Reach::Reachable);
        let reached: Vec<_> = reached.map(|m| (m.info.incarnation, m.address)).collect();
        for (id, address) in reached {
            self.greet(now, id, address, out);
        }
        self.wake = now.mono;
    }

    /// A living node says where it can be reached. Where this node says the same of itself, or another
    /// one that lives, one address has two nodes: on two networks, or by mistake.
    pub(super) fn note_claims(&mut self, now: Now, info: &NodeInfo, out: &mut Vec<Effect>) {
        let (own, id) = (&self.config.info, info.incarnation);
        if id == own.incarnation {
            return;
        }
        let contested = info.addresses.iter().find(|address| own.addresses.contains(address));
        if let Some(address) = contested {
            return self.conflicts(now, id, *address, out);
        }
        for address in &info.addresses {
            if let Some(before) = self.known.claims(id, *address) {
                self.displaced(now, before, *address);
            }
            self.note_conflict(now, id, *address, out);
        }
    }
}
