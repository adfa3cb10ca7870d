//! Nodes that refuse this one, at addresses to be dialled and among the members: what is reported of them.

use alloc::string::String;
use core::net::SocketAddr;

use super::Membership;
use crate::{
    cluster::DialRefusal,
    node::{Effect, Event, local::Context},
    store::Backend,
    time::Instant,
    version::Incarnation,
};

/// The most refusals that are reported within [`REPORTS_MS`]: whoever announces addresses on the network can
/// cause them.
const REPORTS_MAX: u32 = 16;
const REPORTS_MS: u64 = 60_000;

/// Bounds the rate of reports.
#[derive(Debug, Default)]
pub(super) struct Reports {
    since: Instant,
    count: u32,
}

impl Reports {
    /// Counts a report, and returns whether it may be made.
    fn admit(&mut self, now: Instant) -> bool {
        if now.since_ms(self.since) >= REPORTS_MS {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= REPORTS_MAX
    }
}

impl Membership {
    /// Notes that the node at an address that was dialled refuses this one.
    pub(super) fn dial_refused<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        address: SocketAddr,
        code: DialRefusal,
        text: String,
    ) {
        if self.view.candidates_mut().refused_by(address, code, cx.now.mono) {
            self.report(cx, address, code, text);
        }
    }

    /// Notes that a member refuses this node, as after a change of its configuration: it is of no more use
    /// than one that is silent.
    pub(super) fn member_refused<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
        code: DialRefusal,
        text: String,
    ) {
        self.suspect(cx, id);
        if let Some(member) = self.view.member_mut(id)
            && member.refusal.replace(code) != Some(code)
        {
            let address = member.address;
            self.report(cx, address, code, text);
        }
    }

    fn report<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        address: SocketAddr,
        code: DialRefusal,
        text: String,
    ) {
        if self.reports.admit(cx.now.mono) {
            cx.out.push(Effect::Event(Event::PeerRefused { address, code, text }));
        }
    }
}
