//! Answers to the questions of others.

use alloc::{format, vec::Vec};

use super::{Node, round::SECONDS_ASKED_MAX};
use crate::{
    entry::Record,
    key::{KeyHash, PARTS},
    store::{Known, LockFamily, Stretch},
    time::Now,
    version::Incarnation,
    wire::{
        BLOCK_SECONDS, Grain, NodeState, Parcel, RefusalCode, Response, Sums, WINDOW_SECONDS_MAX,
        Window,
    },
};

/// A window that ends further ahead of this node's clock is refused, in seconds.
const WINDOW_AHEAD_SECONDS_MAX: u64 = 3_600;

/// An answer with values is closed once it carries this many bytes; a larger value travels alone.
pub(in crate::node) const RECORDS_BYTES_MAX: usize = 1 << 20;

/// An answer to a copy is closed once it has so many entries.
const COPIED_MAX: usize = 4_096;

/// An answer to a copy is closed with the part in which so many entries were looked at, whether they were
/// wanted or not.
const COPY_SEARCHED_MAX: usize = 1 << 16;

/// Most blocks whose seconds are told in one answer: as many as a window can touch.
const BLOCKS_ANSWERED_MAX: usize = (WINDOW_SECONDS_MAX / BLOCK_SECONDS) as usize + 2;

/// Most nodes that copy from this one at once: members that are not in sync yet.
const COPIERS_MAX: usize = 2;

/// The same of all others: nodes that this one cannot reach, or that have nothing to copy as far as is known.
/// Anybody can ask in any name, and is in nobody's way.
const STRANGERS_MAX: usize = 1;

/// A node that has not asked for this long does not copy any more, in milliseconds.
const COPIER_MS_MAX: u64 = 3_000;

/// What was written this long before a round, in milliseconds, that round has compared: versions are
/// compared from 1.5 s old, and clocks differ by up to 1 s.
const UNCOMPARED_MS: u64 = 2_500;

impl<L: LockFamily> Node<L> {
    /// Sums over what this node knows.
    pub(in crate::node) fn tell_sums(
        &mut self,
        now: Now,
        (window, grain): (Window, Grain),
        (asking, had_ms): (Option<Incarnation>, Option<u64>),
    ) -> Response {
        let most = window.from.saturating_add(WINDOW_SECONDS_MAX);
        let latest = (now.wall_ms / 1_000).saturating_add(WINDOW_AHEAD_SECONDS_MAX);
        if window.from > window.to || window.to > most.min(latest) {
            return refused(format!("{window:?} is no window"));
        }
        if let Some(member) = asking.and_then(|id| self.view.member_mut(id))
            && let Some(had_ms) = had_ms
        {
            let compared_ms = had_ms.saturating_add(UNCOMPARED_MS);
            member.missed.had_all_before(now.mono.minus_ms(compared_ms));
        }
        let from = window.from.max(self.store.first_second(now));
        let mut told = Sums { from, ..Sums::default() };
        let window = Window { from, ..window };
        match grain {
            Grain::Blocks => {
                // Who has not copied everything yet does not have what others had.
                if self.repair.start.is_done() {
                    let itself = self.itself(now);
                    (told.ages, told.lived_ms) = (itself.ages, itself.lived_ms);
                    told.line = Some(itself.line);
                }
                if from <= window.to {
                    told.sums = block_sums(window, &self.store.sums_by_second(from, window.to));
                }
            }
            Grain::Seconds(blocks) => {
                if blocks.len() > BLOCKS_ANSWERED_MAX {
                    return refused(format!("{} blocks are too many", blocks.len()));
                }
                for block in blocks {
                    let seconds = window.of_block(block);
                    told.sums.extend(self.store.sums_by_second(seconds.from, seconds.to));
                }
            }
            Grain::Parts(seconds) => {
                if seconds.len() > SECONDS_ASKED_MAX {
                    return refused(format!("{} seconds are too many", seconds.len()));
                }
                told.sums = self.store.sums_by_part(&seconds);
            }
        }
        Response::Sums(told)
    }

