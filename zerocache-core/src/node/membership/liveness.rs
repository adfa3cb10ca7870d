//! Which members respond: pings, silence, suspicion, and the return to the rotation.

use alloc::{string::String, vec::Vec};

use super::{MemberChange, Membership, PING_TIMEOUT_MS, wake};
use crate::{
    access::Denial,
    call::{CallFailure, CallResult},
    cluster::{AddressSource, DialRefusal, FORGET_MS, Member, Reachability},
    node::{
        Effect, Event,
        local::{CallPurpose, Context},
    },
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{NodeInfo, NodeState, RefusalCode, Request, Response, features},
};

/// How long a node that responds only that it is overloaded counts as alive, in milliseconds.
const OVERLOADED_MS_MAX: u64 = 10_000;

/// How long echoes keep a member in the rotation that responds to nothing on the connection, in
/// milliseconds. Where 30 % of packets are lost a connection stalls, is abandoned and dialled again, which
/// can take longer than ten seconds; a node that cannot be written to is of no use for much longer.
const ECHOES_MS_MAX: u64 = 30_000;

/// How long a ping may take if nothing else shows that the member is alive, in milliseconds: on a
/// connection that loses packets the response may be late, and means as much then.
const PING_ALONE_TIMEOUT_MS: u64 = 2_400;

/// How often an unreachable node is pinged while its datagrams pass, in milliseconds.
const PING_ECHOED_MS: u64 = 200;

/// The shortest time between two handshakes with one member, in milliseconds; doubled with each one that
/// changed nothing, up to [`HELLO_DOUBLINGS_MAX`] times.
const HELLO_EVERY_MS: u64 = 200;
const HELLO_DOUBLINGS_MAX: u32 = 6;

/// The shortest time between two pings that verify what others say of a member, in milliseconds.
const VERIFY_EVERY_MS: u64 = 25;

/// After a member came up, all are pinged this soon to compare whom they reach, in milliseconds.
const SPREAD_MS: u64 = 50;

impl Membership {
    pub(super) fn tick_liveness<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        let now = cx.now.mono;
        let (mut due, mut expired, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        for member in self.view.members_mut() {
            let id = member.info.incarnation;
            let silence_ms = now.since_ms(member.last_heard);
            if silence_ms >= FORGET_MS && !self.directory.gossip.exists(id) {
                expired.push(id);
                continue;
            }
            let is_reachable = member.reach == Reachability::Reachable;
            let pace = self.paces.for_member(member.info.region == cx.local.region());
            if is_reachable && silence_ms >= pace.silence_ms() {
                silent.push(id);
            }
            if member.next_ping <= now {
                let is_echoing = member.detector.is_echoing(now, pace.silence_ms());
                // Pings are all that shows whether it is alive.
                let alone = is_reachable && !is_echoing;
                let wait_ms = match is_echoing {
                    true => pace.ping_echoing_ms(),
                    false => pace.ping_alone_ms(is_reachable),
                };
                let timeout_ms = if alone { PING_ALONE_TIMEOUT_MS } else { PING_TIMEOUT_MS };
                member.next_ping = now.plus_ms(wait_ms);
                member.last_ping = now;
                due.push((id, member.address, timeout_ms));
            }
        }
        for id in silent {
            self.member_down(cx, id);
        }
        for id in expired {
            self.forget(cx, id);
        }
        for (member, address, timeout_ms) in due {
            let (purpose, to) = (CallPurpose::Ping { member }, (address, Some(member)));
            cx.local.call(purpose, to, Request::Ping, timeout_ms, cx.out);
        }
        let next = self.view.members().map(|member| {
            let pace = self.paces.for_member(member.info.region == cx.local.region());
            let silent = member.last_heard.plus_ms(pace.silence_ms());
            let is_reachable = member.reach == Reachability::Reachable;
            if is_reachable { member.next_ping.min(silent) } else { member.next_ping }
        });
        cx.local.wake_by(next.min());
        self.view.rank_regions(cx.local.region());
    }

