//! Gossip: which nodes exist, on heartbeats that are sent anyway.
//!
//! Each node keeps a row for every node of the cluster. Changes spread as rumours: each new row is passed on
//! a few times. What a rumour missed is found by comparing digests: where they differ, the node that lacks
//! something requests one bucket of the other's rows, and says which rows it has.
//!
//! A row says that a node exists at some addresses, not whether it is reachable. A node renews its own row
//! every minute; renewals spread as long as any node reaches it. All nodes forget a row that has not been
//! renewed for ten minutes. A row is marked as gone when its node leaves, by that node and by all that it says
//! goodbye to, or when another node is at its address. A node that hears this of itself and is not leaving
//! renews its row, and the renewal wins.

mod codec;
mod content;
mod rows;
#[cfg(test)]
mod tests;

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use core::net::SocketAddr;

use bytes::Bytes;

use self::{
    codec::{GossipMessage, GossipRow},
    rows::{NodeEntry, Rumour},
};
use crate::{time::Instant, version::Incarnation, wire::NodeInfo};

/// The most rows, gone ones included.
pub const ROWS_MAX: usize = 4_096;

/// How often a node renews its own row, in milliseconds.
pub const RENEW_EVERY_MS: u64 = 60_000;

/// A row that has not been renewed for this long is forgotten, in milliseconds (contract section 4).
pub const FORGET_MS: u64 = 600_000;

/// Rows older than this are not passed on, in milliseconds: no node takes up again what others forget.
const PASS_ON_MS: u64 = 540_000;

/// The most rows that one node names beyond those that this node met itself: as many as a large cluster has.
const ROWS_PER_SOURCE_MAX: usize = 1_024;

/// The highest number of renewals: one a minute for eight thousand years.
const RENEWALS_MAX: u64 = u32::MAX as u64;

/// How often rows that are too old are searched for, in milliseconds.
const SEARCH_EVERY_MS: u64 = 1_000;

/// How often each node that heard of a new row, or of a renewal, passes it on. With more sends a rumour
/// reaches more nodes; digests find what it misses.
const SENDS_NEW: u8 = 6;
const SENDS_RENEWED: u8 = 4;

/// The number of partners of each heartbeat while there are rumours. Otherwise each
/// [`QUIET_HEARTBEATS`]th heartbeat has one.
const PARTNERS: usize = 3;
const QUIET_HEARTBEATS: u64 = 5;

/// The rows in a bucket, which is requested at once.
const BUCKET_ROWS: usize = 32;

/// The changes that a gossip message made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GossipChanges {
    /// Whether it named nodes that were unknown.
    pub is_new: bool,
    /// Nodes that it marked as gone.
    pub gone: Vec<Incarnation>,
    /// Rows that were not taken: more than one node may name.
    pub refused: u64,
}

/// The rows of one node.
#[derive(Debug)]
pub struct Gossip {
    own: Incarnation,
    rows: BTreeMap<Incarnation, NodeEntry>,
    /// The number of rows that each node named.
    rows_by_source: BTreeMap<Incarnation, usize>,
    /// The sum of the hashes of all rows that are not gone.
    digest: u64,
    rumours: VecDeque<Rumour>,
    /// The last known digests of others.
    digests: BTreeMap<Incarnation, u64>,
    next_renewal: Instant,
    next_search: Instant,
    asked: u64,
    answered: u64,
    turn: u64,
}

impl Gossip {
    /// Creates the gossip of the node that `info` describes.
    #[must_use]
    pub fn new(info: NodeInfo, now: Instant) -> Self {
        let own = info.incarnation;
        let mut gossip = Self {
            own,
            rows: BTreeMap::new(),
            rows_by_source: BTreeMap::new(),
            digest: 0,
            rumours: VecDeque::new(),
            digests: BTreeMap::new(),
            next_renewal: now.plus_ms(RENEW_EVERY_MS),
            next_search: now,
            asked: own.0,
            answered: own.0,
            turn: 0,
        };
        gossip.insert(NodeEntry::met(info, 1, now), false);
        gossip
    }

    /// Returns every other node that exists, as far as is known.
    pub fn others(&self) -> impl Iterator<Item = &NodeInfo> {
        let others = self.rows.values().filter(|row| !row.gone);
        others.map(|row| &row.info).filter(|info| info.incarnation != self.own)
    }

