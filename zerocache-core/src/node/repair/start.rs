//! From the start of a node until it is in sync: the copy from one source, and catching up.
//!
//! A node receives writes as soon as its peers know it. What they had before it copies from one of them,
//! the hottest entries of each part first, and puts each at the cold end of its own: the order stays,
//! and what does not fit is the coldest. Then it catches up by a round with the source and each local
//! peer (contract section 3).

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::{Asked, Effect, Node};
use crate::{
    cluster::Member,
    key::PARTS,
    node::{Call, CallFailure, CallId, Event},
    store::{LockFamily, Place, Stretch},
    time::{Instant, Now},
    version::Incarnation,
    wire::{Age, NodeState, Parcel, Request, Response},
};

/// A local peer that has not introduced itself for this part of the longest warming cannot reach this
/// node: what it writes comes by repair. A twelfth: 5 s of the usual minute.
const INTRODUCED_PART: u64 = 12;

/// How long a page of a copy may take, in milliseconds.
const PAGE_TIMEOUT_MS: u64 = 5_000;

/// Most pages under way.
const PAGES_MAX: usize = 4;

/// A source that is busy is asked again after this, in milliseconds.
const BUSY_MS: u64 = 250;

/// After this many answers in a row that brought nothing another source is tried.
const FAILURES_MAX: u32 = 20;

/// With nobody to copy from for this long, but others that start and have something, a node is in sync
/// with what it has, in milliseconds.
const ALONE_MS: u64 = 3_000;

/// How far a node that starts has come.
#[derive(Debug, Default)]
pub(in crate::node) enum Start {
    /// It looks for its peers.
    #[default]
    Joining,
    /// It knows its peers, and nobody in sync has anything.
    Alone { since: Instant },
    /// It copies.
    Copying(Box<Copying>),
    /// Its entries of before are being read.
    Restoring,
    /// It has everything that it gets, and catches up with what came since.
    Done { since: Instant },
}

