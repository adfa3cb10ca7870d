//! From the start of a node until it is in sync: the copy from one source, and catching up.
//!
//! A node receives writes as soon as its peers know it. What they had before it copies from one of them, the
//! hottest entries of each shard first, and puts each at the cold end of its own: the order is kept, and
//! what does not fit is the coldest. Then it catches up by a round with the source and each local peer
//! (contract section 3).
//!
//! A source that goes away in the middle is a *missing source*: as long as it may come back, the copy waits
//! for it or continues from another one, and until it is complete none of the node's misses is
//! authoritative. A node that finds out later that others have what its rounds do not reach
//! (`sync_ages.rs`) copies again, and serves meanwhile.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::{CopySource, Repair, RepairCall, is_partner, persisted::Restored, repairs};
use crate::{
    call::CallResult,
    cluster::{Member, View},
    key::SHARDS,
    node::{
        CallId, Effect, Event,
        local::{CallPurpose, Context, Local},
    },
    store::{Backend, CopyCursor, CopyRange},
    time::{Instant, Now},
    version::Incarnation,
    wire::{FetchedItem, NodeState, Request, Response},
};

/// How long a page of a copy may take, in milliseconds.
const PAGE_TIMEOUT_MS: u64 = 5_000;

/// The most pages in flight.
const PAGES_MAX: usize = 4;

/// The pause before a busy source is asked again, in milliseconds.
const BUSY_MS: u64 = 250;

/// After this many responses in a row that brought nothing another source is tried.
const FAILURES_MAX: u32 = 20;

/// The most missing sources that are remembered.
const MISSING_SOURCES_MAX: usize = 16;

/// The most passes of a copy: a second one over what was read at the source during the first, and further ones, each
/// shorter than the one before, while a shard takes several pages, between which entries may move.
const PASSES_MAX: u8 = 6;

/// If for this long no node can be copied from, but others that start have entries, a node is in sync with
/// what it has, in milliseconds.
const NO_SOURCE_MS: u64 = 3_000;

/// How far the start of a node has come.
#[derive(Debug, Default)]
pub(in crate::node) enum Start {
    /// It looks for its peers.
    #[default]
    Joining,
    /// It knows its peers, and none can be copied from: none is in sync, or not any more.
    NoSource { since: Instant, interrupted: Option<Box<Copying>> },
    /// It copies.
    Copying(Box<Copying>),
    /// It reads the entries of an earlier process.
    Restoring,
    /// It has everything that it can get, and catches up with what was written since.
    Done { since: Instant },
}

impl Start {
    /// Whether others can copy from this node.
    pub(in crate::node) fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }

    /// Takes a copy out of this state, to continue it or not.
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

/// A copy in progress.
#[derive(Debug)]
pub(in crate::node) struct Copying {
    source: Incarnation,
    began: Instant,
    is_remote: bool,
    /// What is to be requested, one page of each shard at a time.
    due: VecDeque<Section>,
    calls: BTreeMap<CallId, Section>,
    /// The source's counter at the first page of this pass.
    since: Option<u32>,
    /// The number of this pass; all but the first are over what was read at the source during the one before.
    pass: u8,
    /// A shard took several pages in this pass.
    has_rest: bool,
    waits_until: Instant,
    /// Responses in a row that brought nothing.
    failures: u32,
    /// The shards, one bit each, that came completely in one response.
    complete: u64,
    /// Whether the node was in sync before.
    is_again: bool,
    /// The first second of which the source knows all versions.
    knows_from: u64,
    /// The nodes that could not be copied from.
    failed: Vec<Incarnation>,
}

/// Consecutive shards of which the same range is to be copied.
#[derive(Clone, Copy, Debug)]
struct Section {
    first: u8,
    last: u8,
    range: CopyRange,
}

/// The shards that are not `complete`, in at least as many sections as pages are in flight.
fn sections(complete: u64, range: CopyRange) -> VecDeque<Section> {
    let each = SHARDS / PAGES_MAX;
    let mut sections: VecDeque<Section> = VecDeque::new();
    for shard in (0..SHARDS).filter(|shard| complete >> shard & 1 == 0) {
        match sections.back_mut() {
            Some(section) if usize::from(section.last) + 1 == shard && shard % each != 0 => {
                section.last = shard as u8;
            }
            _ => sections.push_back(Section { first: shard as u8, last: shard as u8, range }),
        }
    }
    sections
}