    /// Returns whether a node exists, as far as is known.
    #[must_use]
    pub fn exists(&self, id: Incarnation) -> bool {
        self.rows.get(&id).is_some_and(|row| !row.gone)
    }

    /// Returns the region of a node, also of one that existed.
    #[must_use]
    pub fn region(&self, id: Incarnation) -> Option<&str> {
        self.rows.get(&id).map(|row| row.info.region.as_str())
    }

    /// Returns how long ago any node last heard from a node, in milliseconds.
    #[must_use]
    pub fn age_ms(&self, id: Incarnation, now: Instant) -> Option<u64> {
        self.rows.get(&id).map(|row| now.since_ms(row.renewed))
    }

    /// Returns a number that is the same for nodes that know the same nodes.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    /// Returns whether there are rumours to pass on.
    #[must_use]
    pub fn has_rumours(&self) -> bool {
        !self.rumours.is_empty()
    }

    /// Returns whether the last known digest of a node differs from this one.
    #[must_use]
    pub fn differs(&self, id: Incarnation) -> bool {
        self.digests.get(&id).is_some_and(|digest| *digest != self.digest)
    }

    /// Renews this node's own row, and forgets rows that were not renewed. Returns the forgotten nodes.
    pub fn tick(&mut self, now: Instant) -> Vec<Incarnation> {
        if self.next_renewal <= now && self.exists(self.own) {
            self.renew(now);
        }
        if self.next_search > now {
            return Vec::new();
        }
        self.next_search = now.plus_ms(SEARCH_EVERY_MS);
        let old = |row: &NodeEntry| now.since_ms(row.renewed) >= FORGET_MS;
        let old = self.rows.iter().filter(|(id, row)| **id != self.own && old(row));
        let old: Vec<_> = old.map(|(id, row)| (*id, row.gone)).collect();
        for (id, _) in &old {
            self.remove(*id);
        }
        old.into_iter().filter(|(_, gone)| !gone).map(|(id, _)| id).collect()
    }

    /// Notes a node with which this one did a handshake. Returns whether it was unknown.
    pub fn met(&mut self, info: &NodeInfo, now: Instant) -> bool {
        let id = info.incarnation;
        match self.rows.get_mut(&id) {
            Some(row) if !row.gone => {
                row.info = info.clone();
                row.is_met = true;
                let source = row.source.take();
                self.release_source(source);
                false
            }
            // It is there after all: its own renewal will say so to the others.
            Some(_) | None => {
                let renewal = self.rows.get(&id).map_or(0, |row| row.renewal);
                self.insert(NodeEntry::met(info.clone(), renewal, now), false)
            }
        }
    }

    /// Changes this node's own addresses.
    pub fn readdressed(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        if let Some(row) = self.rows.get_mut(&self.own) {
            row.info.addresses = addresses;
        }
        self.renew(now);
        self.spread(self.own, SENDS_NEW, false);
    }

    /// Notes that a node is no member any more: gossip may change its properties.
    pub fn unpinned(&mut self, id: Incarnation) {
        if let Some(row) = self.rows.get_mut(&id) {
            row.is_met = false;
        }
    }

    /// Returns the node that named another one; `None` if this node met it.
    #[must_use]
    pub fn source(&self, id: Incarnation) -> Option<Incarnation> {
        self.rows.get(&id)?.source
    }

    /// Returns the addresses that a node announced.
    #[must_use]
    pub fn addresses(&self, id: Incarnation) -> &[SocketAddr] {
        self.rows.get(&id).map_or(&[], |row| &row.info.addresses)
    }

    /// Notes a node that another one says it reaches. Returns whether it was unknown; a known one does not
    /// change.
    pub fn named(&mut self, source: Incarnation, info: &NodeInfo, now: Instant) -> bool {
        let source = Some(source);
        let row = NodeEntry { source, is_met: false, ..NodeEntry::met(info.clone(), 0, now) };
        !self.rows.contains_key(&info.incarnation) && self.insert(row, true)
    }

    /// Notes that a member responded. Its row is renewed for it, if its own renewals do not arrive.
    pub fn reached(&mut self, id: Incarnation, now: Instant) {
        let Some(row) = self.rows.get_mut(&id).filter(|row| !row.gone) else { return };
        if now.since_ms(row.renewed) >= 2 * RENEW_EVERY_MS {
            row.renewal = (row.renewal + 1).min(RENEWALS_MAX);
            row.renewed = now;
            self.spread(id, SENDS_RENEWED, true);
        }
    }

