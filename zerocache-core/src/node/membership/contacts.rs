//! Who exists, and with whom of them this node talks.
//!
//! Gossip only says who may stand where. A node becomes a member by a handshake, and only if it is a
//! contact; of the others it is known that they exist.

use alloc::{collections::VecDeque, vec::Vec};
use core::net::SocketAddr;

use bytes::Bytes;

use super::super::{Call, Effect, Event, Node};
use crate::{
    call::CallResult,
    cluster::{AddressSource, Gossip, Heard, Reach, Standing, choose},
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{CONTENT_BYTES_MAX, NodeInfo, NodeState, Request, Response, features},
};

/// How often contacts are chosen again although nothing was heard, in milliseconds.
const CHOOSE_EVERY_MS: u64 = 1_000;

/// While new nodes are heard of nobody is dropped as a contact, and for this long after, in milliseconds.
const SETTLED_MS: u64 = 5_000;

/// How long a message of gossip on the connection may take, in milliseconds.
const GOSSIP_TIMEOUT_MS: u64 = 1_000;

/// Datagrams carry the gossip of a member that echoed one within this time, in milliseconds.
const PASSES_MS: u64 = 1_000;

/// Most displaced nodes that are remembered, and for how long, in milliseconds.
const DISPLACED_MAX: usize = 64;
const DISPLACED_MS: u64 = 60_000;

/// Most addresses of which it is remembered who claimed them last: those of a hundred nodes or so.
const CLAIMS_MAX: usize = 256;

/// How often it is said that two nodes claim one address, in milliseconds.
const REPORT_EVERY_MS: u64 = 5_000;

/// Who exists, and who of them is a contact.
#[derive(Debug)]
pub(in crate::node) struct Acquaintances {
    pub(in crate::node) gossip: Gossip,
    contacts: Vec<Incarnation>,
    next_choice: Instant,
    /// When a node was last heard of for the first time.
    last_new: Instant,
    /// Nodes in whose place another one answered, the latest last.
    displaced: VecDeque<(SocketAddr, Incarnation, Instant)>,
    /// Who said last that it can be reached at an address, the latest address last.
    claims: VecDeque<(SocketAddr, Incarnation)>,
    pub(in crate::node) conflicts: u64,
    last_report: Option<Instant>,
}

impl Acquaintances {
    pub(in crate::node) fn new(own: NodeInfo, now: Instant) -> Self {
        let gossip = Gossip::new(own, now);
        Self {
            gossip,
            contacts: Vec::new(),
            next_choice: now,
            last_new: now,
            displaced: VecDeque::new(),
            claims: VecDeque::new(),
            conflicts: 0,
            last_report: None,
        }
    }

    /// A node says that it can be reached at an address; returns who else said so last.
    pub(super) fn claims(&mut self, id: Incarnation, address: SocketAddr) -> Option<Incarnation> {
        if let Some((_, last)) = self.claims.iter_mut().find(|(there, _)| *there == address) {
            let before = core::mem::replace(last, id);
            return (before != id).then_some(before);
        }
        if self.claims.len() >= CLAIMS_MAX {
            self.claims.pop_front();
        }
        self.claims.push_back((address, id));
        None
    }

    /// Whether a node that is no contact, and need not be dialled, stands at an address.
    pub(in crate::node) fn is_no_contact(&self, own: &NodeInfo, address: SocketAddr) -> bool {
        let there = self.gossip.others().find(|info| info.addresses.contains(&address));
        there.is_some_and(|info| {
            info.region != own.region && !self.contacts.contains(&info.incarnation)
        })
    }
}

impl<B: Backend> Node<B> {
    pub(in crate::node) fn gossips(&self) -> bool {
        self.config.features & features::GOSSIP != 0
    }

    pub(super) fn tick_gossip(&mut self, now: Now, out: &mut Vec<Effect>) {
        for id in self.known.gossip.tick(now.mono) {
            self.forget(now, id, out);
        }
        if self.gossips() && self.known.next_choice <= now.mono {
            self.choose_contacts(now, out);
        }
        if self.gossips() {
            self.wake_by(Some(self.known.next_choice));
        }
    }

    /// Speaks with some of the members: the contents for those that get them with their beats. The
    /// others are asked on their connections, where nobody can tell who calls: what is new they ask for.
    pub(in crate::node) fn gossip_round(
        &mut self,
        now: Now,
        out: &mut Vec<Effect>,
    ) -> Vec<(Incarnation, Bytes)> {
        let mut contents = Vec::new();
        if !self.gossips() {
            return contents;
        }
        let watched = self.view.members().filter(|member| {
            member.features & features::GOSSIP != 0 && member.reach == Reach::Reachable
        });
        let watched: Vec<_> = watched.map(|member| member.info.incarnation).collect();
        for id in self.known.gossip.partners(&watched) {
            let Some(member) = self.view.member_mut(id) else { continue };
            if member.pulse.passes(now.mono, PASSES_MS) {
                contents.push((id, self.known.gossip.speak(id, now.mono, CONTENT_BYTES_MAX)));
            } else if !member.is_told {
                member.is_told = true;
                let to = (member.address, Some(id));
                let content = self.known.gossip.ask(id);
                let request = Request::Gossip(content);
                self.call(Call::Gossip { member: id }, to, request, GOSSIP_TIMEOUT_MS, out);
            }
        }
        contents
    }

