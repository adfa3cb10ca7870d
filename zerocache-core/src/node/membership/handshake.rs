//! Dialling and handshakes: who stands at an address, and whom it knows.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};
use core::net::SocketAddr;

use super::{
    super::{Call, ConnectionId, Effect, Event, Node, shares::Shares},
    PING_TIMEOUT_MS,
};
use crate::{
    call::CallResult,
    cluster::{AddressSource, Reach},
    name::check_region,
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{
        Hello, MEMBERS_MAX, NodeInfo, PROTOCOL, RefusalCode, Request, Response, SessionKey,
        features,
    },
};

/// Most nodes remembered that introduced themselves before they were reached.
const GREETERS_MAX: usize = 1024;

/// For so long a node that introduced itself is remembered, in milliseconds: it is dialled at once.
const GREETER_MS: u64 = 60_000;

/// Most members that are told in a handshake to a node that hears of the others by gossip.
const MEMBERS_FIRST: usize = 64;

/// Nodes that introduced themselves before they were reached.
#[derive(Debug)]
pub(in crate::node) struct Greeters {
    by: BTreeMap<Incarnation, (ConnectionId, Instant)>,
    shares: Shares,
}

impl Default for Greeters {
    fn default() -> Self {
        Self { by: BTreeMap::new(), shares: Shares::of(GREETERS_MAX) }
    }
}

impl Greeters {
    /// Remembers one, as long as whoever introduces many leaves room.
    fn note(&mut self, id: Incarnation, connection: ConnectionId, now: Instant) {
        if self.by.contains_key(&id) {
            return;
        }
        if !self.shares.has_room(connection, 1) {
            let old = self.by.iter().filter(|(_, (.., at))| now.since_ms(*at) >= GREETER_MS);
            let old: Vec<_> = old.map(|(id, _)| *id).collect();
            for id in old {
                self.take(id);
            }
        }
        if self.shares.has_room(connection, 1) {
            self.shares.take(connection, 1);
            self.by.insert(id, (connection, now));
        }
    }

    /// Whether a node introduced itself; it is no longer remembered here.
    fn take(&mut self, id: Incarnation) -> bool {
        let greeter = self.by.remove(&id);
        if let Some((connection, _)) = greeter {
            self.shares.give_back(connection, 1);
        }
        greeter.is_some()
    }
}

impl<B: Backend> Node<B> {
    pub(super) fn dial(&mut self, now: Now, out: &mut Vec<Effect>) {
        for address in self.view.candidates_mut().take_due(now.mono) {
            let hello = Request::Hello(Box::new(self.hello(now, 0)));
            self.call(Call::Hello { address }, (address, None), hello, PING_TIMEOUT_MS, out);
        }
    }

    /// This node's part of a handshake; of the members that it reaches some go into a response.
    pub(in crate::node) fn hello(&self, now: Now, members_max: usize) -> Hello {
        let mut node = self.config.info.clone();
        node.state = self.state;
        let members = self.view.members().filter(|m| m.takes_writes());
        Hello {
            cluster: self.config.cluster.clone(),
            protocol: PROTOCOL,
            features: self.config.features,
            entries: self.store.entry_count(),
            session: None,
            auth: bytes::Bytes::new(),
            wall_ms: now.wall_ms,
            region: node.region.clone(),
            node: Some(node),
            members: members.take(members_max).map(|m| m.info.clone()).collect(),
        }
    }

    /// Somebody introduced itself. Whoever calls can say whatever it likes, in anybody's name: nothing is
    /// taken of it but where it may be dialled. What a node is like its own answer tells.
    pub(in crate::node) fn greeted(
        &mut self,
        now: Now,
        hello: Hello,
        connection: ConnectionId,
        out: &mut Vec<Effect>,
    ) -> Response {
        if hello.cluster != self.config.cluster {
            let text = alloc::format!("this is a node of the cluster {:?}", self.config.cluster);
            return Response::refused(RefusalCode::WrongCluster, text);
        }
        let mut session = None;
        let both_gossip = self.gossips() && hello.features & features::GOSSIP != 0;
        let members_max = if both_gossip { MEMBERS_FIRST } else { MEMBERS_MAX };
        if let Some(node) =
            hello.node.filter(|node| node.incarnation != self.config.info.incarnation)
        {
            if let Err(error) = check_region(&node.region) {
                return Response::refused(RefusalCode::BadHello, alloc::format!("{error}"));
            }
            self.note_claims(now, &node, out);
            session = self.session_for(node.incarnation);
            self.called_by(now, node, hello.features, connection);
        }
        Response::Hello(Box::new(Hello { session, ..self.hello(now, members_max) }))
    }

    /// A node says that it is there: one that is reached is asked if it seems to have changed, and any
    /// other one dialled.
    fn called_by(&mut self, now: Now, node: NodeInfo, features: u64, connection: ConnectionId) {
        let id = node.incarnation;
        match self.view.member_mut(id) {
            Some(member) => {
                member.greeted = true;
                let told = NodeInfo { state: member.info.state, ..node.clone() };
                member.is_doubted |= told != member.info || features != member.features;
                if member.reach == Reach::Reachable {
                    // If it falls silent, it may have moved.
                    member.claimed = node.addresses;
                    return;
                }
            }
            None => self.greeters.note(id, connection, now.mono),
        }
        for address in node.addresses {
            self.view.candidates_mut().retry_soon(address, connection.teller(), now.mono);
        }
        self.wake_by(self.view.candidates().next_dial());
    }

