//! Heartbeats: small datagrams to the members that this node watches, and the echoes to theirs.
//!
//! Only an echo is a sign of life: it shows that both ways carry. So a link that carries one way is
//! down at both of its ends. An echo of a beat that was sent long ago shows only that it was alive
//! then.

use alloc::{collections::BTreeMap, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;

use super::{Effect, Node};
use crate::{
    cluster::Window,
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{CONTENT_BYTES_MAX, Datagram, DatagramKind, SessionKey, features},
};

/// How often each watched member gets a beat, in milliseconds.
const BEAT_EVERY_MS: u64 = 100;

/// An echo shows life at the moment at which its beat was sent, and nothing when that is longer ago
/// than this, in milliseconds: as long as silence is borne.
const ECHO_MS_MAX: u64 = 2_500;

/// Most callers whose beats are remembered, so that none is echoed twice, beside the members.
const SENDERS_MAX: usize = 4_096;

/// A node from which no beat has come for this long is no longer remembered when room is short, in
/// milliseconds.
const SENDER_MS: u64 = 60_000;

/// How often it is looked for such nodes, in milliseconds.
const SEARCH_EVERY_MS: u64 = 1_000;

/// What became of datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounts {
    /// Beats sent.
    pub heartbeats_sent: u64,
    /// Beats of others that were echoed.
    pub heartbeats_answered: u64,
    /// Echoes that were taken as signs of life.
    pub heartbeats_acknowledged: u64,
    /// Dropped: of no known form.
    pub malformed: u64,
    /// Dropped: meant for another node, or from one of which nothing is known.
    pub misdirected: u64,
    /// Dropped: not authentic.
    pub unauthenticated: u64,
    /// Dropped: came before, or too late to mean anything.
    pub replayed: u64,
}

/// A node that sends beats here.
#[derive(Debug)]
struct Sender {
    key: SessionKey,
    window: Window,
    heard: Instant,
}

/// The state of heartbeats in both directions, beside what each member's pulse holds.
#[derive(Debug)]
pub(super) struct Heartbeats {
    next: Instant,
    /// The number of the last beats; the same for all members, so that one that is forgotten and
    /// comes back gets no number twice.
    sequence: u64,
    /// By name and address: whoever sends in a member's name from elsewhere uses up no number of the
    /// member's own.
    senders: BTreeMap<(Incarnation, SocketAddr), Sender>,
    next_search: Instant,
    counts: DatagramCounts,
}

impl Heartbeats {
    pub(super) fn new(now: Instant) -> Self {
        let (senders, counts) = (BTreeMap::new(), DatagramCounts::default());
        Self { next: now, sequence: 0, senders, next_search: now, counts }
    }

    /// Makes room for one more sender, if need be by forgetting those that are silent.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.senders.len() >= SENDERS_MAX && self.next_search <= now {
            self.next_search = now.plus_ms(SEARCH_EVERY_MS);
            self.senders.retain(|_, sender| now.since_ms(sender.heard) < SENDER_MS);
        }
        self.senders.len() < SENDERS_MAX
    }

    /// The beats of a node are numbered anew.
    pub(super) fn begin_anew(&mut self, id: Incarnation) {
        let lowest = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let own = self.senders.range((id, lowest)..).map(|(place, _)| *place);
        let own: Vec<_> = own.take_while(|(from, _)| *from == id).collect();
        for place in own {
            self.senders.remove(&place);
        }
    }
}

impl<B: Backend> Node<B> {
    /// What became of datagrams since the node began.
    #[must_use]
    pub fn datagram_counts(&self) -> DatagramCounts {
        self.heartbeats.counts
    }

    /// The key for the datagrams of a caller to this node, if it takes any.
    pub(super) fn session_for(&self, caller: Incarnation) -> Option<SessionKey> {
        let offered = self.config.features & features::DATAGRAMS != 0;
        offered.then(|| SessionKey::derive(&self.config.secret, caller))
    }

