//! The nodes that send heartbeats here: what each got for that in a handshake, and the numbers that came.
//!
//! Invariants: a heartbeat is accepted once. In version 2 a window is never emptied within a generation, and
//! a generation without a record is not accepted, so that no echo uses a nonce twice.

use alloc::{collections::BTreeMap, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;

use crate::{
    cluster::ReplayWindow,
    time::Instant,
    version::Incarnation,
    wire::{Datagram, Session, SessionKey},
};

/// The most senders of each version that are remembered; of version 1 beside the members.
const SENDERS_MAX: usize = 4_096;

/// A sender that has sent nothing for this long is forgotten when room is short, in milliseconds.
const SENDER_MS: u64 = 60_000;

/// How often such senders are searched for, in milliseconds.
const SEARCH_EVERY_MS: u64 = 1_000;

/// Why a heartbeat is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Its sender is unknown.
    Misdirected,
    /// It is not authentic.
    Unauthenticated,
    /// It came before, is too old, or has an impossible number.
    Replayed,
}

/// A sender of version 1.
#[derive(Debug)]
struct Sender {
    key: SessionKey,
    window: ReplayWindow,
    last_heard: Instant,
}

/// A sender of version 2.
#[derive(Debug)]
struct SealedSender {
    /// The generation that it uses, and its key.
    generation: u32,
    key: SessionKey,
    /// The numbers of that generation.
    window: ReplayWindow,
    /// The generation that it got last, and begins to use when it likes.
    newest: u32,
    last_heard: Instant,
}

/// All senders.
#[derive(Debug)]
pub(super) struct Senders {
    secret: [u8; 32],
    /// By name and address: a sender that uses a member's name from elsewhere uses up no number of the
    /// member.
    plain: BTreeMap<(Incarnation, SocketAddr), Sender>,
    sealed: BTreeMap<Incarnation, SealedSender>,
    /// The generation that was given last, of all senders.
    last_generation: u32,
    next_search: Instant,
}

impl Senders {
    pub(super) fn new(secret: [u8; 32], now: Instant) -> Self {
        let (plain, sealed) = (BTreeMap::new(), BTreeMap::new());
        Self { secret, plain, sealed, last_generation: 0, next_search: now }
    }

    /// Begins a session with a caller that is who it says. Returns `None` if there are too many, or no
    /// generation is left.
    pub(super) fn begin(
        &mut self,
        caller: Incarnation,
        is_sealed: bool,
        now: Instant,
    ) -> Option<Session> {
        if !is_sealed {
            self.reset(caller);
            return Some(Session::derive(&self.secret, caller, None));
        }
        let is_known = self.sealed.contains_key(&caller);
        if !is_known && !self.has_room(now, |senders| senders.sealed.len()) {
            return None;
        }
        let generation = self.last_generation.checked_add(1)?;
        self.last_generation = generation;
        let session = Session::derive(&self.secret, caller, Some(generation));
        let (key, window) = (session.key, ReplayWindow::default());
        let first = SealedSender { generation, key, window, newest: generation, last_heard: now };
        self.sealed.entry(caller).or_insert(first).newest = generation;
        Some(session)
    }

    /// Starts the numbers of a sender of version 1 over.
    pub(super) fn reset(&mut self, id: Incarnation) {
        let lowest = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let own = self.plain.range((id, lowest)..).map(|(sender, _)| *sender);
        let own: Vec<_> = own.take_while(|(from, _)| *from == id).collect();
        for sender in own {
            self.plain.remove(&sender);
        }
    }

    /// Makes room for one more sender, if need be by forgetting silent ones. Returns whether there is room.
    fn has_room(&mut self, now: Instant, count: impl Fn(&Self) -> usize) -> bool {
        if count(self) >= SENDERS_MAX && self.next_search <= now {
            self.next_search = now.plus_ms(SEARCH_EVERY_MS);
            self.plain.retain(|_, sender| now.since_ms(sender.last_heard) < SENDER_MS);
            self.sealed.retain(|_, sender| now.since_ms(sender.last_heard) < SENDER_MS);
        }
        count(self) < SENDERS_MAX
    }

    /// Opens a heartbeat that came from `from`, which may be the sender's own address, or not be verified.
    /// Returns it with the key that its echo is sealed with.
    pub(super) fn accept(
        &mut self,
        (from, is_verified): (SocketAddr, bool),
        bytes: &Bytes,
        heartbeat: Datagram,
        now: Instant,
    ) -> Result<(Datagram, SessionKey), Rejection> {
        if let Some(generation) = heartbeat.generation {
            return self.accept_sealed(generation, bytes, heartbeat, now);
        }
        let name = (heartbeat.from, from);
        let known = self.plain.get(&name).map(|sender| sender.key);
        let key = known.unwrap_or_else(|| Session::derive(&self.secret, heartbeat.from, None).key);
        let heartbeat = heartbeat.open(bytes, &key).ok_or(Rejection::Unauthenticated)?;
        if known.is_none() && !self.has_room(now, |senders| senders.plain.len()) && !is_verified {
            return Err(Rejection::Misdirected);
        }
        let window = ReplayWindow::default();
        let sender = self.plain.entry(name).or_insert(Sender { key, window, last_heard: now });
        sender.last_heard = now;
        let is_new = sender.window.accept_near(heartbeat.sequence);
        if is_new { Ok((heartbeat, key)) } else { Err(Rejection::Replayed) }
    }