impl Start {
    /// Whether others can copy from this node.
    pub(in crate::node) fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }

    /// Takes a copy under way out, to go on with it or not.
    fn take_copying(&mut self) -> Option<Box<Copying>> {
        match core::mem::take(self) {
            Self::Copying(copying) => Some(copying),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// A copy under way.
#[derive(Debug)]
pub(in crate::node) struct Copying {
    source: Incarnation,
    far: bool,
    /// What is to be asked for, one page of each part at a time.
    due: VecDeque<Section>,
    calls: BTreeMap<CallId, Section>,
    /// Where the source's counter stood at the first page.
    since: Option<u32>,
    /// Whether this is the second pass, over what was read at the source during the first.
    is_second: bool,
    waits_until: Instant,
    /// Answers in a row that brought nothing.
    failures: u32,
    /// The first second of version of which the source knows everything.
    knows_from: u64,
    /// Who could not be copied from.
    failed: Vec<Incarnation>,
}

/// Parts of which the same is to be copied.
#[derive(Clone, Copy, Debug)]
struct Section {
    part: u8,
    last: u8,
    stretch: Stretch,
}

/// All parts, in as many sections as pages are under way.
fn sections(stretch: Stretch) -> VecDeque<Section> {
    let each = PARTS / PAGES_MAX;
    let section =
        |at: usize| Section { part: (at * each) as u8, last: ((at + 1) * each - 1) as u8, stretch };
    (0..PAGES_MAX).map(section).collect()
}

#[cfg(test)]
impl Copying {
    /// Whom it copies from.
    pub(in crate::node) fn source(&self) -> Incarnation {
        self.source
    }
}

impl Copying {
    /// An answer was about the first `covered` parts of a section, and up to `more` about the next.
    fn go_on_from(&mut self, section: Section, covered: u64, more: Option<Place>) {
        let Section { part, last, stretch } = section;
        let at = u64::from(part).saturating_add(covered).min(PARTS as u64) as u8;
        let rest = match more {
            Some(place) if at <= last => {
                // The rest of this part has its turn again after all others.
                let stretch = Stretch { colder_than: Some(place), ..stretch };
                self.due.push_back(Section { part: at, last: at, stretch });
                at + 1
            }
            _ => at,
        };
        if rest <= last {
            let stretch = Stretch { colder_than: None, ..stretch };
            self.due.push_front(Section { part: rest, last, stretch });
        }
    }
}

impl<L: LockFamily> Node<L> {
    /// Takes the next step towards being in sync; whether the node is.
    pub(in crate::node) fn come_up(&mut self, now: Now, out: &mut Vec<Effect>) -> bool {
        match self.repair.start {
            Start::Joining | Start::Alone { .. } => {
                if !self.has_joined(now) {
                    return false;
                }
                self.set_clock(now, out);
                self.choose_source(now, Vec::new(), out);
                self.repair.start.is_done() && self.has_caught_up(now.mono)
            }
            Start::Copying(_) | Start::Restoring => false,
            Start::Done { since } => self.has_caught_up(since),
        }
    }

    /// Whether everybody who was found has been talked to.
    fn has_joined(&self, now: Now) -> bool {
        let mut peers = self.view.writable_in(&self.config.info.region);
        let late_ms = self.config.warm_max_ms / INTRODUCED_PART;
        let late = now.mono.since_ms(self.warm_since) >= late_ms;
        let introduced = late || peers.all(|member| member.greeted);
        self.settled && introduced && !self.view.candidates().has_fresh()
    }

    /// Begins the start again: what was here is no longer to be relied on.
    pub(in crate::node) fn start_again(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.state == NodeState::Leaving {
            return;
        }
        self.repair.start = Start::Joining;
        self.repair.starts_again = true;
        self.end_leases(out);
        self.warm(now, out);
    }

    /// The process stood still for `gap_ms`: what came meanwhile it may lack.
    pub(in crate::node) fn thawed(&mut self, now: Now, gap_ms: u64, out: &mut Vec<Effect>) {
        for member in self.view.members_mut() {
            // The silence was this node's own.
            member.heard = member.heard.plus_ms(gap_ms);
            member.answered = member.answered.plus_ms(gap_ms);
        }
        self.resumes = self.state != NodeState::Leaving;
        if self.state != NodeState::InSync {
            return;
        }
        if self.repair.start.is_done() {
            self.repair.start = Start::Done { since: now.mono };
        }
        let partners: Vec<_> = self.repair.peers.keys().copied().collect();
        for partner in partners {
            self.partner_up(now, partner);
        }
        self.warm(now, out);
    }

    fn warm(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.warm_since = now.mono;
        self.misses_are_final = false;
        // What it lacks it cannot tell either.
        self.feed.lose();
        if self.state == NodeState::InSync {
            self.set_state(NodeState::Warming, out);
        }
        self.repair_by(now.mono);
    }

    /// Chooses whom to copy from: a local node before others, then the one with most.
    fn choose_source(&mut self, now: Now, failed: Vec<Incarnation>, out: &mut Vec<Effect>) {
        let own = &self.config.info.region;
        // What members said of themselves was long ago, for a node that starts again.
        let has_some = |member: &&Member| {
            self.is_partner(member) && (member.entries > 0 || self.repair.starts_again)
        };
        let ready = |member: &&Member| {
            member.info.state == NodeState::InSync && !failed.contains(&member.info.incarnation)
        };
        let sources = self.view.members().filter(has_some).filter(ready);
        let nearest = |member: &&Member| {
            let regions = self.ranking.regions();
            let rank = regions.iter().position(|region| *region == member.info.region);
            (member.info.region != *own, rank, core::cmp::Reverse(member.entries))
        };
        if let Some(source) = sources.min_by_key(nearest) {
            let far = source.info.region != *own;
            let source = source.info.incarnation;
            self.repair.start = Start::Copying(Box::new(Copying {
                source,
                far,
                due: sections(Stretch::default()),
                calls: BTreeMap::new(),
                since: None,
                is_second: false,
                waits_until: now.mono,
                failures: 0,
                knows_from: 0,
                failed,
            }));
            return self.go_on_copying(now, out);
        }
        let others =
            self.view.members().any(|m| has_some(&m) && m.info.state != NodeState::Leaving);
        let again = !failed.is_empty() && self.view.members().any(|m| self.is_partner(m));
        let since = match self.repair.start {
            Start::Alone { since } => since,
            _ => now.mono,
        };
        // Whoever could not be copied from may be again; and others may come up soon.
        let hopeless = now.mono.since_ms(since) >= ALONE_MS;
        if again || (others && !hopeless && self.store.count() == 0) {
            self.repair.start = Start::Alone { since };
            return self.repair_by(now.mono.plus_ms(BUSY_MS));
        }
        if self.config.has_snapshot && self.store.count() == 0 {
            self.repair.start = Start::Restoring;
            return out.push(Effect::Restore);
        }
        self.started_with_all(now);
    }

    fn started_with_all(&mut self, now: Now) {
        self.repair.start = Start::Done { since: now.mono };
        self.repair.starts_again = false;
        self.repair_by(now.mono);
    }

    /// Whether what it knows is whole, as far as others had it when it started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.repair.start.is_done()
    }

    /// Asks for the next pages of a copy.
    pub(super) fn go_on_copying(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(mut copying) = self.repair.start.take_copying() else { return };
        let source = self.view.member(copying.source).filter(|m| self.is_partner(m));
        let Some(to) = source.map(|member| (member.address, Some(copying.source))) else {
            return self.source_failed(now, *copying, out);
        };
        while copying.calls.len() < PAGES_MAX && !copying.due.is_empty() {
            let free = self.repair.busy_until[usize::from(copying.far)].max(copying.waits_until);
            if free > now.mono {
                self.repair_by(free);
                break;
            }
            // From the front: every part has its turn.
            let Some(section) = copying.due.pop_front() else { break };
            let Section { part, last, stretch } = section;
            let purpose = Call::Repair { member: copying.source, asked: Asked::Copy };
            let request = Request::Copy { part, last, stretch };
            let call = self.call(purpose, to, request, PAGE_TIMEOUT_MS, out);
            copying.calls.insert(call, section);
        }
        if !copying.due.is_empty() || !copying.calls.is_empty() {
            self.repair.start = Start::Copying(copying);
            return;
        }
        match copying.since {
            Some(tick) if !copying.is_second => {
                let stretch = Stretch { since: Some(tick), ..Stretch::default() };
                copying.is_second = true;
                copying.due = sections(stretch);
                self.repair.start = Start::Copying(copying);
                self.go_on_copying(now, out);
            }
            _ => {
                let entries = self.repair.counts.copied;
                let source = copying.source;
                // Of what was before nobody here knows more than the source did.
                self.store.forget_before(copying.knows_from);
                out.push(Effect::Event(Event::Copied { source, entries }));
                self.started_with_all(now);
                self.partner_up(now, source);
            }
        }
    }

    pub(super) fn copy_answered(
        &mut self,
        now: Now,
        call: CallId,
        id: Incarnation,
        result: Result<Response, CallFailure>,
        out: &mut Vec<Effect>,
    ) {
        let Start::Copying(copying) = &mut self.repair.start else { return };
        let Some(section) = copying.calls.remove(&call).filter(|_| copying.source == id) else {
            return;
        };
        match result {
            Ok(Response::Records { parcels, covered, more, tick, from_second }) => {
                copying.failures = 0;
                copying.knows_from = copying.knows_from.max(from_second);
                if !copying.is_second {
                    // Answers may overtake each other: the lowest counts.
                    let earlier = |since: u32| tick.wrapping_sub(since) < 1 << 31;
                    let since = copying.since.filter(|since| earlier(*since));
                    copying.since = Some(since.unwrap_or(tick));
                }
                copying.go_on_from(section, covered, more);
                let far = copying.far;
                let bytes = self.adopt_parcels(now, parcels);
                self.repair.spend(now.mono, far, bytes);
            }
            _ if copying.failures < FAILURES_MAX => {
                copying.failures += 1;
                copying.due.push_back(section);
                copying.waits_until = now.mono.plus_ms(BUSY_MS);
            }
            _ => {
                let Some(copying) = self.repair.start.take_copying() else { return };
                return self.source_failed(now, *copying, out);
            }
        }
        self.go_on_copying(now, out);
    }

    /// Takes over entries of a copy; returns how many bytes they carried.
    fn adopt_parcels(&mut self, now: Now, parcels: Vec<Parcel>) -> u64 {
        self.repair.counts.copied += parcels.len() as u64;
        let mut bytes = 0;
        for parcel in parcels {
            bytes += parcel.payload_bytes() as u64;
            self.adopt(now, parcel.into_known(now.mono));
        }
        bytes
    }

    /// The source of a copy is gone: another one, or none.
    fn source_failed(&mut self, now: Now, mut copying: Copying, out: &mut Vec<Effect>) {
        copying.failed.push(copying.source);
        self.choose_source(now, copying.failed, out);
    }

    /// Everything of the earlier life is here, or there was nothing that could be used.
    pub(in crate::node) fn restored(&mut self, now: Now, memory: Option<Memory>) {
        if let Some(memory) = memory {
            self.repair.inherited_ms = memory.lived_ms.saturating_add(memory.away_ms);
            let knew_ms = memory.away_ms.saturating_add(memory.retention_ms);
            self.store.forget_before(now.wall_ms.saturating_sub(knew_ms) / 1_000 + 1);
            self.repair.ages.inherit(&memory.ages, memory.away_ms, now.mono);
        }
        if matches!(self.repair.start, Start::Restoring) {
            self.started_with_all(now);
        }
    }

    /// What a later life of this node has to know besides its entries.
    #[must_use]
    pub fn memory(&self, now: Now) -> Memory {
        let now = self.clocks.adjust(now);
        Memory {
            lived_ms: self.lived_ms(now),
            away_ms: 0,
            retention_ms: self.store.retention_ms(now),
            ages: self.repair.ages.told(now.mono),
        }
    }
}

/// What a node knew of its own knowledge in an earlier life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// For how long it had lived, in milliseconds.
    pub lived_ms: u64,
    /// How long ago that was, in milliseconds.
    pub away_ms: u64,
    /// How long it kept traces, in milliseconds.
    pub retention_ms: u64,
    /// When it had last had everything that others knew, as it was then.
    pub ages: Vec<Age>,
}
