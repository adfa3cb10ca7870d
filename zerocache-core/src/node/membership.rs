//! Who is there: dialling, handshakes, pings, silence, leaving.

use alloc::{boxed::Box, vec::Vec};
use core::net::SocketAddr;

use super::{Call, CallFailure, Effect, Event, Node};
use crate::{
    cluster::Reach,
    name::check_region,
    store::LockFamily,
    time::{Instant, Now},
    version::Incarnation,
    wire::{Hello, MEMBERS_MAX, NodeInfo, NodeState, PROTOCOL, RefusalCode, Request, Response},
};

/// How long a handshake or ping may take, in milliseconds.
const PING_TIMEOUT_MS: u64 = 1_000;

/// For how long a node that only says that it is overloaded counts as alive, in milliseconds.
const OVERLOADED_MS_MAX: u64 = 10_000;

/// How often a local peer is asked whether it lives, in milliseconds.
const PING_LOCAL_MS: u64 = 500;

/// How often a node of another region, or one that does not answer, is asked, in milliseconds.
const PING_REMOTE_MS: u64 = 1_000;

/// After this much silence a member is out of this node's rotation, in milliseconds.
///
/// Contract section 4: within 3 s of the fault; pauses up to 1 s cause nothing.
const SILENCE_MS_MAX: u64 = 2_500;

/// After this long without an answer a member is forgotten, in milliseconds.
const FORGET_MS: u64 = 600_000;

/// The least time between two whole handshakes with one member, in milliseconds; doubled with each
/// one that changed nothing, up to [`HELLO_DOUBLINGS_MAX`] times.
const HELLO_EVERY_MS: u64 = 200;
const HELLO_DOUBLINGS_MAX: u32 = 6;

/// After a member came up, all are asked this soon whether they know the same ones, in milliseconds.
const SPREAD_MS: u64 = 50;

/// Most nodes remembered that introduced themselves before they were reached.
const GREETERS_MAX: usize = 1024;

impl<L: LockFamily> Node<L> {
    pub(super) fn tick_membership(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.dial(now, out);
        let mut due = Vec::new();
        let mut gone = Vec::new();
        let mut silent = Vec::new();
        for member in self.view.members_mut() {
            let id = member.info.incarnation;
            let silence_ms = now.mono.since_ms(member.heard);
            if silence_ms > FORGET_MS {
                gone.push(id);
                continue;
            }
            if member.reach == Reach::Reachable && silence_ms >= SILENCE_MS_MAX {
                silent.push(id);
            }
            if member.next_ping <= now.mono {
                let local = member.info.region == self.config.info.region;
                let often = local && member.reach == Reach::Reachable;
                let wait_ms = if often { PING_LOCAL_MS } else { PING_REMOTE_MS };
                member.next_ping = now.mono.plus_ms(wait_ms);
                due.push((id, member.address));
            }
        }
        for id in silent {
            self.member_down(now, id, out);
        }
        for id in gone {
            self.forget(now, id, out);
        }
        for (member, address) in due {
            let to = (address, Some(member));
            self.call(Call::Ping { member }, to, Request::Ping, PING_TIMEOUT_MS, out);
        }
        self.report_missed(now, out);
        let next = self.view.members().map(|member| {
            let silent = member.heard.plus_ms(SILENCE_MS_MAX);
            let reachable = member.reach == Reach::Reachable;
            if reachable { member.next_ping.min(silent) } else { member.next_ping }
        });
        let next = next.min();
        self.wake_by(next);
        self.ranking.update(&self.view.region_latencies(&self.config.info.region));
    }

    fn dial(&mut self, now: Now, out: &mut Vec<Effect>) {
        for address in self.view.candidates_mut().take_due(now.mono) {
            let hello = Request::Hello(Box::new(self.hello(now, false)));
            self.call(Call::Hello { address }, (address, None), hello, PING_TIMEOUT_MS, out);
        }
    }

