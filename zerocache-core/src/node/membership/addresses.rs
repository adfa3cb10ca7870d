//! The addresses that nodes claim: this node's own, which may change, and those that two nodes claim.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Membership, wake};
use crate::{node::local::Context, store::Backend, wire::NodeInfo};

impl Membership {
    /// Changes this node's own addresses. The members that it reaches get a handshake, and the others hear
    /// of it by gossip.
    pub(in crate::node) fn addresses_changed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        addresses: Vec<SocketAddr>,
    ) {
        if addresses == cx.local.config.info.addresses {
            return;
        }
        cx.local.config.info.addresses.clone_from(&addresses);
        self.directory.gossip.readdressed(addresses, cx.now.mono);
        let reachable = self.view.reachable().map(|m| (m.info.incarnation, m.address));
        for (id, address) in reachable.collect::<Vec<_>>() {
            self.greet(cx, id, address);
        }
        wake(cx);
    }

    /// Notes where a live node can be reached. If this node claims the same address, or another live one
    /// does, one address has two nodes: on two networks, or by mistake.
    pub(super) fn note_claims<B: Backend>(&mut self, cx: &mut Context<'_, B>, info: &NodeInfo) {
        let (own, id) = (&cx.local.config.info, info.incarnation);
        if id == own.incarnation {
            return;
        }
        let contested = info.addresses.iter().find(|address| own.addresses.contains(address));
        if let Some(address) = contested {
            return self.report_conflict(cx, id, *address);
        }
        for address in &info.addresses {
            if let Some(before) = self.directory.claim(id, *address) {
                self.displaced(cx.now, before, *address);
            }
            self.note_conflict(cx, id, *address);
        }
    }
}