    /// A handshake with a new address ended.
    pub(in crate::node) fn hello_answered(
        &mut self,
        now: Now,
        address: SocketAddr,
        result: CallResult,
        elapsed_us: u64,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(Response::Hello(hello)) => self.shake_hands(now, address, *hello, elapsed_us, out),
            Ok(Response::Refused(refusal)) => {
                if refusal.code == RefusalCode::WrongCluster {
                    self.view.candidates_mut().set_aside(address, now.mono);
                    out.push(Effect::Event(Event::OtherCluster { address, text: refusal.text }));
                } else {
                    self.view.candidates_mut().failed(address, now.mono);
                }
            }
            Ok(_) | Err(_) => self.view.candidates_mut().failed(address, now.mono),
        }
        self.wake_by(self.view.candidates().next_dial());
    }

    fn shake_hands(
        &mut self,
        now: Now,
        address: SocketAddr,
        hello: Hello,
        elapsed_us: u64,
        out: &mut Vec<Effect>,
    ) {
        let Some(info) = hello.node else {
            return self.view.candidates_mut().failed(address, now.mono);
        };
        if hello.cluster != self.config.cluster {
            self.view.candidates_mut().set_aside(address, now.mono);
            let text = alloc::format!("a node of the cluster {:?}", hello.cluster);
            return out.push(Effect::Event(Event::OtherCluster { address, text }));
        }
        if info.incarnation == self.config.info.incarnation {
            return self.view.candidates_mut().set_aside(address, now.mono);
        }
        let id = info.incarnation;
        self.note_conflict(now, id, address, out);
        self.note_claims(now, &info, out);
        for old in self.view.yielding(id, address) {
            self.displaced(now, old, address);
            self.forget(now, old, out);
        }
        self.view.shook_hands(info.clone(), address, now.mono);
        self.met(now, &info);
        self.update_info(now, info, out);
        self.note_abilities(id, hello.features, hello.entries);
        self.note_session(id, hello.session);
        let has_called = self.greeters.take(id);
        if let Some(member) = self.view.member_mut(id) {
            member.greeted |= has_called;
            member.latency.sample(elapsed_us);
        }
        self.note_clock(now, id, hello.wall_ms, elapsed_us);
        self.learn(now, id, hello.features, hello.members);
        self.heard(now, id, out);
    }

    /// Takes over what a member said in a handshake beyond who it is.
    fn note_abilities(&mut self, id: Incarnation, features: u64, entries: u64) {
        if let Some(member) = self.view.member_mut(id) {
            (member.features, member.entries) = (features, entries);
        }
    }

    /// Takes over the key for datagrams to a member. Its own are numbered anew: it is the one who stands
    /// there, whoever sent numbers in its name before.
    fn note_session(&mut self, id: Incarnation, session: Option<SessionKey>) {
        self.heartbeats.begin_anew(id);
        if let Some(member) = self.view.member_mut(id) {
            let both = member.features & self.config.features & features::DATAGRAMS != 0;
            member.pulse.key = session.filter(|_| both);
        }
    }

    /// Takes note of nodes that another node reaches, which has these features.
    fn learn(&mut self, now: Now, id: Incarnation, features: u64, members: Vec<NodeInfo>) {
        if self.gossips() {
            self.told_of(now, id, &members);
            if features & features::GOSSIP != 0 {
                // Of those it reaches, some are contacts of this node: these are dialled.
                return;
            }
        }
        for info in members {
            let own = info.incarnation == self.config.info.incarnation;
            if own || self.view.member(info.incarnation).is_some() {
                continue;
            }
            for address in info.addresses {
                self.view.propose(address, AddressSource::Node(id), now.mono);
            }
        }
        self.wake_by(self.view.candidates().next_dial());
    }

    /// Does the whole handshake with a member again, to learn of the members that it knows.
    pub(super) fn greet(
        &mut self,
        now: Now,
        member: Incarnation,
        address: SocketAddr,
        out: &mut Vec<Effect>,
    ) {
        if let Some(member) = self.view.member_mut(member) {
            member.last_hello = now.mono;
            member.greetings += 1;
            member.is_doubted = false;
        }
        let hello = Request::Hello(Box::new(self.hello(now, 0)));
        let to = (address, Some(member));
        self.call(Call::Greet { member }, to, hello, PING_TIMEOUT_MS, out);
    }

    pub(in crate::node) fn greet_answered(
        &mut self,
        now: Now,
        id: Incarnation,
        result: CallResult,
        out: &mut Vec<Effect>,
    ) {
        let Ok(Response::Hello(hello)) = result else {
            return;
        };
        let hello = *hello;
        match hello.node {
            Some(info) if info.incarnation == id => {
                self.note_claims(now, &info, out);
                self.heard(now, id, out);
                self.update_info(now, info, out);
                self.note_abilities(id, hello.features, hello.entries);
                self.note_session(id, hello.session);
                self.learn(now, id, hello.features, hello.members);
            }
            _ => self.replaced(now, id, out),
        }
    }
}
