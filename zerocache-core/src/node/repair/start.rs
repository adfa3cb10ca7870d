//! From the start of a node until it is in sync: the copy from one source, and catching up.
//!
//! A node receives writes as soon as its peers know it. What they had before it copies from one of them,
//! the hottest entries of each shard first, and puts each at the cold end of its own: the order stays,
//! and what does not fit is the coldest. Then it catches up by a round with the source and each local
//! peer (contract section 3).
//!
//! A source that goes in the middle is *owed*: as long as it may come back, the copy waits for it or goes
//! on from another one, and until it is over the node says of no miss that it is final. A node that finds
//! out later that others have what its rounds do not reach (`ages.rs`) copies again, and serves meanwhile.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::{Asked, Base, Effect, Node};
use crate::{
    call::CallResult,
    cluster::{Member, PLACEMENT, Placement},
    key::SHARDS,
    node::{Call, CallId, Clocks, Event},
    store::{Backend, CopyCursor, CopyRange},
    time::{Instant, Now},
    version::Incarnation,
    wire::{FetchedItem, NodeState, Request, Response},
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

/// Most nodes that are remembered as owed: so many sources one after the other are enough to wait for.
const OWED_MAX: usize = 16;

/// With nobody to copy from for this long, but others that start and have something, a node is in sync
/// with what it has, in milliseconds.
const ALONE_MS: u64 = 3_000;

/// How far a node that starts has come.
#[derive(Debug, Default)]
pub(in crate::node) enum Start {
    /// It looks for its peers.
    #[default]
    Joining,
    /// It knows its peers, and nobody can be copied from: nobody in sync is there, or not any more.
    Alone { since: Instant, cut: Option<Box<Copying>> },
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

    /// The clock moves by `by_ms`, and with it what is known of the source.
    pub(in crate::node) fn redate(&mut self, by_ms: i64) {
        if let Self::Copying(copying) | Self::Alone { cut: Some(copying), .. } = self
            && copying.knows_from > 0
        {
            // Rather a second more is forgotten than one less.
            let seconds = by_ms.div_euclid(1_000).saturating_add(1);
            copying.knows_from = copying.knows_from.saturating_add_signed(seconds);
        }
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
    /// What is to be asked for, one page of each shard at a time.
    due: VecDeque<Section>,
    calls: BTreeMap<CallId, Section>,
    /// Where the source's counter stood at the first page.
    since: Option<u32>,
    /// Whether this is the second pass, over what was read at the source during the first.
    is_second: bool,
    waits_until: Instant,
    /// Answers in a row that brought nothing.
    failures: u32,
    /// The shards, one bit each, of which all came in one answer.
    whole: u64,
    /// Whether the node was in sync before.
    is_again: bool,
    /// The first second of version of which the source knows everything.
    knows_from: u64,
    /// Who could not be copied from.
    failed: Vec<Incarnation>,
}

/// Parts of which the same is to be copied.
#[derive(Clone, Copy, Debug)]
struct Section {
    shard: u8,
    last: u8,
    range: CopyRange,
}

/// The shards that are not `whole`, in as many sections as pages are under way, or more.
fn sections(whole: u64, range: CopyRange) -> VecDeque<Section> {
    let each = SHARDS / PAGES_MAX;
    let mut sections: VecDeque<Section> = VecDeque::new();
    for shard in (0..SHARDS).filter(|shard| whole >> shard & 1 == 0) {
        match sections.back_mut() {
            Some(last) if usize::from(last.last) + 1 == shard && shard % each != 0 => {
                last.last = shard as u8;
            }
            _ => sections.push_back(Section { shard: shard as u8, last: shard as u8, range }),
        }
    }
    sections
}

#[cfg(test)]
impl Copying {
    /// Whom it copies from.
    pub(in crate::node) fn source(&self) -> Incarnation {
        self.source
    }
}

impl Copying {
    /// A copy from `source` that has not begun.
    fn new(source: &Member, own: &str, now: Instant) -> Self {
        Self {
            source: source.info.incarnation,
            far: source.info.region != own,
            due: sections(0, CopyRange::default()),
            calls: BTreeMap::new(),
            since: None,
            is_second: false,
            waits_until: now,
            failures: 0,
            whole: 0,
            is_again: false,
            knows_from: 0,
            failed: Vec::new(),
        }
    }

    /// The copy goes on from `source`. From the same one it goes on where it was; places are of one store,
    /// so that from another one all shards are asked for that did not come in one answer.
    fn resumed_from(self, source: &Member, own: &str, now: Instant) -> Self {
        if source.info.incarnation == self.source {
            return Self { failures: 0, waits_until: now.plus_ms(BUSY_MS), ..self };
        }
        let due = sections(self.whole, CopyRange::default());
        let Self { whole, knows_from, failed, .. } = self;
        Self { due, whole, knows_from, failed, ..Self::new(source, own, now) }
    }

    /// Nothing more comes from the source for now: what it was asked for is due again.
    fn interrupt(&mut self) {
        self.due.extend(core::mem::take(&mut self.calls).into_values());
        if !self.failed.contains(&self.source) {
            self.failed.push(self.source);
        }
    }

    /// An answer was about the first `covered` shards of a section, and up to `more` about the next.
    fn go_on_from(&mut self, section: Section, covered: u64, more: Option<CopyCursor>) {
        let Section { shard, last, range } = section;
        let at = u64::from(shard).saturating_add(covered).min(SHARDS as u64) as u8;
        // What was read meanwhile at the source may be missing from a shard that took several.
        let from_start = shard + u8::from(range.colder_than.is_some());
        if !self.is_second {
            (from_start..at).for_each(|shard| self.whole |= 1 << shard);
        }
        let rest = match more {
            Some(place) if at <= last => {
                // The rest of this shard has its turn again after all others.
                let range = CopyRange { colder_than: Some(place), ..range };
                self.due.push_back(Section { shard: at, last: at, range });
                at + 1
            }
            _ => at,
        };
        if rest <= last {
            let range = CopyRange { colder_than: None, ..range };
            self.due.push_front(Section { shard: rest, last, range });
        }
    }
}

impl<B: Backend> Node<B> {
    /// Takes the next step towards being in sync. Returns the moment, by the clock as it is then, and
    /// whether the node is.
    pub(in crate::node) fn come_up(&mut self, now: Now, out: &mut Vec<Effect>) -> (Now, bool) {
        let mut now = now;
        let is_up = match &self.repair.start {
            Start::Joining | Start::Alone { .. } => {
                if !self.has_joined(now) {
                    return (now, false);
                }
                if self.state == NodeState::Warming {
                    now = self.set_clock(now, out);
                }
                self.choose_source(now, out);
                self.repair.start.is_done() && self.has_caught_up(now.mono)
            }
            Start::Copying(_) | Start::Restoring => false,
            Start::Done { since } => self.has_caught_up(*since),
        };
        (now, is_up)
    }

    /// Whether everybody who was found has been talked to.
    fn has_joined(&self, now: Now) -> bool {
        let mut peers = self.view.writable_in(&self.config.info.region);
        let delay_ms = self.config.warm_max_ms / INTRODUCED_PART;
        let late = now.mono.since_ms(self.warm_since) >= delay_ms;
        let introduced = late || peers.all(|member| member.greeted);
        self.settled && introduced && !self.view.candidates().has_fresh()
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
        self.misses_are_authoritative = false;
        // What it lacks it cannot tell either.
        self.feed.lose();
        if self.state == NodeState::InSync {
            self.set_state(NodeState::Warming, out);
        }
        self.repair_by(now.mono);
    }

    /// Chooses whom to copy from: who has something before who has nothing, who has not failed before who
    /// has, a local node before others, then the one with most.
    fn choose_source(&mut self, now: Now, out: &mut Vec<Effect>) {
        let (since, cut) = match core::mem::take(&mut self.repair.start) {
            Start::Alone { since, cut } => (since, cut),
            _ => (now.mono, None),
        };
        let own = &self.config.info.region;
        let failed = cut.as_ref().map_or(&[][..], |copying| &copying.failed);
        let nearest = |member: &&Member| {
            let regions = self.ranking.regions();
            let rank = regions.iter().position(|region| *region == member.info.region);
            let has_failed = failed.contains(&member.info.incarnation);
            let entries = core::cmp::Reverse(member.entries);
            (member.entries == 0, has_failed, member.info.region != *own, rank, entries)
        };
        let own_id = self.config.info.incarnation;
        let ready = |m: &&Member| {
            self.is_partner(m)
                && m.info.state == NodeState::InSync
                && PLACEMENT.covers(m.info.incarnation, own_id)
        };
        if let Some(source) = self.view.members().filter(ready).min_by_key(nearest) {
            let copying = match cut {
                Some(cut) => cut.resumed_from(source, own, now.mono),
                None => Copying::new(source, own, now.mono),
            };
            self.owe(copying.source);
            self.repair.start = Start::Copying(Box::new(copying));
            return self.go_on_copying(now, out);
        }
        let may_follow = self.store.entry_count() == 0 && now.mono.since_ms(since) < ALONE_MS;
        let starts = |member: &Member| self.is_partner(member) && member.entries > 0;
        if self.is_owed()
            || self.is_somebody_silent()
            || (may_follow && self.view.members().any(starts))
        {
            self.repair.start = Start::Alone { since, cut };
            return self.repair_by(now.mono.plus_ms(BUSY_MS));
        }
        if self.config.has_snapshot && self.store.entry_count() == 0 {
            self.repair.start = Start::Restoring;
            return out.push(Effect::Restore);
        }
        self.started_with_all(now);
    }

    /// The node lacks what `id` has, until a copy has come to its end.
    pub(super) fn owe(&mut self, id: Incarnation) {
        let owed = &mut self.repair.owed;
        if !owed.contains(&id) && owed.len() < OWED_MAX {
            owed.push(id);
        }
    }

    /// Whether somebody who may come back has what this node lacks. Who ended or left does not.
    pub(super) fn is_owed(&self) -> bool {
        let mut owed = self.repair.owed.iter().filter_map(|id| self.view.member(*id));
        owed.any(|member| !member.has_ended && member.info.state != NodeState::Leaving)
    }

    /// Whether somebody was met in sync, with entries, and has been silent since.
    fn is_somebody_silent(&self) -> bool {
        self.view.members().any(|member| {
            self.repairs(member)
                && (member.entries > 0 && member.info.state == NodeState::InSync)
                && !member.has_ended
        })
    }

    pub(super) fn started_with_all(&mut self, now: Now) {
        self.repair.start = Start::Done { since: now.mono };
        self.repair.owed.clear();
        self.repair_by(now.mono);
    }

    /// The node was in sync, and lacks what `source` has: copies it, and goes on meanwhile.
    pub(super) fn copy_again(&mut self, now: Now, source: Incarnation, out: &mut Vec<Effect>) {
        let Some(source) = self.view.member(source) else { return };
        if self.repair.start.is_done() {
            let copying = Copying::new(source, &self.config.info.region, now.mono);
            // What is left of what it alone knew is as new as its rounds reach.
            self.repair.alone_since = now.mono;
            self.repair.start = Start::Copying(Box::new(Copying { is_again: true, ..copying }));
            self.go_on_copying(now, out);
        }
    }

    /// Whether what it knows is whole, as far as others had it when it started.
    #[must_use]
    pub fn has_all_data(&self) -> bool {
        self.repair.start.is_done()
    }

    /// Asks for the next pages of a copy.
    pub(super) fn go_on_copying(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(mut copying) = self.repair.start.take_copying() else { return };
        let source = self.view.member(copying.source).filter(|m| self.is_partner(m));
        let Some(to) = source.map(|member| (member.address, Some(copying.source))) else {
            return self.source_failed(now, copying);
        };
        while copying.calls.len() < PAGES_MAX && !copying.due.is_empty() {
            let free = self.repair.busy_until[usize::from(copying.far)].max(copying.waits_until);
            if free > now.mono {
                self.repair_by(free);
                break;
            }
            // From the front: every shard has its turn.
            let Some(section) = copying.due.pop_front() else { break };
            let Section { shard, last, range } = section;
            let purpose = Call::Repair { member: copying.source, asked: Asked::Copy };
            let request = Request::Copy { first_shard: shard, last_shard: last, range };
            let call = self.call(purpose, to, request, PAGE_TIMEOUT_MS, out);
            copying.calls.insert(call, section);
        }
        if !copying.due.is_empty() || !copying.calls.is_empty() {
            self.repair.start = Start::Copying(copying);
            return;
        }
        match copying.since {
            Some(tick) if !copying.is_second => {
                let range = CopyRange { since: Some(tick), ..CopyRange::default() };
                copying.is_second = true;
                copying.due = sections(0, range);
                self.repair.start = Start::Copying(copying);
                self.go_on_copying(now, out);
            }
            _ => self.copied(now, &copying, out),
        }
    }

    /// A copy has come to its end.
    fn copied(&mut self, now: Now, copying: &Copying, out: &mut Vec<Effect>) {
        let (source, entries) = (copying.source, self.repair.counts.entries_copied);
        // Of what was before nobody here knows more than the source did.
        self.store.forget_before(copying.knows_from);
        out.push(Effect::Event(Event::CopyComplete { source, entries }));
        self.repair.base = Some(Base { source, next: now.mono });
        self.started_with_all(now);
        self.partner_up(now, source);
    }

    pub(super) fn copy_answered(
        &mut self,
        now: Now,
        call: CallId,
        id: Incarnation,
        result: CallResult,
        out: &mut Vec<Effect>,
    ) {
        let Start::Copying(copying) = &mut self.repair.start else { return };
        let Some(section) = copying.calls.remove(&call).filter(|_| copying.source == id) else {
            return;
        };
        match result {
            // Somebody of another time is no source, whatever was thought of its clock: what it forgot would
            // count as forgotten up to then.
            Ok(Response::Items { from_second, .. }) if !Clocks::is_of_now(now, from_second) => {
                let Some(copying) = self.repair.start.take_copying() else { return };
                return self.source_failed(now, copying);
            }
            Ok(Response::Items { items, covered, more, tick, from_second }) => {
                copying.failures = 0;
                let member = self.view.member(id);
                let from = member.map_or(from_second, |m| self.clocks.second_of(m, from_second));
                copying.knows_from = copying.knows_from.max(from);
                if !copying.is_second {
                    // Answers may overtake each other: the lowest counts.
                    let earlier = |since: u32| tick.wrapping_sub(since) < 1 << 31;
                    let since = copying.since.filter(|since| earlier(*since));
                    copying.since = Some(since.unwrap_or(tick));
                }
                copying.go_on_from(section, covered, more);
                let far = copying.far;
                let bytes = self.adopt_items(now, items);
                self.repair.spend(now.mono, far, bytes);
            }
            _ if copying.failures < FAILURES_MAX => {
                copying.failures += 1;
                copying.due.push_back(section);
                copying.waits_until = now.mono.plus_ms(BUSY_MS);
            }
            _ => {
                let Some(copying) = self.repair.start.take_copying() else { return };
                return self.source_failed(now, copying);
            }
        }
        self.go_on_copying(now, out);
    }

    /// Takes over entries of a copy; returns how many bytes they carried.
    fn adopt_items(&mut self, now: Now, items: Vec<FetchedItem>) -> u64 {
        self.repair.counts.entries_copied += items.len() as u64;
        let mut bytes = 0;
        for item in items {
            bytes += item.payload_bytes() as u64;
            self.adopt(now, item.into_stored(now.mono));
        }
        bytes
    }

    /// The source of a copy is silent or gone: it goes on from this or another one later. A node that was in
    /// sync goes on with its rounds: one of these says from whom.
    fn source_failed(&mut self, now: Now, mut copying: Box<Copying>) {
        copying.interrupt();
        self.repair.start = match copying.is_again {
            true => Start::Done { since: now.mono },
            false => Start::Alone { since: now.mono, cut: Some(copying) },
        };
        self.repair_by(now.mono.plus_ms(BUSY_MS));
    }
}
