//! Which nodes exist, and with which of them this node talks.
//!
//! Gossip only says which node may be at which address. A node becomes a member by a handshake, and only
//! if it is a contact; of the others it is known that they exist.

use alloc::{collections::VecDeque, vec::Vec};
use core::net::SocketAddr;

use bytes::Bytes;

use super::{Membership, wake};
use crate::{
    call::CallResult,
    cluster::{AddressSource, ContactState, Gossip, GossipChanges, Reachability, choose_contacts},
    node::{
        Effect, Event,
        local::{CallPurpose, Context},
    },
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{CONTENT_BYTES_MAX, NodeInfo, NodeState, Request, Response, features},
};

/// How often contacts are chosen although gossip brought nothing, in milliseconds.
const CHOOSE_EVERY_MS: u64 = 1_000;

/// For this long after gossip named a new node no contact is dropped, in milliseconds.
const STABLE_MS: u64 = 5_000;

/// How long a gossip message on the connection may take, in milliseconds.
const GOSSIP_TIMEOUT_MS: u64 = 1_000;

/// Datagrams carry the gossip of a member that echoed one within this time, in milliseconds.
const ECHOING_MS: u64 = 1_000;

/// The most displaced nodes that are remembered, and for how long, in milliseconds.
const DISPLACED_MAX: usize = 64;
const DISPLACED_MS: u64 = 60_000;

/// The most addresses whose last claimant is remembered: those of about a hundred nodes.
const CLAIMS_MAX: usize = 256;

/// The shortest time between two reports of an address conflict, in milliseconds.
const REPORT_EVERY_MS: u64 = 5_000;

/// The nodes that exist, and those that are contacts.
#[derive(Debug)]
pub(super) struct MemberDirectory {
    pub(super) gossip: Gossip,
    contacts: Vec<Incarnation>,
    next_choice: Instant,
    /// When gossip last named a new node.
    last_new: Instant,
    /// Nodes at whose address another one responded, the latest last.
    displaced: VecDeque<(SocketAddr, Incarnation, Instant)>,
    /// The last claimant of each address, the latest address last.
    claims: VecDeque<(SocketAddr, Incarnation)>,
    pub(super) conflicts: u64,
    last_report: Option<Instant>,
}

impl MemberDirectory {
    pub(super) fn new(own: NodeInfo, now: Instant) -> Self {
        Self {
            gossip: Gossip::new(own, now),
            contacts: Vec::new(),
            next_choice: now,
            last_new: now,
            displaced: VecDeque::new(),
            claims: VecDeque::new(),
            conflicts: 0,
            last_report: None,
        }
    }

    /// Notes that a node claims an address; returns the node that claimed it last, if it was another.
    pub(super) fn claim(&mut self, id: Incarnation, address: SocketAddr) -> Option<Incarnation> {
        if let Some((_, last)) = self.claims.iter_mut().find(|(claimed, _)| *claimed == address) {
            let before = core::mem::replace(last, id);
            return (before != id).then_some(before);
        }
        if self.claims.len() >= CLAIMS_MAX {
            self.claims.pop_front();
        }
        self.claims.push_back((address, id));
        None
    }

    /// Whether the node at an address is no contact, and need not be dialled.
    fn is_no_contact(&self, own: &NodeInfo, address: SocketAddr) -> bool {
        let there = self.gossip.others().find(|info| info.addresses.contains(&address));
        there.is_some_and(|info| {
            info.region != own.region && !self.contacts.contains(&info.incarnation)
        })
    }
}