    /// Takes over what a member says of itself.
    pub(super) fn update_info<B: Backend>(&mut self, cx: &mut Context<'_, B>, info: NodeInfo) {
        let (id, state) = (info.incarnation, info.state);
        if let Some(member) = self.view.member_mut(id) {
            let before = core::mem::replace(&mut member.info, info).state;
            member.info.state = before;
            self.update_member_state(cx, id, state);
        }
    }

    /// Notes the state of a member; a leaving one gets no more writes.
    fn update_member_state<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
        state: NodeState,
    ) {
        let Some(member) = self.view.member_mut(id) else { return };
        let before = core::mem::replace(&mut member.info.state, state);
        self.refresh(cx.local);
        if state != NodeState::Leaving {
            if before == NodeState::Leaving {
                self.member_returned(cx, id);
            }
            return;
        }
        // Nodes that start now need not hear of it: nobody may be left to say later that it is gone.
        self.directory.gossip.mark_gone(id, cx.now.mono);
        let Some(member) = self.view.member(id) else { return };
        if before != NodeState::Leaving {
            cx.out.push(Effect::Event(Event::MemberLeaving(member.info.clone())));
            self.note_change(MemberChange::Leaving(id));
        }
    }

    /// Notes that a member serves again that was leaving: it was drained.
    fn member_returned<B: Backend>(&mut self, cx: &mut Context<'_, B>, id: Incarnation) {
        let Some(member) = self.view.member(id) else { return };
        let (info, address) = (member.info.clone(), member.address);
        let is_reachable = member.reach == Reachability::Reachable;
        // Its own renewal of its row may arrive later.
        self.met(cx, &info);
        if is_reachable {
            cx.out.push(Effect::Event(Event::MemberUp(info, address)));
            self.note_change(MemberChange::Up(id));
            self.ask_around(cx);
            self.view.rank_regions(cx.local.region());
        }
    }

    /// Notes that a member responded on the connection.
    pub(in crate::node) fn heard<B: Backend>(&mut self, cx: &mut Context<'_, B>, id: Incarnation) {
        let Some(member) = self.view.member_mut(id) else { return };
        member.last_heard = cx.now.mono;
        member.last_response = cx.now.mono;
        member.suspect = false;
        member.has_exited = false;
        member.refusal = None;
        self.directory.gossip.reached(id, cx.now.mono);
        let Some(member) = self.view.member_mut(id) else { return };
        if member.reach == Reachability::Unreachable {
            member.detector.responded(cx.now.mono);
            self.try_return(cx, id);
        }
    }

    /// Notes that a heartbeat sent to a member at `sent` was echoed. For a while that is enough to stay.
    pub(super) fn echoed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
        sent: Instant,
    ) {
        let Some(member) = self.view.member_mut(id) else { return };
        if member.reach == Reachability::Unreachable {
            // Its datagrams pass again: the connection is not far behind.
            let soon = member.last_ping.plus_ms(PING_ECHOED_MS);
            member.next_ping = member.next_ping.min(soon.max(cx.now.mono));
            cx.local.wake_by(Some(soon));
            self.try_return(cx, id);
        } else if cx.now.mono.since_ms(member.last_response) < ECHOES_MS_MAX {
            member.last_heard = member.last_heard.max(sent);
        }
    }

    /// Takes an unreachable member back into the rotation, if it shows enough signs of life.
    fn try_return<B: Backend>(&mut self, cx: &mut Context<'_, B>, id: Incarnation) {
        let Some(member) = self.view.member_mut(id) else { return };
        if member.reach == Reachability::Reachable || !member.detector.may_return(cx.now.mono) {
            return;
        }
        member.detector.returned();
        member.reach = Reachability::Reachable;
        member.since = cx.now.mono;
        member.last_heard = cx.now.mono;
        let event = Event::MemberUp(member.info.clone(), member.address);
        cx.out.push(Effect::Event(event));
        self.refresh(cx.local);
        self.note_change(MemberChange::Up(id));
        cx.local.clocks.check_soon(cx.now);
        self.ask_around(cx);
        self.view.rank_regions(cx.local.region());
    }

    /// Notes that a node at a member's address is overloaded. For a while that is a sign of life; later it
    /// may as well be a gateway that responds for a dead node.
    pub(in crate::node) fn overloaded(&mut self, now: Now, id: Incarnation) {
        if let Some(member) = self.view.member_mut(id)
            && now.mono.since_ms(member.last_response) < OVERLOADED_MS_MAX
        {
            member.last_heard = now.mono;
        }
    }

    /// Pings members soon that have not introduced themselves or do not gossip: their responses tell
    /// whether they reach the same nodes.
    fn ask_around<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        let soon = cx.now.mono.plus_ms(SPREAD_MS);
        let gossips = Self::gossips(cx.local);
        let asked = self.view.members_mut().filter(|member| {
            let hears = gossips && member.features & features::GOSSIP != 0;
            member.reach == Reachability::Reachable && !(hears && member.has_introduced_itself)
        });
        for member in asked {
            member.next_ping = member.next_ping.min(soon);
            member.handshakes = 0;
        }
        cx.local.wake_by(Some(soon));
    }

    pub(in crate::node) fn ping_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
        result: CallResult,
        elapsed_us: u64,
    ) {
        match result {
            Ok(Response::Pong { incarnation, state, view, wall_ms }) if incarnation == id => {
                self.heard(cx, id);
                cx.local.clocks.note_member(cx.now, self.view.member_mut(id), wall_ms, elapsed_us);
                self.pong_received(cx, id, (state, view), elapsed_us);
            }
            Ok(Response::Pong { .. }) => self.replaced(cx, id),
            Ok(Response::Refused(refusal)) => match refusal.code {
                RefusalCode::WrongNode | RefusalCode::WrongCluster => self.replaced(cx, id),
                RefusalCode::Overloaded => self.overloaded(cx.now, id),
                code => match Denial::from_refusal_code(code) {
                    Some(denial) => {
                        self.member_refused(cx, id, DialRefusal::Denied(denial), refusal.text);
                    }
                    None => self.suspect(cx, id),
                },
            },
            Err(CallFailure::Refused) => self.ping_refused(cx, id),
            Err(CallFailure::Unverified) => {
                self.member_refused(cx, id, DialRefusal::Unverified, String::new());
            }
            Err(CallFailure::OtherHost) => {
                self.member_refused(cx, id, DialRefusal::Denied(Denial::Protected), String::new());
            }
            Ok(_) | Err(CallFailure::NotSent | CallFailure::NoAnswer) => self.suspect(cx, id),
        }
    }

    fn pong_received<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
        (state, view): (NodeState, u64),
        elapsed_us: u64,
    ) {
        let gossips = Self::gossips(cx.local);
        let own_view = self.view.fingerprint(cx.local.id());
        let Some(member) = self.view.member_mut(id) else { return };
        member.latency.sample(elapsed_us);
        let doublings = member.handshakes.min(HELLO_DOUBLINGS_MAX);
        let wait_ms = HELLO_EVERY_MS << doublings;
        let is_due = cx.now.mono.since_ms(member.last_handshake) >= wait_ms;
        let hears = gossips && member.features & features::GOSSIP != 0;
        let both_send = cx.local.shares_features(member.features, features::DATAGRAMS);
        let lacks_key = both_send && member.detector.session.is_none();
        let differs = (view != own_view && !hears)
            || !member.has_introduced_itself
            || member.needs_handshake
            || lacks_key
            || (both_send && member.detector.is_unanswered(cx.now.mono, member.last_handshake));
        if lacks_key && !is_due {
            // It gives its key once it has reached this node, which takes it a moment.
            member.next_ping = member.next_ping.min(member.last_handshake.plus_ms(wait_ms));
        }
        let address = member.address;
        self.update_member_state(cx, id, state);
        if state != NodeState::Leaving && is_due && differs {
            self.greet(cx, id, address);
        }
    }

    /// Removes a member at whose address another node, or none of this cluster, responds.
    pub(super) fn replaced<B: Backend>(&mut self, cx: &mut Context<'_, B>, id: Incarnation) {
        if let Some(member) = self.view.member(id) {
            let address = member.address;
            self.displaced(cx.now, id, address);
            self.forget(cx, id);
            let source = AddressSource::Node(id);
            self.view.candidates_mut().retry_soon(address, source, cx.now.mono);
            wake(cx);
        }
    }

    /// Handles a refused connection to a member. One that was leaving has left; any other may be about to
    /// listen again, and is out once it has been silent for too long.
    fn ping_refused<B: Backend>(&mut self, cx: &mut Context<'_, B>, id: Incarnation) {
        match self.view.member_mut(id) {
            Some(member) if member.info.state == NodeState::Leaving => self.forget(cx, id),
            Some(member) if member.suspect && member.reach == Reachability::Reachable => {
                // Refused twice in a row: the process is gone, whatever it sent last.
                member.has_exited = true;
                self.member_down(cx, id);
            }
            _ => self.suspect(cx, id),
        }
    }

    /// Notes that a call to a member failed.
    pub(in crate::node) fn suspect<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
    ) {
        let Some(member) = self.view.member_mut(id) else { return };
        member.suspect = true;
        member.detector.call_failed();
        if member.reach == Reachability::Unreachable {
            self.dial_claimed(cx, id);
        }
    }

    /// Dials the addresses that callers claimed in the name of a member while it responded.
    fn dial_claimed<B: Backend>(&mut self, cx: &mut Context<'_, B>, id: Incarnation) {
        let Some(member) = self.view.member_mut(id) else { return };
        let claimed = core::mem::take(&mut member.claimed_addresses);
        if claimed.is_empty() {
            return;
        }
        let known = member.info.addresses.clone();
        for other in claimed.into_iter().filter(|other| !known.contains(other)) {
            let source = AddressSource::ANONYMOUS;
            self.view.candidates_mut().retry_soon(other, source, cx.now.mono);
        }
        cx.local.wake_by(self.view.candidates().next_dial());
    }

    fn member_down<B: Backend>(&mut self, cx: &mut Context<'_, B>, id: Incarnation) {
        let Some(member) = self.view.member_mut(id) else { return };
        if member.info.state == NodeState::Leaving {
            return self.forget(cx, id);
        }
        let now = cx.now.mono;
        member.detector.went_down(now, member.since);
        member.reach = Reachability::Unreachable;
        member.since = now;
        let (info, address) = (member.info.clone(), member.address);
        self.dial_claimed(cx, id);
        for other in info.addresses.iter().filter(|other| **other != address) {
            self.view.propose(*other, AddressSource::Node(id), now);
        }
        cx.out.push(Effect::Event(Event::MemberDown(info, address)));
        self.refresh(cx.local);
        self.note_change(MemberChange::Down(id));
    }

    /// Forgets a node that is gone, or that no node has reached for long.
    pub(super) fn forget<B: Backend>(&mut self, cx: &mut Context<'_, B>, id: Incarnation) {
        let is_at_its_address = |m: &Member| m.info.addresses.contains(&m.address);
        if self.view.member(id).is_some_and(is_at_its_address) {
            self.directory.gossip.mark_gone(id, cx.now.mono);
        }
        if let Some(info) = self.remove(cx, id) {
            cx.out.push(Effect::Event(Event::MemberForgotten(info)));
        }
    }

    /// Removes a member; that it exists may still be known.
    pub(super) fn remove<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Incarnation,
    ) -> Option<NodeInfo> {
        let removed = self.view.remove(id).map(|member| member.info);
        self.refresh(cx.local);
        self.directory.gossip.unpinned(id);
        self.note_change(MemberChange::Removed(id));
        removed
    }

    /// Pings a member soon, to verify what another node says of it.
    pub(in crate::node) fn verify<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: Option<Incarnation>,
    ) {
        if let Some(member) = id.and_then(|id| self.view.member_mut(id)) {
            let at = member.last_ping.plus_ms(VERIFY_EVERY_MS).max(cx.now.mono);
            member.next_ping = member.next_ping.min(at);
            cx.local.wake_by(Some(at));
        }
    }

    /// Excuses the members for a silence that was this process's own.
    pub(in crate::node) fn excuse_silence(&mut self, gap_ms: u64) {
        for member in self.view.members_mut() {
            member.last_heard = member.last_heard.plus_ms(gap_ms);
            member.last_response = member.last_response.plus_ms(gap_ms);
        }
    }
}