    /// This node's part of a handshake; the members that it reaches go into a response.
    pub(super) fn hello(&self, now: Now, with_members: bool) -> Hello {
        let mut node = self.config.info.clone();
        node.state = self.state;
        let members = self.view.members().filter(|m| with_members && m.takes_writes());
        Hello {
            cluster: self.config.cluster.clone(),
            protocol: PROTOCOL,
            features: self.config.features,
            entries: self.store.count(),
            auth: bytes::Bytes::new(),
            wall_ms: now.wall_ms,
            region: node.region.clone(),
            node: Some(node),
            members: members.take(MEMBERS_MAX).map(|m| m.info.clone()).collect(),
        }
    }

    /// Somebody introduced itself.
    pub(super) fn greeted(&mut self, now: Now, hello: Hello, out: &mut Vec<Effect>) -> Response {
        if hello.cluster != self.config.cluster {
            let text = alloc::format!("this is a node of the cluster {:?}", self.config.cluster);
            return Response::refused(RefusalCode::WrongCluster, text);
        }
        if let Some(node) =
            hello.node.filter(|node| node.incarnation != self.config.info.incarnation)
        {
            if let Err(error) = check_region(&node.region) {
                return Response::refused(RefusalCode::BadHello, alloc::format!("{error}"));
            }
            self.note_greeter(node.incarnation);
            self.note_abilities(node.incarnation, hello.features, hello.entries);
            let known = self.view.member(node.incarnation);
            if known.is_some_and(|member| member.reach == Reach::Reachable) {
                self.update_info(now, node, out);
            } else {
                for address in node.addresses {
                    self.view.candidates_mut().propose_again(address, now.mono);
                }
                self.wake_by(self.view.candidates().next_dial());
            }
        }
        Response::Hello(Box::new(self.hello(now, true)))
    }

    fn note_greeter(&mut self, id: Incarnation) {
        if let Some(member) = self.view.member_mut(id) {
            member.greeted = true;
        } else if !self.greeters.contains(&id) {
            if self.greeters.len() >= GREETERS_MAX {
                self.greeters.remove(0);
            }
            self.greeters.push(id);
        }
    }

