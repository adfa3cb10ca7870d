//! Who is there: pings, silence, leaving.

mod addresses;
mod contacts;
mod handshake;

pub(super) use contacts::Acquaintances;
pub(super) use handshake::Greeters;

use alloc::vec::Vec;

use super::{Call, Effect, Event, Node};
use crate::{
    call::{CallFailure, CallResult},
    cluster::{AddressSource, FORGET_MS, Member, Reach},
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{NodeInfo, NodeState, RefusalCode, Request, Response, features},
};

/// How long a handshake or ping may take, in milliseconds.
const PING_TIMEOUT_MS: u64 = 1_000;

/// For how long a node that only says that it is overloaded counts as alive, in milliseconds.
const OVERLOADED_MS_MAX: u64 = 10_000;

/// For how long echoes keep a member in the rotation that answers nothing on the connection, in
/// milliseconds. Where 30 % is lost a connection stands still, is given up and dialled again, which
/// can take longer than ten seconds; a node that cannot be written to is of no use for much longer.
const ECHOES_MS_MAX: u64 = 30_000;

/// How long a ping may take of a member that has no other way to show that it lives, in milliseconds:
/// on a connection that loses packets an answer may come late, and says as much then.
const PING_ALONE_TIMEOUT_MS: u64 = 2_400;

/// How often a local peer is asked whether it lives, in milliseconds.
const PING_LOCAL_MS: u64 = 500;

/// How often a node of another region is asked, in milliseconds.
const PING_REMOTE_MS: u64 = 1_000;

/// How often a node that is out is asked when its datagrams pass, in milliseconds.
const PING_ECHOED_MS: u64 = 200;

/// After this much silence a member is out of this node's rotation, in milliseconds.
///
/// Contract section 4: within 3 s of the fault; pauses up to 1 s cause nothing.
const SILENCE_MS_MAX: u64 = 2_500;

/// The least time between two whole handshakes with one member, in milliseconds; doubled with each
/// one that changed nothing, up to [`HELLO_DOUBLINGS_MAX`] times.
const HELLO_EVERY_MS: u64 = 200;
const HELLO_DOUBLINGS_MAX: u32 = 6;

/// A member is asked at once what somebody else says of it, but not more often than this, in milliseconds.
const VERIFY_EVERY_MS: u64 = 25;

/// After a member came up, all are asked this soon whether they know the same ones, in milliseconds.
const SPREAD_MS: u64 = 50;

