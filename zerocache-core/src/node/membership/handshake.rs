//! Dialling and handshakes: which node is at an address, and whom it knows.

use alloc::{boxed::Box, collections::BTreeMap, string::String, vec::Vec};
use core::net::SocketAddr;

use super::{Membership, PING_TIMEOUT_MS};
use crate::{
    access::Denial,
    call::{CallFailure, CallResult},
    cluster::{AddressSource, DialRefusal, Member, Reachability},
    name::check_region,
    node::{
        Caller, ConnectionId, Effect, Event,
        local::{CallPurpose, Context, Local},
        quota::Quota,
    },
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{
        AbsentNode, Hello, MEMBERS_MAX, NodeInfo, RefusalCode, Request, Response, Session, features,
    },
};

/// The most introductions that are remembered.
const INTRODUCTIONS_MAX: usize = 1024;

/// For how long an introduction is remembered, in milliseconds: the node is dialled at once.
const INTRODUCTION_MS: u64 = 60_000;

/// The most members named in a handshake with a node that hears of the others by gossip.
const MEMBERS_FIRST: usize = 64;

/// Nodes that introduced themselves before they were reached.
#[derive(Debug)]
pub(super) struct Introductions {
    by: BTreeMap<Incarnation, (ConnectionId, Instant)>,
    quota: Quota,
}

impl Default for Introductions {
    fn default() -> Self {
        Self { by: BTreeMap::new(), quota: Quota::of(INTRODUCTIONS_MAX) }
    }
}

impl Introductions {
    /// Remembers a node, as far as the quota of the connection allows.
    fn note(&mut self, id: Incarnation, connection: ConnectionId, now: Instant) {
        if self.by.contains_key(&id) {
            return;
        }
        if !self.quota.has_room(connection, 1) {
            let old = self.by.iter().filter(|(_, (.., at))| now.since_ms(*at) >= INTRODUCTION_MS);
            let old: Vec<_> = old.map(|(id, _)| *id).collect();
            for id in old {
                self.take(id);
            }
        }
        if self.quota.has_room(connection, 1) {
            self.quota.charge(connection, 1);
            self.by.insert(id, (connection, now));
        }
    }

    /// Forgets a node; returns whether it had introduced itself.
    fn take(&mut self, id: Incarnation) -> bool {
        let introduction = self.by.remove(&id);
        if let Some((connection, _)) = introduction {
            self.quota.release(connection, 1);
        }
        introduction.is_some()
    }
}