    /// Takes in what another node said from where it stands, and answers it with at most `bytes_max`
    /// bytes.
    pub(in crate::node) fn hear_gossip(
        &mut self,
        now: Now,
        from: Incarnation,
        said: &Bytes,
        bytes_max: usize,
    ) -> Bytes {
        if !self.gossips() || said.is_empty() {
            return Bytes::new();
        }
        let (Heard { is_new, gone, refused }, answer) =
            self.known.gossip.hear(from, said, now.mono, bytes_max);
        self.refused.addresses += refused;
        if is_new {
            self.heard_of_new(now);
        }
        for id in gone {
            // Nobody's word takes a member out of the rotation, but it is asked.
            self.verify(now, Some(id));
        }
        answer
    }

    /// Answers what somebody asks in the name of a node, with at most `bytes_max` bytes. Who it is cannot be
    /// told, so that nothing is taken of what it says of others.
    pub(in crate::node) fn asked_by_gossip(
        &mut self,
        now: Now,
        from: Incarnation,
        said: &Bytes,
        bytes_max: usize,
    ) -> Bytes {
        if !self.gossips() || said.is_empty() {
            return Bytes::new();
        }
        let is_member = self.view.member(from).is_some();
        let asked = self.known.gossip.asked(from, is_member, said, now.mono, bytes_max);
        let Some((ignored, answer)) = asked else { return Bytes::new() };
        self.refused.gossip += u64::from(ignored);
        answer
    }

    pub(in crate::node) fn gossip_answered(
        &mut self,
        now: Now,
        id: Incarnation,
        result: CallResult,
    ) {
        if let Some(member) = self.view.member_mut(id) {
            member.is_told = false;
        }
        if let Ok(Response::Gossip(said)) = result {
            self.hear_gossip(now, id, &said, 0);
        }
    }

    /// Takes note of nodes that another one reaches.
    pub(super) fn told_of(&mut self, now: Now, teller: Incarnation, members: &[NodeInfo]) {
        let mut is_new = false;
        for info in members {
            is_new |= self.known.gossip.told(teller, info, now.mono);
        }
        if is_new {
            self.heard_of_new(now);
        }
    }

    /// A handshake showed that a node exists.
    pub(super) fn met(&mut self, now: Now, info: &NodeInfo) {
        if self.known.gossip.met(info, now.mono) {
            self.heard_of_new(now);
        }
    }

    /// Another node answered in the place of this one.
    pub(super) fn displaced(&mut self, now: Now, id: Incarnation, address: SocketAddr) {
        let displaced = &mut self.known.displaced;
        if displaced.len() >= DISPLACED_MAX {
            displaced.pop_front();
        }
        displaced.push_back((address, id, now.mono));
    }

    /// A node answers at an address. If another one answered there in its place a while ago, both live:
    /// an old life never comes back.
    pub(super) fn note_conflict(
        &mut self,
        now: Now,
        id: Incarnation,
        address: SocketAddr,
        out: &mut Vec<Effect>,
    ) {
        let displaced = &mut self.known.displaced;
        displaced.retain(|(.., at)| now.mono.since_ms(*at) < DISPLACED_MS);
        if displaced.iter().any(|(there, other, _)| (*there, *other) == (address, id)) {
            self.conflicts(now, id, address, out);
        }
    }

    /// Two nodes that are both alive claim an address, this one of them.
    pub(super) fn conflicts(
        &mut self,
        now: Now,
        id: Incarnation,
        address: SocketAddr,
        out: &mut Vec<Effect>,
    ) {
        let Acquaintances { conflicts, last_report, .. } = &mut self.known;
        *conflicts += 1;
        if last_report.is_none_or(|at| now.mono.since_ms(at) >= REPORT_EVERY_MS) {
            *last_report = Some(now.mono);
            out.push(Effect::Event(Event::AddressConflict { address, node: id }));
        }
    }

    fn heard_of_new(&mut self, now: Now) {
        self.known.last_new = now.mono;
        self.known.next_choice = now.mono;
        self.wake = now.mono;
    }

    /// Chooses contacts, has those dialled that are no members, and drops members that are none.
    fn choose_contacts(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.known.next_choice = now.mono.plus_ms(CHOOSE_EVERY_MS);
        let (gossip, view) = (&self.known.gossip, &self.view);
        let standing = |id| match view.member(id) {
            Some(member) if member.reach == Reach::Unreachable => Standing::Silent,
            Some(_) => Standing::Usable,
            None => {
                let mut addresses = gossip.addresses(id).iter();
                let failing = addresses.any(|address| view.candidates().is_failing(*address));
                if failing { Standing::Silent } else { Standing::Usable }
            }
        };
        let contacts = choose(&self.config.info, gossip.others(), standing);
        let strangers = contacts.iter().filter(|id| view.member(**id).is_none());
        let strangers = strangers.flat_map(|id| {
            let teller = AddressSource::Node(gossip.teller(*id).unwrap_or(*id));
            gossip.addresses(*id).iter().map(move |address| (*address, teller))
        });
        let strangers: Vec<_> = strangers.collect();
        for (address, teller) in strangers {
            self.view.propose(address, teller, now.mono);
        }
        self.wake_by(self.view.candidates().next_dial());
        self.known.contacts = contacts;
        if now.mono.since_ms(self.known.last_new) >= SETTLED_MS {
            self.drop_others(now, out);
        }
    }

    /// Ends the acquaintance with members that are no contacts; that they exist stays known.
    fn drop_others(&mut self, now: Now, out: &mut Vec<Effect>) {
        let contacts = &self.known.contacts;
        let others = self.view.members().filter(|member| {
            member.info.region != self.config.info.region
                && member.features & features::GOSSIP != 0
                && member.info.state != NodeState::Leaving
                && self.known.gossip.exists(member.info.incarnation)
                && !contacts.contains(&member.info.incarnation)
        });
        let others: Vec<_> = others.map(|member| member.info.incarnation).collect();
        for id in others {
            self.unwatch(now, id, out);
        }
    }
}