    /// The versions known of some keys.
    pub(in crate::node) fn tell_versions(&self, keys: &[KeyHash]) -> Response {
        let known = keys.iter().filter_map(|key| Some((*key, self.store.version(*key)?)));
        Response::Rows { rows: known.collect(), covered: keys.len() as u64 }
    }

    /// What is known of some keys, values included.
    pub(in crate::node) fn hand_out(&self, now: Now, keys: &[KeyHash]) -> Response {
        let (mut parcels, mut bytes, mut covered) = (Vec::new(), 0, 0);
        for key in keys {
            if let Some(known) = self.store.known(*key, now) {
                let parcel = Parcel::of(known, now.mono);
                bytes += parcel.payload_bytes();
                if bytes > RECORDS_BYTES_MAX && !parcels.is_empty() {
                    break;
                }
                parcels.push(parcel);
            }
            covered += 1;
        }
        Response::Records { parcels, covered, more: None, tick: 0, from_second: 0 }
    }

    /// Part of a copy for a node that starts.
    pub(in crate::node) fn hand_copy(
        &mut self,
        now: Now,
        asking: Option<Incarnation>,
        (part, last): (u8, u8),
        stretch: Stretch,
    ) -> Response {
        let Some(asking) = asking else { return refused("only nodes copy".into()) };
        let copiers = &mut self.repair.copiers;
        copiers.retain(|_, at| now.mono.since_ms(*at) <= COPIER_MS_MAX);
        // Where there is nothing to copy nobody waits for others.
        let has_some = self.store.count() > 0;
        let starts = |id: Incarnation| {
            self.view.member(id).is_some_and(|member| member.info.state == NodeState::Warming)
        };
        let most = if starts(asking) { COPIERS_MAX } else { STRANGERS_MAX };
        let rivals = copiers.keys().filter(|id| **id != asking && starts(**id) == starts(asking));
        let full = has_some && rivals.count() >= most;
        self.refused.over_quota += u64::from(full);
        if full || !self.repair.start.is_done() {
            return overloaded("this node copies itself, or two others copy from it");
        }
        if has_some {
            copiers.insert(asking, now.mono);
        }
        let parcel = |record| Parcel::of(Known::Value(record), now.mono);
        let (mut parcels, mut bytes, mut covered) = (Vec::new(), 0, 0);
        let (mut more, mut tick, mut searched) = (None, None, 0);
        for part in usize::from(part)..=usize::from(last).min(PARTS - 1) {
            // A place is one of the first part.
            let of_first = stretch.colder_than.filter(|_| covered == 0);
            let stretch = Stretch { colder_than: of_first, ..stretch };
            let page = self.store.page(part, stretch, RECORDS_BYTES_MAX - bytes, now);
            tick.get_or_insert(page.tick);
            searched += page.searched;
            bytes += page.records.iter().map(Record::payload_bytes).sum::<usize>();
            parcels.extend(page.records.into_iter().map(parcel));
            more = page.more;
            if more.is_some() {
                break;
            }
            covered += 1;
            let full = bytes >= RECORDS_BYTES_MAX || parcels.len() >= COPIED_MAX;
            if full || searched >= COPY_SEARCHED_MAX {
                break;
            }
        }
        let from_second = self.store.first_second(now);
        Response::Records { parcels, covered, more, tick: tick.unwrap_or(0), from_second }
    }
}

/// The sums of the blocks of a window, from those of its seconds.
pub(super) fn block_sums(window: Window, seconds: &[u64]) -> Vec<u64> {
    let mut blocks: Vec<u64> = window.blocks().map(|_| 0).collect();
    let first = window.from / BLOCK_SECONDS;
    for (second, sum) in (window.from..).zip(seconds) {
        let at = (second / BLOCK_SECONDS - first) as usize;
        blocks[at] = blocks[at].wrapping_add(*sum);
    }
    blocks
}

pub(super) fn overloaded(text: &str) -> Response {
    Response::refused(RefusalCode::Overloaded, text)
}

fn refused(text: alloc::string::String) -> Response {
    Response::refused(RefusalCode::BadMessage, text)
}