impl Membership {
    pub(super) fn dial<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        for address in self.view.candidates_mut().take_due(cx.now.mono) {
            let purpose = CallPurpose::Hello { address };
            let hello = self.hello(cx.now, cx.local, cx.replica.store.entry_count(), 0);
            let request = Request::Hello(Box::new(hello));
            cx.local.call(purpose, (address, None), request, PING_TIMEOUT_MS, cx.out);
        }
    }

    /// This node's part of a handshake. A response names up to `members_max` of the members that it
    /// reaches.
    pub(in crate::node) fn hello(
        &self,
        now: Now,
        local: &Local,
        entries: u64,
        members_max: usize,
    ) -> Hello {
        let mut node = local.config.info.clone();
        node.state = local.readiness.state();
        let members = self.view.members().filter(|m| m.takes_writes());
        Hello {
            node: Some(node.clone()),
            features: local.config.features,
            entries,
            members: members.take(members_max).map(|m| m.info.clone()).collect(),
            absent: self.residents.absent(now.mono),
            ..Hello::of_client(&local.config.cluster, &node.region, now.wall_ms)
        }
    }

    /// Responds to a handshake. A caller can claim anything, in any name: only the addresses at which it
    /// may be dialled are taken from it. What the node is like, its own response tells.
    pub(in crate::node) fn hello_received<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        hello: Hello,
        (connection, caller): (ConnectionId, Caller),
    ) -> Response {
        if hello.cluster != cx.local.config.cluster {
            let text =
                alloc::format!("this is a node of the cluster {:?}", cx.local.config.cluster);
            return Response::refused(RefusalCode::WrongCluster, text);
        }
        let mut session = None;
        let both_gossip = Self::gossips(cx.local) && hello.features & features::GOSSIP != 0;
        let members_max = if both_gossip { MEMBERS_FIRST } else { MEMBERS_MAX };
        let own = cx.local.id();
        if let Some(node) = hello.node.filter(|node| node.incarnation != own) {
            if let Err(error) = check_region(&node.region) {
                return Response::refused(RefusalCode::BadHello, alloc::format!("{error}"));
            }
            self.note_claims(cx, &node);
            if self.is_proven(caller, node.incarnation) {
                // It uses the session, or continues with one that it has.
                let caller = (node.incarnation, hello.features);
                session = self.session_for(cx.local, caller, cx.now.mono);
            }
            self.introduced(cx, node, hello.features, connection);
        }
        let entries = cx.replica.store.entry_count();
        let own = self.hello(cx.now, cx.local, entries, members_max);
        Response::Hello(Box::new(Hello { session, ..own }))
    }

    /// Whether a caller is the node that it claims to be: it has proven that, or it calls from the host at
    /// which this node reached the other one.
    fn is_proven(&self, caller: Caller, id: Incarnation) -> bool {
        match caller.identity {
            Some(proven) => proven == id,
            None => caller.is_node && caller.ip.is_some_and(|ip| self.view.is_host_of(id, ip)),
        }
    }

    /// Notes that a node introduced itself: a member gets a handshake if it seems to have changed, and
    /// any other node is dialled.
    fn introduced<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        node: NodeInfo,
        features: u64,
        connection: ConnectionId,
    ) {
        let id = node.incarnation;
        match self.view.member_mut(id) {
            Some(member) => {
                member.has_introduced_itself = true;
                let claimed = NodeInfo { state: member.info.state, ..node.clone() };
                member.needs_handshake |= claimed != member.info || features != member.features;
                if member.reach == Reachability::Reachable || member.detector.is_responding() {
                    // The member exchanges calls with this node: a dial would tell nothing, and would
                    // introduce this node in turn. If it falls silent, it may have moved.
                    member.claimed_addresses = node.addresses;
                    return;
                }
            }
            None => self.introductions.note(id, connection, cx.now.mono),
        }
        for address in node.addresses {
            let source = connection.address_source();
            self.view.candidates_mut().retry_soon(address, source, cx.now.mono);
        }
        cx.local.wake_by(self.view.candidates().next_dial());
    }

    /// Handles the end of a handshake with a new address.
    pub(in crate::node) fn hello_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        address: SocketAddr,
        result: CallResult,
        elapsed_us: u64,
    ) {
        let candidates = self.view.candidates_mut();
        match result {
            Ok(Response::Hello(hello)) => {
                self.shake_hands(cx, address, *hello, elapsed_us);
            }
            Ok(Response::Refused(refusal)) => {
                if refusal.code == RefusalCode::WrongCluster {
                    candidates.set_aside(address, cx.now.mono);
                    let event = Event::OtherCluster { address, text: refusal.text };
                    cx.out.push(Effect::Event(event));
                } else if let Some(denial) = Denial::from_refusal_code(refusal.code) {
                    self.dial_refused(cx, address, DialRefusal::Denied(denial), refusal.text);
                } else {
                    candidates.failed(address, cx.now.mono);
                }
            }
            Err(CallFailure::Unverified) => {
                self.dial_refused(cx, address, DialRefusal::Unverified, String::new());
            }
            Err(CallFailure::OtherHost) => {
                let denial = DialRefusal::Denied(Denial::Protected);
                self.dial_refused(cx, address, denial, String::new());
            }
            Ok(_) | Err(_) => candidates.failed(address, cx.now.mono),
        }
        cx.local.wake_by(self.view.candidates().next_dial());
    }

    fn shake_hands<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        address: SocketAddr,
        hello: Hello,
        elapsed_us: u64,
    ) {
        let now = cx.now.mono;
        let Some(info) = hello.node else {
            return self.view.candidates_mut().failed(address, now);
        };
        if hello.cluster != cx.local.config.cluster {
            self.view.candidates_mut().set_aside(address, now);
            let text = alloc::format!("a node of the cluster {:?}", hello.cluster);
            return cx.out.push(Effect::Event(Event::OtherCluster { address, text }));
        }
        if info.incarnation == cx.local.id() {
            return self.view.candidates_mut().set_aside(address, now);
        }
        let id = info.incarnation;
        self.note_conflict(cx, id, address);
        if self.view.is_elsewhere(id, address) {
            return self.view.candidates_mut().set_aside(address, now);
        }
        self.note_claims(cx, &info);
        for old in self.view.displaced_by(id, address) {
            self.displaced(cx.now, old, address);
            self.forget(cx, old);
        }
        self.view.shook_hands(info.clone(), address, now);
        self.met(cx, &info);
        self.update_info(cx, info);
        self.note_abilities(id, hello.features, hello.entries);
        self.note_session(cx.local, id, hello.session);
        let has_introduced_itself = self.introductions.take(id);
        if let Some(member) = self.view.member_mut(id) {
            member.has_introduced_itself |= has_introduced_itself;
            member.latency.sample(elapsed_us);
        }
        let member = self.view.member_mut(id);
        cx.local.clocks.note_member(cx.now, member, hello.wall_ms, elapsed_us);
        self.learn_members(cx, id, hello.features, hello.members);
        self.learn_absent(cx, id, hello.absent);
        self.heard(cx, id);
    }

    /// Takes over what a member said in a handshake beyond who it is.
    fn note_abilities(&mut self, id: Incarnation, features: u64, entries: u64) {
        if let Some(member) = self.view.member_mut(id) {
            (member.features, member.entries) = (features, entries);
        }
    }

    /// Takes over the session for datagrams to a member. The numbers of its own start over: it is the node
    /// at that address, even if another sender used its name before. A member that gives none this time
    /// still knows an earlier one.
    fn note_session(&mut self, local: &Local, id: Incarnation, session: Option<Session>) {
        self.heartbeats.senders.reset(id);
        if let Some(member) = self.view.member_mut(id) {
            let both = local.shares_features(member.features, features::DATAGRAMS);
            let both_seal = local.shares_features(member.features, features::SEALED_DATAGRAMS);
            let fits = |session: &Session| both && session.generation.is_some() == both_seal;
            if let Some(session) = session.filter(fits) {
                member.detector.session = Some(session);
            }
        }
    }

    /// Notes nodes of this region that are gone for a moment: they own keys still.
    fn learn_absent<B: Backend>(
        &mut self,
        cx: &Context<'_, B>,
        id: Incarnation,
        absent: Vec<AbsentNode>,
    ) {
        let is_local = |member: &Member| member.info.region == cx.local.region();
        if self.view.member(id).is_some_and(is_local) {
            self.residents.learn(cx.now.mono, absent);
        }
    }

    /// Notes nodes that another node reaches, which has the features `others`.
    fn learn_members<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
        others: u64,
        members: Vec<NodeInfo>,
    ) {
        if Self::gossips(cx.local) {
            self.told_of(cx, id, &members);
            if others & features::GOSSIP != 0 {
                // Some of those that it reaches are contacts of this node: these are dialled.
                return;
            }
        }
        for info in members {
            let is_own = info.incarnation == cx.local.id();
            if is_own || self.view.member(info.incarnation).is_some() {
                continue;
            }
            for address in info.addresses {
                self.view.propose(address, AddressSource::Node(id), cx.now.mono);
            }
        }
        cx.local.wake_by(self.view.candidates().next_dial());
    }

    /// Repeats the handshake with a member, to learn of the members that it knows.
    pub(super) fn greet<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        member: Incarnation,
        address: SocketAddr,
    ) {
        if let Some(member) = self.view.member_mut(member) {
            member.last_handshake = cx.now.mono;
            member.handshakes += 1;
            member.needs_handshake = false;
        }
        let hello = self.hello(cx.now, cx.local, cx.replica.store.entry_count(), 0);
        let (purpose, to) = (CallPurpose::Greet { member }, (address, Some(member)));
        cx.local.call(purpose, to, Request::Hello(Box::new(hello)), PING_TIMEOUT_MS, cx.out);
    }

    pub(in crate::node) fn greet_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
        result: CallResult,
    ) {
        let Ok(Response::Hello(hello)) = result else { return };
        let hello = *hello;
        match hello.node {
            Some(info) if info.incarnation == id => {
                self.note_claims(cx, &info);
                self.heard(cx, id);
                self.update_info(cx, info);
                self.note_abilities(id, hello.features, hello.entries);
                self.note_session(cx.local, id, hello.session);
                self.learn_members(cx, id, hello.features, hello.members);
                self.learn_absent(cx, id, hello.absent);
            }
            _ => self.replaced(cx, id),
        }
    }
}