    /// Marks a node as gone: it leaves, or another one is at its address. A node that marks itself renews its
    /// row no more.
    pub fn mark_gone(&mut self, id: Incarnation, now: Instant) {
        let Some(row) = self.rows.get_mut(&id).filter(|row| !row.gone) else { return };
        row.gone = true;
        row.renewed = now;
        self.digest = self.digest.wrapping_sub(hash(id));
        self.digests.remove(&id);
        self.spread(id, SENDS_NEW, true);
    }

    /// Takes back that this node marked itself as gone: its row is renewed, which wins over what was said of it.
    pub fn revive(&mut self, now: Instant) {
        let Some(row) = self.rows.get_mut(&self.own).filter(|row| row.gone) else { return };
        row.gone = false;
        self.digest = self.digest.wrapping_add(hash(self.own));
        self.renew(now);
        self.spread(self.own, SENDS_NEW, false);
    }

    /// Chooses the nodes that get gossip with the next heartbeat: a few while there are rumours or differing
    /// digests, otherwise one now and then.
    pub fn partners(&mut self, candidates: &[Incarnation]) -> Vec<Incarnation> {
        self.turn += 1;
        let differing: Vec<_> = candidates.iter().filter(|id| self.differs(**id)).collect();
        let busy = self.has_rumours() || !differing.is_empty();
        let count = match busy {
            true => PARTNERS,
            false if self.turn.is_multiple_of(QUIET_HEARTBEATS) => 1,
            false => 0,
        };
        let mut partners = Vec::with_capacity(count);
        for slot in 0..count.min(candidates.len()) as u64 {
            let draw = hash(Incarnation(self.own.0 ^ (self.turn << 3 | slot)));
            let pick = |len: usize| (draw % len as u64) as usize;
            let partner = match slot {
                0 if !differing.is_empty() => *differing[pick(differing.len())],
                _ => candidates[pick(candidates.len())],
            };
            if !partners.contains(&partner) {
                partners.push(partner);
            }
        }
        partners
    }

    /// Returns the message to a node, of at most `bytes_max` bytes. If its digest differs, the message requests
    /// a bucket.
    pub fn speak(&mut self, to: Incarnation, now: Instant, bytes_max: usize) -> Bytes {
        let request = self.differs(to).then(|| self.next_request());
        self.content(now, request, Vec::new(), bytes_max)
    }

    /// Returns the message to a node that cannot verify the sender: as [`speak`](Self::speak), without
    /// rumours.
    pub fn ask(&mut self, to: Incarnation) -> Bytes {
        let request = self.differs(to).then(|| self.next_request());
        GossipMessage { digest: self.digest, request, rows: Vec::new() }.encode()
    }

    /// Answers a message of an unverified sender, in the name of a node that may be a member. Returns whether
    /// it carried rows, which are ignored, and the answer; `None` if the message is invalid. Only members get
    /// rumours.
    pub fn answer(
        &mut self,
        (from, is_member): (Incarnation, bool),
        message: &Bytes,
        now: Instant,
        bytes_max: usize,
    ) -> Option<(bool, Bytes)> {
        let message = GossipMessage::decode(message).ok()?;
        let ignored = !message.rows.is_empty();
        let rows = message.request.map_or_else(Vec::new, |request| self.requested(&request, now));
        if is_member {
            self.digests.insert(from, message.digest);
            return Some((ignored, self.content(now, None, rows, bytes_max)));
        }
        let mut content = GossipMessage { digest: self.digest, request: None, rows: Vec::new() };
        content.fill(rows, bytes_max);
        Some((ignored, content.encode()))
    }

    /// Takes in the message of a verified node. Returns what it changed, and the answer of at most `bytes_max`
    /// bytes.
    pub fn hear(
        &mut self,
        from: Incarnation,
        message: &Bytes,
        now: Instant,
        bytes_max: usize,
    ) -> (GossipChanges, Bytes) {
        let mut changes = GossipChanges::default();
        let Ok(message) = GossipMessage::decode(message) else { return (changes, Bytes::new()) };
        for row in message.rows {
            self.take(from, row, now, &mut changes);
        }
        self.digests.insert(from, message.digest);
        let rows = message.request.map_or_else(Vec::new, |request| self.requested(&request, now));
        (changes, self.content(now, None, rows, bytes_max))
    }