    /// A handshake with a new address ended.
    pub(super) fn hello_answered(
        &mut self,
        now: Now,
        address: SocketAddr,
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(Response::Hello(hello)) => self.shake_hands(now, address, *hello, elapsed_us, out),
            Ok(Response::Refused(refusal)) => {
                if refusal.code == RefusalCode::WrongCluster {
                    self.view.candidates_mut().rest(address, now.mono);
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
            self.view.candidates_mut().rest(address, now.mono);
            let text = alloc::format!("a node of the cluster {:?}", hello.cluster);
            return out.push(Effect::Event(Event::OtherCluster { address, text }));
        }
        if info.incarnation == self.config.info.incarnation {
            return self.view.candidates_mut().rest(address, now.mono);
        }
        let id = info.incarnation;
        for old in self.view.yielding(id, address) {
            self.forget(now, old, out);
        }
        self.view.shook_hands(info.clone(), address, now.mono);
        self.update_info(now, info, out);
        self.note_abilities(id, hello.features, hello.entries);
        if let Some(at) = self.greeters.iter().position(|greeter| *greeter == id) {
            self.greeters.swap_remove(at);
            self.note_greeter(id);
        }
        if let Some(member) = self.view.member_mut(id) {
            member.latency.sample(elapsed_us);
        }
        self.note_clock(now, id, hello.wall_ms, elapsed_us);
        self.learn(now, hello.members);
        self.heard(now, id, out);
    }

    /// Takes over what a member said in a handshake beyond who it is.
    fn note_abilities(&mut self, id: Incarnation, features: u64, entries: u64) {
        if let Some(member) = self.view.member_mut(id) {
            (member.features, member.entries) = (features, entries);
        }
    }

    /// Takes over what a member says of itself.
    fn update_info(&mut self, now: Now, info: NodeInfo, out: &mut Vec<Effect>) {
        let (id, state) = (info.incarnation, info.state);
        if let Some(member) = self.view.member_mut(id) {
            let before = core::mem::replace(&mut member.info, info).state;
            member.info.state = before;
            self.update_member_state(now, id, state, out);
        }
    }

    /// A member is in this state now; one that leaves gets no more writes.
    fn update_member_state(
        &mut self,
        now: Now,
        id: Incarnation,
        state: NodeState,
        out: &mut Vec<Effect>,
    ) {
        let Some(member) = self.view.member_mut(id) else { return };
        let before = core::mem::replace(&mut member.info.state, state);
        if state == NodeState::Leaving && before != NodeState::Leaving {
            out.push(Effect::Event(Event::MemberLeaving(member.info.clone())));
            self.close_outbox(now, id, out);
        }
    }

    /// Takes note of nodes that another node reaches.
    fn learn(&mut self, now: Now, members: Vec<NodeInfo>) {
        for info in members {
            let own = info.incarnation == self.config.info.incarnation;
            if own || self.view.member(info.incarnation).is_some() {
                continue;
            }
            for address in info.addresses {
                self.view.propose(address, now.mono);
            }
        }
        self.wake_by(self.view.candidates().next_dial());
    }

    /// A member gave a sign of life.
    pub(super) fn heard(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        let Some(member) = self.view.member_mut(id) else {
            return;
        };
        member.heard = now.mono;
        member.answered = now.mono;
        member.suspect = false;
        if member.reach == Reach::Unreachable {
            member.reach = Reach::Reachable;
            member.since = now.mono;
            let event = Event::MemberUp(member.info.clone(), member.address);
            out.push(Effect::Event(event));
            self.outboxes.entry(id).or_default();
            self.partner_up(now, id);
            self.ask_around(now);
            self.ranking.update(&self.view.region_latencies(&self.config.info.region));
        }
    }

    /// Somebody at a member's address has too much to do. For a while that is a sign of life; then it
    /// may as well be a gateway that speaks for a dead node.
    pub(super) fn overloaded(&mut self, now: Now, id: Incarnation) {
        if let Some(member) = self.view.member_mut(id)
            && now.mono.since_ms(member.answered) < OVERLOADED_MS_MAX
        {
            member.heard = now.mono;
        }
    }

    /// Asks all members soon: their answers tell whether they reach the same nodes.
    fn ask_around(&mut self, now: Now) {
        let soon = now.mono.plus_ms(SPREAD_MS);
        for member in self.view.members_mut().filter(|m| m.reach == Reach::Reachable) {
            member.next_ping = member.next_ping.min(soon);
            member.greetings = 0;
        }
        self.wake_by(Some(soon));
    }

    pub(super) fn ping_answered(
        &mut self,
        now: Now,
        id: Incarnation,
        result: Result<Response, CallFailure>,
        elapsed_us: u64,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(Response::Pong { incarnation, state, view, wall_ms }) if incarnation == id => {
                self.heard(now, id, out);
                self.note_clock(now, id, wall_ms, elapsed_us);
                self.pong(now, id, state, view, elapsed_us, out);
            }
            Ok(Response::Pong { .. }) => self.replaced(now, id, out),
            Ok(Response::Refused(refusal)) => match refusal.code {
                RefusalCode::WrongNode | RefusalCode::WrongCluster => self.replaced(now, id, out),
                RefusalCode::Overloaded => self.overloaded(now, id),
                _ => self.suspect(id),
            },
            Err(CallFailure::Refused) => self.ping_refused(now, id, out),
            Ok(_) | Err(CallFailure::NotSent | CallFailure::NoAnswer) => self.suspect(id),
        }
    }

    fn pong(
        &mut self,
        now: Now,
        id: Incarnation,
        state: NodeState,
        view: u64,
        elapsed_us: u64,
        out: &mut Vec<Effect>,
    ) {
        let own_view = self.view.fingerprint(self.config.info.incarnation);
        let Some(member) = self.view.member_mut(id) else {
            return;
        };
        member.latency.sample(elapsed_us);
        let doublings = member.greetings.min(HELLO_DOUBLINGS_MAX);
        let due = now.mono.since_ms(member.last_hello) >= HELLO_EVERY_MS << doublings;
        let differs = view != own_view || !member.greeted;
        let address = member.address;
        self.update_member_state(now, id, state, out);
        if state != NodeState::Leaving && due && differs {
            self.greet(now, id, address, out);
        }
    }

    /// Does the whole handshake with a member again, to learn of the members that it knows.
    fn greet(&mut self, now: Now, member: Incarnation, address: SocketAddr, out: &mut Vec<Effect>) {
        if let Some(member) = self.view.member_mut(member) {
            member.last_hello = now.mono;
            member.greetings += 1;
        }
        let hello = Request::Hello(Box::new(self.hello(now, false)));
        let to = (address, Some(member));
        self.call(Call::Greet { member }, to, hello, PING_TIMEOUT_MS, out);
    }