    /// Sends the beats that are due, and gossips with some of them.
    pub(super) fn tick_heartbeats(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.heartbeats.next <= now.mono {
            self.heartbeats.next = now.mono.plus_ms(BEAT_EVERY_MS);
            self.heartbeats.sequence += 1;
            let mut contents = self.gossip_round(now, out);
            let (from, sequence) = (self.config.info.incarnation, self.heartbeats.sequence);
            for member in self.view.members_mut() {
                let Some(key) = member.pulse.key else { continue };
                let spoken = contents.iter_mut().find(|(id, _)| *id == member.info.incarnation);
                let content = spoken.map(|(_, content)| core::mem::take(content));
                let beat = Datagram {
                    from,
                    to: member.info.incarnation,
                    kind: DatagramKind::Heartbeat,
                    sequence,
                    time_ms: now.mono.as_millis(),
                    content: content.unwrap_or_default(),
                };
                member.pulse.beat(sequence);
                self.heartbeats.counts.heartbeats_sent += 1;
                out.push(Effect::Datagram { to: member.address, bytes: beat.seal(&key) });
            }
        }
        if self.view.members().next().is_some() {
            self.wake_by(Some(self.heartbeats.next));
        }
    }

    /// A datagram came.
    pub(super) fn datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        bytes: &Bytes,
        out: &mut Vec<Effect>,
    ) {
        // A socket of the newer family shows addresses of the older one in its own form.
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let counts = &mut self.heartbeats.counts;
        let Some(datagram) = Datagram::parse(bytes) else {
            counts.malformed += 1;
            return;
        };
        if datagram.to != self.config.info.incarnation {
            counts.misdirected += 1;
            return;
        }
        match datagram.kind {
            DatagramKind::Heartbeat => self.beat(now, from, bytes, datagram, out),
            DatagramKind::Echo => self.echo(now, from, bytes, &datagram, out),
        }
    }

    /// Echoes the beat of another node, once. Anybody can have a key in anybody's name: what it says of
    /// others counts only where that node stands, and elsewhere the echo is no longer than the beat.
    fn beat(
        &mut self,
        now: Now,
        from: SocketAddr,
        bytes: &Bytes,
        beat: Datagram,
        out: &mut Vec<Effect>,
    ) {
        let place = (beat.from, from);
        let known = self.heartbeats.senders.get(&place).map(|sender| sender.key);
        let Some(key) = known.or_else(|| self.session_for(beat.from)) else {
            self.heartbeats.counts.misdirected += 1;
            return;
        };
        if !Datagram::is_sealed(bytes, &key) {
            self.heartbeats.counts.unauthenticated += 1;
            return;
        }
        let stands_there = self.view.speaks_from(beat.from, from);
        if known.is_none() && !self.heartbeats.has_room(now.mono) && !stands_there {
            self.heartbeats.counts.misdirected += 1;
            return;
        }
        let Heartbeats { senders, counts, .. } = &mut self.heartbeats;
        let sender = senders.entry(place).or_insert_with(|| Sender {
            key,
            window: Window::default(),
            heard: now.mono,
        });
        sender.heard = now.mono;
        if !sender.window.accept(beat.sequence) {
            counts.replayed += 1;
            return;
        }
        counts.heartbeats_answered += 1;
        let (name, said) = (beat.from, &beat.content);
        let content = match stands_there {
            true => self.hear_gossip(now, name, said, CONTENT_BYTES_MAX),
            false => self.asked_by_gossip(now, name, said, said.len()),
        };
        let echo =
            Datagram { from: beat.to, to: beat.from, kind: DatagramKind::Echo, content, ..beat };
        out.push(Effect::Datagram { to: from, bytes: echo.seal(&key) });
    }

    /// Takes an echo as a sign of life at the moment at which its beat was sent.
    fn echo(
        &mut self,
        now: Now,
        from: SocketAddr,
        bytes: &Bytes,
        echo: &Datagram,
        out: &mut Vec<Effect>,
    ) {
        let counts = &mut self.heartbeats.counts;
        let member = self.view.member_mut(echo.from);
        let Some((member, key)) = member.and_then(|m| m.pulse.key.map(|key| (m, key))) else {
            counts.misdirected += 1;
            return;
        };
        if !Datagram::is_sealed(bytes, &key) {
            counts.unauthenticated += 1;
            return;
        }
        let sent = Instant::from_millis(echo.time_ms);
        let recent = sent <= now.mono && now.mono.since_ms(sent) < ECHO_MS_MAX;
        if !recent || !member.pulse.echoed(echo.sequence, sent) {
            counts.replayed += 1;
            return;
        }
        counts.heartbeats_acknowledged += 1;
        self.echoed(now, echo.from, sent, out);
        if self.view.speaks_from(echo.from, from) {
            self.hear_gossip(now, echo.from, &echo.content, 0);
        } else if !echo.content.is_empty() {
            self.refused.gossip += 1;
        }
    }
}
