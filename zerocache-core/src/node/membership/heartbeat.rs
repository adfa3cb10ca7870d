//! Heartbeats: small datagrams to the members that this node monitors, and the echoes to theirs.
//!
//! Only an echo is a sign of life: it shows that both directions carry. A link that carries one direction
//! is down at both of its ends. An echo of an old heartbeat shows only that the member was alive then.

use alloc::{collections::BTreeMap, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;

use super::Membership;
use crate::{
    cluster::ReplayWindow,
    node::{
        Effect,
        local::{Context, Local},
    },
    store::Backend,
    time::Instant,
    version::Incarnation,
    wire::{CONTENT_BYTES_MAX, Datagram, DatagramKind, SessionKey, features},
};

/// How often each monitored member gets a heartbeat, in milliseconds.
const HEARTBEAT_EVERY_MS: u64 = 100;

/// An echo shows life at the time at which its heartbeat was sent, and nothing if that is longer ago than
/// this, in milliseconds: as long as the silence after which a member is out.
const ECHO_MS_MAX: u64 = 2_500;

/// The most senders whose numbers are remembered, beside the members, so that no heartbeat is echoed twice.
const SENDERS_MAX: usize = 4_096;

/// A sender that has sent nothing for this long is forgotten when room is short, in milliseconds.
const SENDER_MS: u64 = 60_000;

/// How often such senders are searched for, in milliseconds.
const SEARCH_EVERY_MS: u64 = 1_000;

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
    /// Dropped: received before, or too old.
    pub replayed: u64,
}

/// A node that sends heartbeats here.
#[derive(Debug)]
struct Sender {
    key: SessionKey,
    window: ReplayWindow,
    last_heard: Instant,
}

/// The state of heartbeats in both directions, beside the failure detector of each member.
#[derive(Debug)]
pub(super) struct Heartbeats {
    next: Instant,
    /// The number of the last heartbeats; the same for all members, so that one that is removed and
    /// returns gets no number twice.
    sequence: u64,
    /// By name and address: a sender that uses a member's name from elsewhere uses up no number of the
    /// member.
    senders: BTreeMap<(Incarnation, SocketAddr), Sender>,
    next_search: Instant,
    counts: DatagramCounts,
}

impl Heartbeats {
    pub(super) fn new(now: Instant) -> Self {
        let (senders, counts) = (BTreeMap::new(), DatagramCounts::default());
        Self { next: now, sequence: 0, senders, next_search: now, counts }
    }

    pub(super) fn counts(&self) -> DatagramCounts {
        self.counts
    }

    /// Makes room for one more sender, if need be by forgetting silent ones. Returns whether there is room.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.senders.len() >= SENDERS_MAX && self.next_search <= now {
            self.next_search = now.plus_ms(SEARCH_EVERY_MS);
            self.senders.retain(|_, sender| now.since_ms(sender.last_heard) < SENDER_MS);
        }
        self.senders.len() < SENDERS_MAX
    }

    /// Starts the numbers of a sender over.
    pub(super) fn reset(&mut self, id: Incarnation) {
        let lowest = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let own = self.senders.range((id, lowest)..).map(|(sender, _)| *sender);
        let own: Vec<_> = own.take_while(|(from, _)| *from == id).collect();
        for sender in own {
            self.senders.remove(&sender);
        }
    }
}

impl Membership {
    /// The key for the datagrams of a caller to this node, if it takes any.
    pub(super) fn session_for(local: &Local, caller: Incarnation) -> Option<SessionKey> {
        let is_offered = local.config.features & features::DATAGRAMS != 0;
        is_offered.then(|| SessionKey::derive(&local.config.secret, caller))
    }

    /// Sends the heartbeats that are due, some of them with gossip.
    pub(super) fn tick_heartbeats<B: Backend>(&mut self, cx: &mut Context<'_, B>) {
        let now = cx.now.mono;
        if self.heartbeats.next <= now {
            self.heartbeats.next = now.plus_ms(HEARTBEAT_EVERY_MS);
            self.heartbeats.sequence += 1;
            let mut contents = self.gossip_round(cx);
            let (from, sequence) = (cx.local.id(), self.heartbeats.sequence);
            for member in self.view.members_mut() {
                let Some(key) = member.detector.key else { continue };
                let to = member.info.incarnation;
                let content = contents.iter_mut().find(|(id, _)| *id == to);
                let content = content.map(|(_, content)| core::mem::take(content));
                let heartbeat = Datagram {
                    from,
                    to,
                    kind: DatagramKind::Heartbeat,
                    sequence,
                    time_ms: now.as_millis(),
                    content: content.unwrap_or_default(),
                };
                member.detector.heartbeat_sent(sequence);
                self.heartbeats.counts.heartbeats_sent += 1;
                let bytes = heartbeat.seal(&key);
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
            DatagramKind::Echo => self.echo_received(cx, from, bytes, &datagram),
        }
    }

    /// Echoes the heartbeat of another node, once. Anybody can have a key in any name: gossip is taken only
    /// from the node's own address, and elsewhere the echo is no longer than the heartbeat.
    fn heartbeat_received<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        from: SocketAddr,
        bytes: &Bytes,
        heartbeat: Datagram,
    ) {
        let now = cx.now.mono;
        let name = (heartbeat.from, from);
        let known = self.heartbeats.senders.get(&name).map(|sender| sender.key);
        let Some(key) = known.or_else(|| Self::session_for(cx.local, heartbeat.from)) else {
            self.heartbeats.counts.misdirected += 1;
            return;
        };
        if !Datagram::is_sealed(bytes, &key) {
            self.heartbeats.counts.unauthenticated += 1;
            return;
        }
        let is_verified = self.view.is_address_of(heartbeat.from, from);
        if known.is_none() && !self.heartbeats.has_room(now) && !is_verified {
            self.heartbeats.counts.misdirected += 1;
            return;
        }
        let Heartbeats { senders, counts, .. } = &mut self.heartbeats;
        let sender = senders.entry(name).or_insert_with(|| Sender {
            key,
            window: ReplayWindow::default(),
            last_heard: now,
        });
        sender.last_heard = now;
        if !sender.window.accept(heartbeat.sequence) {
            counts.replayed += 1;
            return;
        }
        counts.heartbeats_answered += 1;
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
        echo: &Datagram,
    ) {
        let now = cx.now.mono;
        let counts = &mut self.heartbeats.counts;
        let member = self.view.member_mut(echo.from);
        let Some((member, key)) = member.and_then(|m| m.detector.key.map(|key| (m, key))) else {
            counts.misdirected += 1;
            return;
        };
        if !Datagram::is_sealed(bytes, &key) {
            counts.unauthenticated += 1;
            return;
        }
        let sent = Instant::from_millis(echo.time_ms);
        let is_recent = sent <= now && now.since_ms(sent) < ECHO_MS_MAX;
        if !is_recent || !member.detector.echo_received(echo.sequence, sent) {
            counts.replayed += 1;
            return;
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