impl Membership {
    /// Takes addresses that discovery found. Known nodes that are no contacts are not dialled each time a
    /// name resolves.
    pub(in crate::node) fn discovered<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        addresses: Vec<SocketAddr>,
        are_configured: bool,
    ) {
        for address in addresses {
            if !self.directory.is_no_contact(&cx.local.config.info, address) {
                self.view.propose(address, AddressSource::Discovery, cx.now.mono);
                if are_configured {
                    self.view.candidates_mut().note_configured(address);
                }
            }
        }
        wake(cx);
    }

    pub(super) fn tick_gossip<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        for id in self.directory.gossip.tick(cx.now.mono) {
            self.forget(cx, id);
        }
        if Self::gossips(cx.local) {
            if self.directory.next_choice <= cx.now.mono {
                self.choose_contacts(cx);
            }
            cx.local.wake_by(Some(self.directory.next_choice));
        }
    }

    /// Gossips with some of the members. Returns the contents for those that get them with their
    /// heartbeats. The others are asked on their connections, where the caller cannot be verified: they
    /// get no news, and are asked for theirs.
    pub(super) fn gossip_round<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
    ) -> Vec<(Incarnation, Bytes)> {
        let mut contents = Vec::new();
        if !Self::gossips(cx.local) {
            return contents;
        }
        let gossiping = self.view.reachable().filter(|m| m.features & features::GOSSIP != 0);
        let gossiping: Vec<_> = gossiping.map(|member| member.info.incarnation).collect();
        for id in self.directory.gossip.partners(&gossiping) {
            let Some(member) = self.view.member_mut(id) else { continue };
            if member.detector.is_echoing(cx.now.mono, ECHOING_MS) {
                let gossip = &mut self.directory.gossip;
                contents.push((id, gossip.speak(id, cx.now.mono, CONTENT_BYTES_MAX)));
            } else if !member.gossip_in_flight {
                member.gossip_in_flight = true;
                let (purpose, to) =
                    (CallPurpose::Gossip { member: id }, (member.address, Some(id)));
                let request = Request::Gossip(self.directory.gossip.ask(id));
                cx.local.call(purpose, to, request, GOSSIP_TIMEOUT_MS, cx.out);
            }
        }
        contents
    }

    /// Handles gossip in the name of a node, and answers it with at most `bytes_max` bytes.
    ///
    /// Rows are taken only if the sender `is_verified`, by the address it sends from. Of anybody else the
    /// question alone is answered.
    pub(in crate::node) fn receive_gossip<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        (from, is_verified): (Incarnation, bool),
        content: &Bytes,
        bytes_max: usize,
    ) -> Bytes {
        if !Self::gossips(cx.local) || content.is_empty() {
            return Bytes::new();
        }
        let gossip = &mut self.directory.gossip;
        if !is_verified {
            let is_member = self.view.member(from).is_some();
            let answer = gossip.answer((from, is_member), content, cx.now.mono, bytes_max);
            let Some((is_ignored, answer)) = answer else { return Bytes::new() };
            cx.local.refused.gossip += u64::from(is_ignored);
            return answer;
        }
        let (changes, answer) = gossip.hear(from, content, cx.now.mono, bytes_max);
        let GossipChanges { is_new, gone, refused } = changes;
        cx.local.refused.addresses += refused;
        if is_new {
            self.heard_of_new(cx);
        }
        for id in gone {
            // Gossip takes no member out of the rotation, but the member is pinged.
            self.verify(cx, Some(id));
        }
        answer
    }

    pub(in crate::node) fn gossip_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
        result: CallResult,
    ) {
        if let Some(member) = self.view.member_mut(id) {
            member.gossip_in_flight = false;
        }
        if let Ok(Response::Gossip(content)) = result {
            self.receive_gossip(cx, (id, true), &content, 0);
        }
    }

    /// Notes nodes that another one reaches.
    pub(super) fn told_of<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        source: Incarnation,
        members: &[NodeInfo],
    ) {
        let mut is_new = false;
        for info in members {
            is_new |= self.directory.gossip.named(source, info, cx.now.mono);
        }
        if is_new {
            self.heard_of_new(cx);
        }
    }

    /// Notes that a handshake showed that a node exists.
    pub(super) fn met<B: Backend>(&mut self, cx: &mut Context<'_, B>, info: &NodeInfo) {
        if self.directory.gossip.met(info, cx.now.mono) {
            self.heard_of_new(cx);
        }
    }

    /// Notes that another node responded at the address of this one.
    pub(super) fn displaced(&mut self, now: Now, id: Incarnation, address: SocketAddr) {
        let displaced = &mut self.directory.displaced;
        if displaced.len() >= DISPLACED_MAX {
            displaced.pop_front();
        }
        displaced.push_back((address, id, now.mono));
    }

    /// Notes that a node responds at an address. If another one responded there a while ago, both are
    /// alive: a process that ended never comes back.
    pub(super) fn note_conflict<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
        address: SocketAddr,
    ) {
        let displaced = &mut self.directory.displaced;
        displaced.retain(|(.., at)| cx.now.mono.since_ms(*at) < DISPLACED_MS);
        if displaced.iter().any(|(at, other, _)| (*at, *other) == (address, id)) {
            self.report_conflict(cx, id, address);
        }
    }

    /// Counts and reports that two live nodes claim an address, `id` being one of them.
    pub(super) fn report_conflict<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
        address: SocketAddr,
    ) {
        let MemberDirectory { conflicts, last_report, .. } = &mut self.directory;
        *conflicts += 1;
        if last_report.is_none_or(|at| cx.now.mono.since_ms(at) >= REPORT_EVERY_MS) {
            *last_report = Some(cx.now.mono);
            cx.out.push(Effect::Event(Event::AddressConflict { address, node: id }));
        }
    }

    fn heard_of_new<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        self.directory.last_new = cx.now.mono;
        self.directory.next_choice = cx.now.mono;
        wake(cx);
    }

    /// Chooses contacts, has those dialled that are no members, and removes members that are no contacts.
    fn choose_contacts<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        let now = cx.now.mono;
        self.directory.next_choice = now.plus_ms(CHOOSE_EVERY_MS);
        let (gossip, view) = (&self.directory.gossip, &self.view);
        let state = |id| match view.member(id) {
            Some(member) if member.features & features::GOSSIP == 0 => ContactState::Early,
            Some(member) if member.reach == Reachability::Unreachable => ContactState::Silent,
            Some(_) => ContactState::Usable,
            None => {
                let mut addresses = gossip.addresses(id).iter();
                let is_failing = addresses.any(|at| view.candidates().is_failing(*at));
                if is_failing { ContactState::Silent } else { ContactState::Usable }
            }
        };
        let contacts = choose_contacts(&cx.local.config.info, gossip.others(), state);
        let strangers = contacts.iter().filter(|id| view.member(**id).is_none());
        let strangers = strangers.flat_map(|id| {
            let source = AddressSource::Node(gossip.source(*id).unwrap_or(*id));
            gossip.addresses(*id).iter().map(move |address| (*address, source))
        });
        let strangers: Vec<_> = strangers.collect();
        for (address, source) in strangers {
            self.view.propose(address, source, now);
        }
        cx.local.wake_by(self.view.candidates().next_dial());
        self.directory.contacts = contacts;
        if now.since_ms(self.directory.last_new) >= STABLE_MS {
            self.remove_others(cx);
        }
    }

    /// Removes members that are no contacts; that they exist stays known.
    fn remove_others<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        let contacts = &self.directory.contacts;
        let others = self.view.members().filter(|member| {
            member.info.region != cx.local.config.info.region
                && member.features & features::GOSSIP != 0
                && member.info.state != NodeState::Leaving
                && self.directory.gossip.exists(member.info.incarnation)
                && !contacts.contains(&member.info.incarnation)
        });
        let others: Vec<_> = others.map(|member| member.info.incarnation).collect();
        for id in others {
            self.remove(cx, id);
        }
    }
}
