//! Membership: which nodes exist, which of them this node talks to, and which of those respond.

mod addresses;
mod contacts;
mod handshake;
mod heartbeat;
mod liveness;
mod pace;
mod refusals;
mod senders;

use alloc::vec::Vec;

pub use self::heartbeat::DatagramCounts;
use self::{
    contacts::MemberDirectory, handshake::Introductions, heartbeat::Heartbeats, pace::Paces,
    refusals::Reports,
};
use super::{
    Effect, Event,
    local::{CallPurpose, Context, Local, TICK_EVERY_MS},
};
use crate::{
    cluster::{Gossip, Residents, View},
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{Request, features},
};

/// How long a handshake or ping may take, in milliseconds.
const PING_TIMEOUT_MS: u64 = 1_000;

/// A change of a member that other parts of the node act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberChange {
    /// The member responds, for the first time or again, or serves again after it was leaving.
    Up(Incarnation),
    /// The member is shutting down, and takes no more writes.
    Leaving(Incarnation),
    /// The member has been silent for too long.
    Down(Incarnation),
    /// The member is no member any more.
    Removed(Incarnation),
    /// The owners of keys in this region are chosen among other nodes, or by another rule.
    Placement,
}

/// The state of membership.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) view: View,
    directory: MemberDirectory,
    introductions: Introductions,
    heartbeats: Heartbeats,
    paces: Paces,
    reports: Reports,
    residents: Residents,
    /// When the owners of keys are chosen again, unless a member changes before.
    next_placement: Instant,
    /// Changes that other parts of the node have not acted on yet.
    changes: Vec<MemberChange>,
}

impl Membership {
    pub(super) fn new(local: &Local, now: Instant) -> Self {
        Self {
            view: View::default(),
            directory: MemberDirectory::new(local.config.info.clone(), now),
            introductions: Introductions::default(),
            heartbeats: Heartbeats::new(local.config.secret, now),
            paces: Paces::default(),
            reports: Reports::default(),
            residents: Residents::default(),
            next_placement: now,
            changes: Vec::new(),
        }
    }

    /// The nodes that exist, as far as gossip tells.
    pub(super) fn gossip(&self) -> &Gossip {
        &self.directory.gossip
    }

    /// How often two live nodes were found to claim one address.
    pub(super) fn conflicts(&self) -> u64 {
        self.directory.conflicts
    }

    /// The counters of datagrams.
    pub(super) fn datagram_counts(&self) -> DatagramCounts {
        self.heartbeats.counts()
    }

    /// Takes the oldest change that other parts of the node have not acted on.
    pub(super) fn take_change(&mut self) -> Option<MemberChange> {
        (!self.changes.is_empty()).then(|| self.changes.remove(0))
    }

    /// Dials, sends heartbeats, gossips and pings where due, and takes out members that are silent.
    pub(super) fn tick<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        self.dial(cx);
        self.paces = Paces::of(&self.view, cx.local.region());
        self.tick_heartbeats(cx);
        self.tick_gossip(cx);
        self.tick_liveness(cx);
        self.place(cx);
    }

    /// Chooses the owners of keys among those who are there now.
    fn place<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        if cx.now.mono < self.next_placement && self.changes.is_empty() {
            return;
        }
        self.next_placement = cx.now.mono.plus_ms(TICK_EVERY_MS);
        let own = (&cx.local.config.info, cx.local.config.features);
        let own = Some(own).filter(|_| !cx.local.is_leaving());
        let peers = self.view.writable_in(cx.local.region()).map(|m| (&m.info, m.features));
        let known = self.residents.conflicts().to_vec();
        let placement = self.residents.update(cx.now.mono, own.into_iter().chain(peers));
        if self.view.set_placement(placement, self.residents.fallback()) {
            self.changes.push(MemberChange::Placement);
        }
        for name in self.residents.conflicts().iter().filter(|name| !known.contains(name)) {
            let event = Event::NameConflict { name: name.clone() };
            cx.out.push(Effect::Event(event));
        }
    }

    /// The nodes of this region among which owners are chosen.
    pub(super) fn residents(&self) -> &Residents {
        &self.residents
    }

    /// Says goodbye to all reachable members.
    pub(super) fn say_goodbye<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        self.directory.gossip.mark_gone(cx.local.id(), cx.now.mono);
        let all: Vec<_> =
            self.view.reachable().map(|m| (m.address, Some(m.info.incarnation))).collect();
        for to in all {
            let timeout_ms = PING_TIMEOUT_MS / 2;
            cx.local.call(CallPurpose::Goodbye, to, Request::Goodbye, timeout_ms, cx.out);
        }
        cx.local.wake_by(Some(cx.now.mono));
    }

    /// Takes a goodbye back: the node serves again, which its row says from now on. Members see it when they
    /// ping it; those that have forgotten it hear of the row, and a handshake introduces the node to them.
    pub(super) fn return_from_leaving<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        self.directory.gossip.revive(cx.now.mono);
        for member in self.view.members_mut() {
            member.needs_handshake = true;
            member.handshakes = 0;
            member.next_ping = member.next_ping.min(cx.now.mono);
        }
        wake(cx);
    }

    fn gossips(local: &Local) -> bool {
        local.config.features & features::GOSSIP != 0
    }

    /// The members to which writes go, or where they stand, may have changed.
    fn refresh(&mut self, local: &Local) {
        self.view.refresh(local.region());
    }

    fn note_change(&mut self, change: MemberChange) {
        self.changes.push(change);
    }
}

/// Has the node act at `now`.
fn wake<B: Backend>(cx: &mut Context<'_, B>) {
    let Now { mono, .. } = cx.now;
    cx.local.wake_by(Some(mono));
}