#[cfg(test)]
impl Copying {
    /// The node that is copied from.
    pub(in crate::node) fn source(&self) -> Incarnation {
        self.source
    }
}

impl Copying {
    /// A copy from `source` that has not begun.
    fn new(source: &Member, own_region: &str, now: Instant) -> Self {
        Self {
            source: source.info.incarnation,
            began: now,
            is_remote: source.info.region != own_region,
            due: sections(0, CopyRange::default()),
            calls: BTreeMap::new(),
            since: None,
            pass: 1,
            has_rest: false,
            waits_until: now,
            failures: 0,
            complete: 0,
            is_again: false,
            knows_from: 0,
            failed: Vec::new(),
        }
    }

    /// Continues the copy from `source`. The same one continues where it was; cursors belong to one store,
    /// so another one is asked for all shards that did not come in one response.
    fn resumed_from(self, source: &Member, own_region: &str, now: Instant) -> Self {
        if source.info.incarnation == self.source {
            return Self { failures: 0, waits_until: now.plus_ms(BUSY_MS), ..self };
        }
        let due = sections(self.complete, CopyRange::default());
        let Self { complete, knows_from, failed, .. } = self;
        Self { due, complete, knows_from, failed, ..Self::new(source, own_region, now) }
    }

    /// Interrupts the copy: what was requested is due again.
    fn interrupt(&mut self) {
        self.due.extend(core::mem::take(&mut self.calls).into_values());
        if !self.failed.contains(&self.source) {
            self.failed.push(self.source);
        }
    }

    /// Notes that a page held the first `covered` shards of a section, and the next one up to `more`.
    fn page_received(&mut self, section: Section, covered: u64, more: Option<CopyCursor>) {
        let Section { first, last, range } = section;
        let at = u64::from(first).saturating_add(covered).min(SHARDS as u64) as u8;
        // A shard that took several pages may lack what was read at the source meanwhile.
        let from_start = first + u8::from(range.colder_than.is_some());
        if self.pass == 1 {
            (from_start..at).for_each(|shard| self.complete |= 1 << shard);
        }
        let rest = match more {
            Some(cursor) if at <= last => {
                // The rest of this shard follows after all others.
                let range = CopyRange { colder_than: Some(cursor), ..range };
                self.has_rest = true;
                self.due.push_back(Section { first: at, last: at, range });
                at + 1
            }
            _ => at,
        };
        if rest <= last {
            let range = CopyRange { colder_than: None, ..range };
            self.due.push_front(Section { first: rest, last, range });
        }
    }
}

impl Repair {
    /// Whether the data is complete, as far as others had it when the node started.
    pub(in crate::node) fn has_all_data(&self) -> bool {
        self.start.is_done()
    }

    /// Moves what is known of the source with the clock.
    pub(in crate::node) fn clock_moved(&mut self, by_ms: i64) {
        if let Start::Copying(copying) | Start::NoSource { interrupted: Some(copying), .. } =
            &mut self.start
            && copying.knows_from > 0
        {
            // Rather a second more is forgotten than one less.
            let seconds = by_ms.div_euclid(1_000).saturating_add(1);
            copying.knows_from = copying.knows_from.saturating_add_signed(seconds);
        }
    }

    /// Has the node catch up once more with what was written while the process was suspended.
    pub(in crate::node) fn catch_up_again(&mut self, local: &mut Local, view: &View, now: Now) {
        if self.start.is_done() {
            self.start = Start::Done { since: now.mono };
        }
        self.restart_rounds(local, view, now);
    }