    /// Opens a heartbeat of version 2, of the generation in use or a newer one that its sender got.
    fn accept_sealed(
        &mut self,
        generation: u32,
        bytes: &Bytes,
        heartbeat: Datagram,
        now: Instant,
    ) -> Result<(Datagram, SessionKey), Rejection> {
        let id = heartbeat.from;
        let sender = self.sealed.get_mut(&id).ok_or(Rejection::Misdirected)?;
        if generation < sender.generation {
            return Err(Rejection::Replayed);
        }
        if generation > sender.newest {
            return Err(Rejection::Unauthenticated);
        }
        let is_next = generation > sender.generation;
        let next = is_next.then(|| Session::derive(&self.secret, id, Some(generation)).key);
        let key = next.unwrap_or(sender.key);
        let heartbeat = heartbeat.open(bytes, &key).ok_or(Rejection::Unauthenticated)?;
        if is_next {
            (sender.generation, sender.key) = (generation, key);
            sender.window = ReplayWindow::default();
        }
        sender.last_heard = now;
        let is_new = sender.window.accept_near(heartbeat.sequence);
        if is_new { Ok((heartbeat, key)) } else { Err(Rejection::Replayed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::DatagramKind;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn heartbeat(from: u64, session: &Session, sequence: u64) -> Bytes {
        let datagram = Datagram {
            from: Incarnation(from),
            to: Incarnation(1),
            kind: DatagramKind::Heartbeat,
            generation: session.generation,
            sequence,
            time_ms: 1,
            content: Bytes::from_static(b"gossip"),
        };
        datagram.seal(&session.key)
    }

    fn accept(senders: &mut Senders, port: u16, bytes: &Bytes) -> Result<Bytes, Rejection> {
        let from = SocketAddr::from(([10, 0, 0, 2], port));
        let datagram = Datagram::parse(bytes).unwrap();
        senders.accept((from, true), bytes, datagram, at(0)).map(|(opened, _)| opened.content)
    }

    #[test]
    fn new_generation_begins_with_an_empty_window() {
        let mut senders = Senders::new([7; 32], at(0));
        let first = senders.begin(Incarnation(2), true, at(0)).unwrap();
        let opened = accept(&mut senders, 1, &heartbeat(2, &first, u64::MAX));
        assert_eq!(opened, Ok(Bytes::from_static(b"gossip")));
        // Every later number counts as old, until the sender has another key.
        let old = heartbeat(2, &first, 8);
        assert_eq!(accept(&mut senders, 1, &old), Err(Rejection::Replayed));
        let second = senders.begin(Incarnation(2), true, at(0)).unwrap();
        assert_eq!(accept(&mut senders, 1, &old), Err(Rejection::Replayed), "still in use");
        assert!(accept(&mut senders, 1, &heartbeat(2, &second, 9)).is_ok());
        assert_eq!(accept(&mut senders, 1, &heartbeat(2, &second, 9)), Err(Rejection::Replayed));
        assert_eq!(accept(&mut senders, 1, &heartbeat(2, &first, 10)), Err(Rejection::Replayed));
    }

    #[test]
    fn heartbeat_is_accepted_once_wherever_it_comes_from() {
        let mut senders = Senders::new([7; 32], at(0));
        let session = senders.begin(Incarnation(2), true, at(0)).unwrap();
        let bytes = heartbeat(2, &session, 5);
        assert!(accept(&mut senders, 1, &bytes).is_ok());
        assert_eq!(accept(&mut senders, 2, &bytes), Err(Rejection::Replayed));
        senders.reset(Incarnation(2));
        assert_eq!(accept(&mut senders, 2, &bytes), Err(Rejection::Replayed));
        assert_eq!(
            accept(&mut senders, 1, &heartbeat(2, &session, 6 + (1 << 20))),
            Err(Rejection::Replayed)
        );
        assert!(accept(&mut senders, 1, &heartbeat(2, &session, 5 + (1 << 20))).is_ok());
    }

    #[test]
    fn generation_of_another_sender_is_not_accepted() {
        let mut senders = Senders::new([7; 32], at(0));
        let own = senders.begin(Incarnation(2), true, at(0)).unwrap();
        let other = senders.begin(Incarnation(3), true, at(0)).unwrap();
        assert_eq!(
            accept(&mut senders, 1, &heartbeat(2, &other, 1)),
            Err(Rejection::Unauthenticated)
        );
        assert_eq!(accept(&mut senders, 1, &heartbeat(3, &own, 1)), Err(Rejection::Replayed));
        let forged = Session { generation: other.generation, ..own };
        assert_eq!(
            accept(&mut senders, 1, &heartbeat(3, &forged, 1)),
            Err(Rejection::Unauthenticated)
        );
        let unknown = Session::derive(&[7; 32], Incarnation(4), Some(1));
        assert_eq!(
            accept(&mut senders, 1, &heartbeat(4, &unknown, 1)),
            Err(Rejection::Misdirected)
        );
    }

    #[test]
    fn forgotten_sender_needs_another_handshake() {
        let mut senders = Senders::new([7; 32], at(0));
        let first = senders.begin(Incarnation(0), true, at(0)).unwrap();
        assert!(accept(&mut senders, 1, &heartbeat(0, &first, 1)).is_ok());
        for n in 1..SENDERS_MAX as u64 {
            assert!(senders.begin(Incarnation(n), true, at(0)).is_some());
        }
        assert_eq!(senders.begin(Incarnation(1 << 40), true, at(59_000)), None);
        assert!(senders.begin(Incarnation(1 << 40), true, at(60_000)).is_some());
        let again = heartbeat(0, &first, 2);
        assert_eq!(accept(&mut senders, 1, &again), Err(Rejection::Misdirected));
        let second = senders.begin(Incarnation(0), true, at(60_000)).unwrap();
        assert_eq!(accept(&mut senders, 1, &again), Err(Rejection::Replayed));
        assert!(accept(&mut senders, 1, &heartbeat(0, &second, 2)).is_ok());
    }
}