    pub(super) fn greet_answered(
        &mut self,
        now: Now,
        id: Incarnation,
        result: Result<Response, CallFailure>,
        out: &mut Vec<Effect>,
    ) {
        let Ok(Response::Hello(hello)) = result else {
            return;
        };
        let hello = *hello;
        match hello.node {
            Some(info) if info.incarnation == id => {
                self.heard(now, id, out);
                self.update_info(now, info, out);
                self.note_abilities(id, hello.features, hello.entries);
                self.learn(now, hello.members);
            }
            _ => self.replaced(now, id, out),
        }
    }

    /// Another node, or none of this cluster, answers at the address of a member: it is gone.
    fn replaced(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        if let Some(member) = self.view.member(id) {
            let address = member.address;
            self.forget(now, id, out);
            self.view.candidates_mut().propose_again(address, now.mono);
            self.wake = now.mono;
        }
    }

    /// Nobody listens at a member's address: one that said it leaves has left; any other may be
    /// about to listen again, and is out once it has been silent for too long.
    fn ping_refused(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        match self.view.member(id) {
            Some(member) if member.info.state == NodeState::Leaving => self.forget(now, id, out),
            Some(member) if member.suspect && member.reach == Reach::Reachable => {
                // Refused twice in a row: the process is gone, whatever its last words were.
                self.member_down(now, id, out);
            }
            _ => self.suspect(id),
        }
    }

    pub(super) fn suspect(&mut self, id: Incarnation) {
        if let Some(member) = self.view.member_mut(id) {
            member.suspect = true;
        }
    }

    fn member_down(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        let Some(member) = self.view.member_mut(id) else {
            return;
        };
        if member.info.state == NodeState::Leaving {
            return self.forget(now, id, out);
        }
        member.reach = Reach::Unreachable;
        member.since = now.mono;
        let (info, address) = (member.info.clone(), member.address);
        for other in info.addresses.iter().filter(|other| **other != address) {
            self.view.propose(*other, now.mono);
        }
        out.push(Effect::Event(Event::MemberDown(info, address)));
        self.partner_gone(id);
        self.close_outbox(now, id, out);
    }

    fn forget(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        if let Some(member) = self.view.member_mut(id) {
            // Nothing is sent to it any more, what waits for it least of all.
            member.reach = Reach::Unreachable;
        }
        self.close_outbox(now, id, out);
        self.partner_gone(id);
        if let Some(member) = self.view.remove(id) {
            out.push(Effect::Event(Event::MemberForgotten(member.info)));
        }
    }

    /// A goodbye is verified before it is believed: the next ping says whether it is true.
    pub(super) fn verify(&mut self, now: Now, id: Option<Incarnation>) {
        if let Some(member) = id.and_then(|id| self.view.member_mut(id)) {
            member.next_ping = now.mono;
            self.wake = now.mono;
        }
    }

    pub(super) fn leave(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.state == NodeState::Leaving {
            return;
        }
        self.set_state(NodeState::Leaving, out);
        let reachable = self.view.members().filter(|member| member.reach == Reach::Reachable);
        let all: Vec<_> = reachable.map(|m| (m.address, Some(m.info.incarnation))).collect();
        for to in all {
            self.call(Call::Goodbye, to, Request::Goodbye, PING_TIMEOUT_MS / 2, out);
        }
        self.wake = now.mono;
    }

    /// Whether the node is in sync by now.
    pub(super) fn update_state(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.state != NodeState::Warming {
            return;
        }
        let ready_at: Instant = self.warm_since.plus_ms(self.config.warm_max_ms);
        if self.come_up(now, out) || now.mono >= ready_at {
            self.set_state(NodeState::InSync, out);
            self.judge_misses(now);
        }
    }

    pub(super) fn set_state(&mut self, state: NodeState, out: &mut Vec<Effect>) {
        self.state = state;
        self.misses_are_final &= state == NodeState::InSync;
        out.push(Effect::State(state));
    }
}