    /// Chooses the node to copy from: one that has entries before one without, one that has not failed before
    /// one that has, a local one before others, then the one with most entries.
    pub(in crate::node) fn choose_source<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
    ) {
        if self.ask_to_restore(cx) {
            self.start = Start::Restoring;
            return;
        }
        let now = cx.now.mono;
        let (since, interrupted) = match core::mem::take(&mut self.start) {
            Start::NoSource { since, interrupted } => (since, interrupted),
            _ => (now, None),
        };
        let own_region = cx.local.region();
        let failed = interrupted.as_ref().map_or(&[][..], |copying| &copying.failed);
        let distance = |member: &&Member| {
            let regions = view.regions();
            let rank = regions.iter().position(|region| *region == member.info.region);
            let has_failed = failed.contains(&member.info.incarnation);
            let entries = core::cmp::Reverse(member.entries);
            (member.entries == 0, has_failed, member.info.region != own_region, rank, entries)
        };
        let is_ready = |member: &&Member| {
            is_partner(cx.local, member) && member.info.state == NodeState::InSync
        };
        if let Some(source) = view.members().filter(is_ready).min_by_key(distance) {
            if self.restored == Restored::Everything {
                return self.start_complete(cx.local, cx.now);
            }
            let copying = match interrupted {
                Some(copying) => copying.resumed_from(source, own_region, now),
                None => Copying::new(source, own_region, now),
            };
            self.miss_source(copying.source);
            self.unshared_since = None;
            self.start = Start::Copying(Box::new(copying));
            return self.continue_copy(cx, view);
        }
        let store = &cx.replica.store;
        let may_wait = store.entry_count() == 0 && now.since_ms(since) < NO_SOURCE_MS;
        let has_entries = |member: &Member| is_partner(cx.local, member) && member.entries > 0;
        if self.misses_source(view)
            || has_silent_source(cx.local, view)
            || (may_wait && view.members().any(has_entries))
        {
            self.start = Start::NoSource { since, interrupted };
            return self.wake_by(cx.local, now.plus_ms(BUSY_MS));
        }
        self.start_complete(cx.local, cx.now);
    }

    /// Notes that the node lacks what `id` has, until a copy is complete.
    pub(super) fn miss_source(&mut self, id: Incarnation) {
        let missing = &mut self.missing_sources;
        if !missing.contains(&id) && missing.len() < MISSING_SOURCES_MAX {
            missing.push(id);
        }
    }

    /// Whether a node that may come back has what this one lacks. One that exited or left does not count.
    pub(super) fn misses_source(&self, view: &View) -> bool {
        let mut missing = self.missing_sources.iter().filter_map(|id| view.member(*id));
        missing.any(|member| !member.has_exited && member.info.state != NodeState::Leaving)
    }

    pub(super) fn start_complete(&mut self, local: &mut Local, now: Now) {
        self.start = Start::Done { since: now.mono };
        self.missing_sources.clear();
        self.wake_by(local, now.mono);
    }

    /// Copies what `source` has and this node, although it was in sync, lacks. It serves meanwhile.
    pub(super) fn copy_again<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        source: Incarnation,
    ) {
        let Some(source) = view.member(source) else { return };
        if self.start.is_done() {
            let now = cx.now.mono;
            let copying = Copying::new(source, cx.local.region(), now);
            self.unshared_since = None;
            self.start = Start::Copying(Box::new(Copying { is_again: true, ..copying }));
            self.continue_copy(cx, view);
        }
    }

    /// Requests the next pages of a copy.
    pub(super) fn continue_copy<B: Backend>(&mut self, cx: &mut Context<'_, B>, view: &View) {
        let Some(mut copying) = self.start.take_copying() else { return };
        let source = view.member(copying.source).filter(|m| is_partner(cx.local, m));
        let Some(to) = source.map(|member| (member.address, Some(copying.source))) else {
            return self.source_failed(cx, copying);
        };
        while copying.calls.len() < PAGES_MAX && !copying.due.is_empty() {
            let used_until = self.bandwidth_used_until[usize::from(copying.is_remote)];
            let free = used_until.max(copying.waits_until);
            if free > cx.now.mono {
                self.wake_by(cx.local, free);
                break;
            }
            // From the front, so that every shard is served.
            let Some(section) = copying.due.pop_front() else { break };
            let Section { first, last, range } = section;
            let purpose = CallPurpose::Repair { member: copying.source, call: RepairCall::Copy };
            let (first_shard, last_shard) = (first, last);
            let owned = !view.placement().is_everyone();
            let request = Request::Copy { first_shard, last_shard, range, owned };
            let call = cx.local.call(purpose, to, request, PAGE_TIMEOUT_MS, cx.out);
            copying.calls.insert(call, section);
        }
        if !copying.due.is_empty() || !copying.calls.is_empty() {
            self.start = Start::Copying(copying);
            return;
        }
        let is_last = copying.pass > 1 && !copying.has_rest || copying.pass >= PASSES_MAX;
        match copying.since.take() {
            Some(tick) if !is_last => {
                let range = CopyRange { since: Some(tick), ..CopyRange::default() };
                (copying.pass, copying.has_rest) = (copying.pass + 1, false);
                copying.due = sections(0, range);
                self.start = Start::Copying(copying);
                self.continue_copy(cx, view);
            }
            _ => self.copy_complete(cx, view, &copying),
        }
    }

    /// Completes a copy.
    fn copy_complete<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        copying: &Copying,
    ) {
        let (source, entries) = (copying.source, self.counts.entries_copied);
        self.lacks_values &= copying.is_remote;
        // Copied data is no more complete than its source.
        cx.replica.store.forget_before(copying.knows_from);
        cx.out.push(Effect::Event(Event::CopyComplete { source, entries }));
        let (next, began) = (cx.now.mono, copying.began);
        self.copy_source = Some(CopySource { id: source, began, next });
        self.start_complete(cx.local, cx.now);
        self.peer_up(cx.local, view, cx.now, source);
    }

    /// Handles the response to a page of a copy.
    pub(super) fn page_received<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        call: CallId,
        id: Incarnation,
        result: CallResult,
    ) {
        let Start::Copying(copying) = &mut self.start else { return };
        let Some(section) = copying.calls.remove(&call).filter(|_| copying.source == id) else {
            return;
        };
        match result {
            // A node with another time is no source, whatever was thought of its clock: what it forgot
            // would count as forgotten up to then.
            Ok(Response::Items { from_second, .. })
                if !cx.local.clocks.is_present(cx.now, from_second) =>
            {
                let Some(copying) = self.start.take_copying() else { return };
                return self.source_failed(cx, copying);
            }
            Ok(Response::Items { items, covered, more, tick, from_second }) => {
                copying.failures = 0;
                let member = view.member(id);
                let clocks = &cx.local.clocks;
                let from = member.map_or(from_second, |m| clocks.second_of(m, from_second));
                copying.knows_from = copying.knows_from.max(from);
                // Responses may overtake each other: the lowest counts.
                let is_earlier = |since: u32| tick.wrapping_sub(since) < 1 << 31;
                let since = copying.since.filter(|since| is_earlier(*since));
                copying.since = Some(since.unwrap_or(tick));
                copying.page_received(section, covered, more);
                let is_remote = copying.is_remote;
                let bytes = self.import_items(cx, items);
                self.charge_bandwidth(cx.now.mono, is_remote, bytes);
            }
            _ if copying.failures < FAILURES_MAX => {
                copying.failures += 1;
                copying.due.push_back(section);
                copying.waits_until = cx.now.mono.plus_ms(BUSY_MS);
            }
            _ => {
                let Some(copying) = self.start.take_copying() else { return };
                return self.source_failed(cx, copying);
            }
        }
        self.continue_copy(cx, view);
    }

    /// Imports the entries of a copy; returns their bytes.
    fn import_items<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        items: Vec<FetchedItem>,
    ) -> u64 {
        self.counts.entries_copied += items.len() as u64;
        let mut bytes = 0;
        for item in items {
            bytes += item.payload_bytes() as u64;
            cx.replica.import(cx.now, item.into_stored(cx.now.mono));
        }
        bytes
    }

    /// Interrupts the copy: the source is silent or gone, and the copy continues from this or another one
    /// later. A node that was in sync continues with its rounds: one of these says from which.
    fn source_failed<B: Backend>(&mut self, cx: &mut Context<'_, B>, mut copying: Box<Copying>) {
        let since = cx.now.mono;
        copying.interrupt();
        self.start = match copying.is_again {
            true => Start::Done { since },
            false => Start::NoSource { since, interrupted: Some(copying) },
        };
        self.wake_by(cx.local, since.plus_ms(BUSY_MS));
    }
}

/// Whether a member with entries that was in sync has been silent since.
fn has_silent_source(local: &Local, view: &View) -> bool {
    view.members().any(|member| {
        repairs(local, member)
            && (member.entries > 0 && member.info.state == NodeState::InSync)
            && !member.has_exited
    })
}