    fn renew(&mut self, now: Instant) {
        self.next_renewal = now.plus_ms(RENEW_EVERY_MS);
        if let Some(row) = self.rows.get_mut(&self.own) {
            row.renewal = (row.renewal + 1).min(RENEWALS_MAX);
            row.renewed = now;
        }
        self.spread(self.own, SENDS_RENEWED, true);
    }

    fn take(
        &mut self,
        source: Incarnation,
        row: GossipRow,
        now: Instant,
        changes: &mut GossipChanges,
    ) {
        if row.age_ms >= FORGET_MS || row.renewal > RENEWALS_MAX {
            return;
        }
        let (id, renewed) = (row.id, now.minus_ms(row.age_ms));
        if id == self.own {
            if !self.exists(id) {
                return;
            }
            let renewal = self.rows.get(&id).map_or(0, |own| own.renewal);
            if (row.renewal, row.gone) > (renewal, false) {
                // Another node is wrong about this one, or renews its row for it.
                if let Some(own) = self.rows.get_mut(&id) {
                    own.renewal = row.renewal;
                }
                self.renew(now);
            }
            return;
        }
        let Some(known) = self.rows.get_mut(&id) else {
            let Some(info) = row.info else { return };
            let known = NodeEntry {
                info,
                renewal: row.renewal,
                renewed,
                gone: row.gone,
                source: Some(source),
                is_met: false,
            };
            let is_taken = self.insert(known, row.gone);
            changes.is_new |= is_taken && !row.gone;
            changes.refused += u64::from(!is_taken);
            return;
        };
        // Of the same renewal, gone is the later word.
        let newer = (row.renewal, row.gone) > (known.renewal, known.gone);
        if !newer {
            return;
        }
        let returned = known.gone && !row.gone;
        let left = !known.gone && row.gone;
        known.renewal = row.renewal;
        known.gone = row.gone;
        known.renewed = known.renewed.max(renewed);
        if let Some(info) = row.info.filter(|_| !known.is_met) {
            known.info = info;
        }
        if returned {
            self.digest = self.digest.wrapping_add(hash(id));
            changes.is_new = true;
        }
        if left {
            self.digest = self.digest.wrapping_sub(hash(id));
            self.digests.remove(&id);
            changes.gone.push(id);
        }
        self.spread(id, if returned || left { SENDS_NEW } else { SENDS_RENEWED }, !returned);
    }

    /// Adds a row, if there is room. Returns whether there was.
    fn insert(&mut self, row: NodeEntry, quiet: bool) -> bool {
        let (id, gone) = (row.info.incarnation, row.gone);
        let replaced = self.rows.get(&id).is_some_and(|row| !row.gone);
        let count =
            row.source.and_then(|source| self.rows_by_source.get(&source)).copied().unwrap_or(0);
        let is_full = self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&id);
        if is_full || count >= ROWS_PER_SOURCE_MAX {
            return false;
        }
        if let Some(source) = row.source {
            *self.rows_by_source.entry(source).or_default() += 1;
        }
        let before = self.rows.insert(id, row);
        self.release_source(before.and_then(|row| row.source));
        if !gone && !replaced {
            self.digest = self.digest.wrapping_add(hash(id));
        }
        if !quiet {
            self.spread(id, SENDS_NEW, false);
        }
        true
    }

    /// Counts one row less of a source.
    fn release_source(&mut self, source: Option<Incarnation>) {
        if let Some(source) = source
            && let Some(count) = self.rows_by_source.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.rows_by_source.remove(&source);
            }
        }
    }

    fn remove(&mut self, id: Incarnation) {
        if let Some(row) = self.rows.remove(&id) {
            if !row.gone {
                self.digest = self.digest.wrapping_sub(hash(id));
            }
            self.release_source(row.source);
        }
        self.digests.remove(&id);
        self.rumours.retain(|rumours| rumours.id != id);
    }

    /// Spreads a change of a row. Each node has one rumour at most.
    fn spread(&mut self, id: Incarnation, sends: u8, is_short: bool) {
        match self.rumours.iter_mut().find(|rumour| rumour.id == id) {
            Some(rumour) => {
                rumour.sends_left = rumour.sends_left.max(sends);
                rumour.is_short &= is_short;
            }
            None => self.rumours.push_back(Rumour { id, sends_left: sends, is_short }),
        }
    }
}

fn hash(id: Incarnation) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&id.0.to_le_bytes())
}

/// The half of a hash that does not choose the bucket.
fn short_hash(hash: u64) -> u32 {
    (hash >> 32) as u32
}