impl<B: Backend> Node<B> {
    pub(super) fn tick_membership(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.dial(now, out);
        self.tick_heartbeats(now, out);
        self.tick_gossip(now, out);
        let mut due = Vec::new();
        let mut gone = Vec::new();
        let mut silent = Vec::new();
        for member in self.view.members_mut() {
            let id = member.info.incarnation;
            let silence_ms = now.mono.since_ms(member.heard);
            if silence_ms >= FORGET_MS && !self.known.gossip.exists(id) {
                gone.push(id);
                continue;
            }
            if member.reach == Reach::Reachable && silence_ms >= SILENCE_MS_MAX {
                silent.push(id);
            }
            if member.next_ping <= now.mono {
                let local = member.info.region == self.config.info.region;
                // Pings are all that shows whether it lives.
                let alone = member.reach == Reach::Reachable
                    && !member.pulse.passes(now.mono, SILENCE_MS_MAX);
                let wait_ms = if local || alone { PING_LOCAL_MS } else { PING_REMOTE_MS };
                let timeout_ms = if alone { PING_ALONE_TIMEOUT_MS } else { PING_TIMEOUT_MS };
                member.next_ping = now.mono.plus_ms(wait_ms);
                member.last_ping = now.mono;
                due.push((id, member.address, timeout_ms));
            }
        }
        for id in silent {
            self.member_down(now, id, out);
        }
        for id in gone {
            self.forget(now, id, out);
        }
        for (member, address, timeout_ms) in due {
            let to = (address, Some(member));
            self.call(Call::Ping { member }, to, Request::Ping, timeout_ms, out);
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
        self.view.writable_changed(&self.config.info.region);
        let Some(member) = self.view.member_mut(id) else { return };
        if state == NodeState::Leaving && before != NodeState::Leaving {
            out.push(Effect::Event(Event::MemberLeaving(member.info.clone())));
            self.close_outbox(now, id, out);
        }
    }

    /// A member answered on the connection.
    pub(super) fn heard(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        let Some(member) = self.view.member_mut(id) else {
            return;
        };
        member.heard = now.mono;
        member.answered = now.mono;
        member.suspect = false;
        member.has_ended = false;
        self.known.gossip.reached(id, now.mono);
        let Some(member) = self.view.member_mut(id) else { return };
        if member.reach == Reach::Unreachable {
            member.pulse.answered(now.mono);
            self.try_return(now, id, out);
        }
    }

    /// A beat that was sent to a member at `sent` was echoed. For a while that is enough to stay.
    pub(super) fn echoed(
        &mut self,
        now: Now,
        id: Incarnation,
        sent: Instant,
        out: &mut Vec<Effect>,
    ) {
        let Some(member) = self.view.member_mut(id) else { return };
        if member.reach == Reach::Unreachable {
            // Its datagrams pass again: the connection is not far behind.
            let soon = member.last_ping.plus_ms(PING_ECHOED_MS);
            member.next_ping = member.next_ping.min(soon.max(now.mono));
            self.wake_by(Some(soon));
            self.try_return(now, id, out);
        } else if now.mono.since_ms(member.answered) < ECHOES_MS_MAX {
            member.heard = member.heard.max(sent);
        }
    }

    /// Takes a member that is out back into the rotation, if it shows enough of life.
    fn try_return(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        let Some(member) = self.view.member_mut(id) else { return };
        if member.reach == Reach::Reachable || !member.pulse.may_return(now.mono) {
            return;
        }
        member.pulse.returned();
        member.reach = Reach::Reachable;
        member.since = now.mono;
        member.heard = now.mono;
        let event = Event::MemberUp(member.info.clone(), member.address);
        out.push(Effect::Event(event));
        self.outboxes.entry(id).or_default();
        self.view.writable_changed(&self.config.info.region);
        self.partner_up(now, id);
        self.check_clock_soon(now);
        self.ask_around(now);
        self.ranking.update(&self.view.region_latencies(&self.config.info.region));
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

    /// Asks members soon that have not introduced themselves or do not gossip: the answers of these tell
    /// whether they reach the same nodes.
    fn ask_around(&mut self, now: Now) {
        let soon = now.mono.plus_ms(SPREAD_MS);
        let gossips = self.gossips();
        let asked = self.view.members_mut().filter(|member| {
            let hears = gossips && member.features & features::GOSSIP != 0;
            member.reach == Reach::Reachable && !(hears && member.greeted)
        });
        for member in asked {
            member.next_ping = member.next_ping.min(soon);
            member.greetings = 0;
        }
        self.wake_by(Some(soon));
    }

    pub(super) fn ping_answered(
        &mut self,
        now: Now,
        id: Incarnation,
        result: CallResult,
        elapsed_us: u64,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(Response::Pong { incarnation, state, view, wall_ms }) if incarnation == id => {
                self.heard(now, id, out);
                self.note_clock(now, id, wall_ms, elapsed_us);
                self.ping_ponged(now, id, state, view, elapsed_us, out);
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

    fn ping_ponged(
        &mut self,
        now: Now,
        id: Incarnation,
        state: NodeState,
        view: u64,
        elapsed_us: u64,
        out: &mut Vec<Effect>,
    ) {
        let gossips = self.gossips();
        let own_view = self.view.fingerprint(self.config.info.incarnation);
        let Some(member) = self.view.member_mut(id) else {
            return;
        };
        member.latency.sample(elapsed_us);
        let doublings = member.greetings.min(HELLO_DOUBLINGS_MAX);
        let due = now.mono.since_ms(member.last_hello) >= HELLO_EVERY_MS << doublings;
        let told = gossips && member.features & features::GOSSIP != 0;
        let differs = (view != own_view && !told) || !member.greeted || member.is_doubted;
        let address = member.address;
        self.update_member_state(now, id, state, out);
        if state != NodeState::Leaving && due && differs {
            self.greet(now, id, address, out);
        }
    }

    /// Another node, or none of this cluster, answers at the address of a member: it is gone.
    fn replaced(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        if let Some(member) = self.view.member(id) {
            let address = member.address;
            self.displaced(now, id, address);
            self.forget(now, id, out);
            self.view.candidates_mut().retry_soon(address, AddressSource::Node(id), now.mono);
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
                if let Some(member) = self.view.member_mut(id) {
                    member.has_ended = true;
                }
                self.member_down(now, id, out);
            }
            _ => self.suspect(id),
        }
    }

    pub(super) fn suspect(&mut self, id: Incarnation) {
        if let Some(member) = self.view.member_mut(id) {
            member.suspect = true;
            member.pulse.failed();
        }
    }

    fn member_down(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        let Some(member) = self.view.member_mut(id) else {
            return;
        };
        if member.info.state == NodeState::Leaving {
            return self.forget(now, id, out);
        }
        member.pulse.went_down(now.mono, member.since);
        member.reach = Reach::Unreachable;
        member.since = now.mono;
        let (info, address) = (member.info.clone(), member.address);
        let claimed = core::mem::take(&mut member.claimed);
        for other in claimed.into_iter().filter(|other| !info.addresses.contains(other)) {
            self.view.candidates_mut().retry_soon(other, AddressSource::ANONYMOUS, now.mono);
        }
        for other in info.addresses.iter().filter(|other| **other != address) {
            self.view.propose(*other, AddressSource::Node(id), now.mono);
        }
        out.push(Effect::Event(Event::MemberDown(info, address)));
        self.view.writable_changed(&self.config.info.region);
        self.partner_gone(now, id);
        self.close_outbox(now, id, out);
    }

    /// Forgets a node that is gone, or that nobody has reached for long.
    fn forget(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        let claims = |m: &Member| m.info.addresses.contains(&m.address);
        if self.view.member(id).is_some_and(claims) {
            self.known.gossip.is_gone(id, now.mono);
        }
        if let Some(info) = self.unwatch(now, id, out) {
            out.push(Effect::Event(Event::MemberForgotten(info)));
        }
    }

    /// Ends the acquaintance with a member.
    fn unwatch(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) -> Option<NodeInfo> {
        if let Some(member) = self.view.member_mut(id) {
            // Nothing is sent to it any more, what waits for it least of all.
            member.reach = Reach::Unreachable;
        }
        self.view.writable_changed(&self.config.info.region);
        self.close_outbox(now, id, out);
        self.partner_gone(now, id);
        self.known.gossip.parted(id);
        self.view.remove(id).map(|member| member.info)
    }

    /// A goodbye is verified before it is believed: the next ping says whether it is true.
    pub(super) fn verify(&mut self, now: Now, id: Option<Incarnation>) {
        if let Some(member) = id.and_then(|id| self.view.member_mut(id)) {
            let at = member.last_ping.plus_ms(VERIFY_EVERY_MS).max(now.mono);
            member.next_ping = member.next_ping.min(at);
            self.wake_by(Some(at));
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

    /// Whether the node is in sync by now. Returns the moment, by the clock as it is then.
    pub(super) fn update_state(&mut self, now: Now, out: &mut Vec<Effect>) -> Now {
        let starts = !self.repair.start.is_done();
        if self.state == NodeState::Leaving || (self.state == NodeState::InSync && !starts) {
            return now;
        }
        let now = self.set_clock_early(now, out);
        let ready_at: Instant = self.warm_since.plus_ms(self.config.warm_max_ms);
        // A node that is ready because it took too long goes on with its start.
        let (now, has_come_up) = self.come_up(now, out);
        let is_up = has_come_up || now.mono >= ready_at;
        if is_up && self.state == NodeState::Warming {
            self.set_state(NodeState::InSync, out);
        }
        self.judge_misses(now);
        now
    }

    pub(super) fn set_state(&mut self, state: NodeState, out: &mut Vec<Effect>) {
        self.state = state;
        self.resumes &= state == NodeState::Warming;
        self.misses_are_authoritative &= state == NodeState::InSync;
        out.push(Effect::State(state));
    }
}
