//! Heartbeats: small datagrams to the members that this node monitors, and the echoes to theirs.
//!
//! Only an echo is a sign of life: it shows that both directions carry. A link that carries one direction
//! is down at both of its ends. An echo of an old heartbeat shows only that the member was alive then.

use core::net::SocketAddr;

use bytes::Bytes;

use super::{
    Membership,
    pace::HEARTBEAT_EVERY_MS,
    senders::{Rejection, Senders},
};
use crate::{
    node::{
        Effect,
        local::{Context, Local},
    },
    store::Backend,
    time::Instant,
    version::Incarnation,
    wire::{CONTENT_BYTES_MAX, Datagram, DatagramKind, Session, features},
};

/// What became of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounts {
    /// Heartbeats sent.
    pub heartbeats_sent: u64,
    /// Heartbeats of others that were echoed.
    pub heartbeats_answered: u64,
    /// Echoes that were taken as signs of life.
    pub heartbeats_acknowledged: u64,
    /// Dropped: of no known form.
    pub malformed: u64,
    /// Dropped: addressed to another node, or from an unknown one.
    pub misdirected: u64,
    /// Dropped: not authentic.
    pub unauthenticated: u64,
    /// Dropped: received before, too old, or numbered far beyond those before.
    pub replayed: u64,
}

impl DatagramCounts {
    fn reject(&mut self, rejection: Rejection) {
        match rejection {
            Rejection::Misdirected => self.misdirected += 1,
            Rejection::Unauthenticated => self.unauthenticated += 1,
            Rejection::Replayed => self.replayed += 1,
        }
    }
}

/// The state of heartbeats in both directions, beside the failure detector of each member.
#[derive(Debug)]
pub(super) struct Heartbeats {
    next: Instant,
    /// How often some members got heartbeats. The numbers of a member's heartbeats begin with this one, so that
    /// one that is removed and returns gets no number twice.
    ticks: u64,
    pub(super) senders: Senders,
    counts: DatagramCounts,
}

impl Heartbeats {
    pub(super) fn new(secret: [u8; 32], now: Instant) -> Self {
        let (senders, counts) = (Senders::new(secret, now), DatagramCounts::default());
        Self { next: now, ticks: 0, senders, counts }
    }

    pub(super) fn counts(&self) -> DatagramCounts {
        self.counts
    }
}

impl Membership {
    /// Begins a session for the datagrams of a caller with these features to this node, if it takes any.
    pub(super) fn session_for(
        &mut self,
        local: &Local,
        (caller, features): (Incarnation, u64),
        now: Instant,
    ) -> Option<Session> {
        let is_offered = local.config.features & features::DATAGRAMS != 0;
        let is_sealed = local.shares_features(features, features::SEALED_DATAGRAMS);
        is_offered.then(|| self.heartbeats.senders.begin(caller, is_sealed, now))?
    }

    /// Sends the heartbeats that are due: to the members whose turn it is, and to those that get gossip.
    pub(super) fn tick_heartbeats<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        let now = cx.now.mono;
        if self.heartbeats.next <= now {
            self.heartbeats.next = now.plus_ms(HEARTBEAT_EVERY_MS);
            self.heartbeats.ticks += 1;
            let mut contents = self.gossip_round(cx);
            let (from, ticks) = (cx.local.id(), self.heartbeats.ticks);
            let (mut locals, mut remotes) = (0, 0);
            for member in self.view.members_mut() {
                let is_local = member.info.region == cx.local.region();
                let place = if is_local { &mut locals } else { &mut remotes };
                let has_turn = self.paces.for_member(is_local).has_turn(*place, ticks);
                *place += 1;
                let Some(session) = member.detector.session else { continue };
                let to = member.info.incarnation;
                let content = contents.iter_mut().find(|(id, _)| *id == to);
                let content = content.map(|(_, content)| core::mem::take(content));
                if !has_turn && content.is_none() {
                    continue;
                }
                let heartbeat = Datagram {
                    from,
                    to,
                    kind: DatagramKind::Heartbeat,
                    generation: session.generation,
                    sequence: member.detector.next_heartbeat(ticks),
                    time_ms: now.as_millis(),
                    content: content.unwrap_or_default(),
                };
                self.heartbeats.counts.heartbeats_sent += 1;
                let bytes = heartbeat.seal(&session.key);
                cx.out.push(Effect::Datagram { to: member.address, bytes });
            }
        }
        if self.view.members().next().is_some() {
            cx.local.wake_by(Some(self.heartbeats.next));
        }
    }

    /// Handles a datagram.
    pub(in crate::node) fn datagram_received<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        from: SocketAddr,
        bytes: &Bytes,
    ) {
        // An IPv6 socket shows IPv4 addresses in a form of its own.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let counts = &mut self.heartbeats.counts;
        let Some(datagram) = Datagram::parse(bytes) else {
            counts.malformed += 1;
            return;
        };
        if datagram.to != cx.local.id() {
            counts.misdirected += 1;
            return;
        }
        match datagram.kind {
            DatagramKind::Heartbeat => self.heartbeat_received(cx, from, bytes, datagram),
            DatagramKind::Echo => self.echo_received(cx, from, bytes, datagram),
        }
    }

    /// Echoes the heartbeat of another node, once. Gossip is taken only from the node's own address, and
    /// elsewhere the echo is no longer than the heartbeat.
    fn heartbeat_received<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        from: SocketAddr,
        bytes: &Bytes,
        heartbeat: Datagram,
    ) {
        let is_verified = self.view.is_address_of(heartbeat.from, from);
        let Heartbeats { senders, counts, .. } = &mut self.heartbeats;
        let source = (from, is_verified);
        let (heartbeat, key) = match senders.accept(source, bytes, heartbeat, cx.now.mono) {
            Ok(accepted) => accepted,
            Err(rejection) => return counts.reject(rejection),
        };
        counts.heartbeats_answered += 1;
        if let Some(member) = self.view.member_mut(heartbeat.from) {
            member.detector.heartbeats.answered += 1;
        }
        let content = &heartbeat.content;
        let bytes_max = if is_verified { CONTENT_BYTES_MAX } else { content.len() };
        let content = self.receive_gossip(cx, (heartbeat.from, is_verified), content, bytes_max);
        let (to, kind) = (heartbeat.from, DatagramKind::Echo);
        let echo = Datagram { from: heartbeat.to, to, kind, content, ..heartbeat };
        cx.out.push(Effect::Datagram { to: from, bytes: echo.seal(&key) });
    }

    /// Takes an echo as a sign of life at the time at which its heartbeat was sent.
    fn echo_received<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        from: SocketAddr,
        bytes: &Bytes,
        echo: Datagram,
    ) {
        let now = cx.now.mono;
        let is_local = |region: &str| region == cx.local.region();
        let counts = &mut self.heartbeats.counts;
        let member = self.view.member_mut(echo.from);
        let Some((session, member)) = member.and_then(|m| Some((m.detector.session?, m))) else {
            return counts.reject(Rejection::Misdirected);
        };
        if echo.generation != session.generation {
            // Of an earlier session, if it is authentic at all.
            return counts.reject(Rejection::Replayed);
        }
        let Some(echo) = echo.open(bytes, &session.key) else {
            return counts.reject(Rejection::Unauthenticated);
        };
        let sent = Instant::from_millis(echo.time_ms);
        // It shows life at the time at which its heartbeat was sent, and nothing if the member would be out if it
        // had been silent since.
        let silence_ms = self.paces.for_member(is_local(&member.info.region)).silence_ms();
        let is_recent = sent <= now && now.since_ms(sent) < silence_ms;
        if !is_recent || !member.detector.echo_received(echo.sequence, sent) {
            return counts.reject(Rejection::Replayed);
        }
        counts.heartbeats_acknowledged += 1;
        self.echoed(cx, echo.from, sent);
        if self.view.is_address_of(echo.from, from) {
            self.receive_gossip(cx, (echo.from, true), &echo.content, 0);
        } else if !echo.content.is_empty() {
            cx.local.refused.gossip += 1;
        }
    }
}
