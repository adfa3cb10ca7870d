//! Answers to the questions of others.

use alloc::{format, vec::Vec};

use super::{Node, round::SECONDS_ASKED_MAX};
use crate::{
    entry::Record,
    key::{KeyHash, SHARDS},
    store::{Backend, CopyRange, StoredItem},
    time::Now,
    version::Incarnation,
    wire::{
        BLOCK_SECONDS, Digests, FetchedItem, NodeState, RefusalCode, Resolution, Response,
        WINDOW_SECONDS_MAX, Window,
    },
};

/// A window that ends further ahead of this node's clock is refused, in seconds.
const WINDOW_AHEAD_SECONDS_MAX: u64 = 3_600;

/// An answer with values is closed once it carries this many bytes; a larger value travels alone.
pub(in crate::node) const RECORDS_BYTES_MAX: usize = 1 << 20;

/// An answer to a copy is closed once it has so many entries.
const COPIED_MAX: usize = 4_096;

/// An answer to a copy is closed with the shard in which so many entries were looked at, whether they were
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

impl<B: Backend> Node<B> {
    /// Digests over what this node knows.
    pub(in crate::node) fn serve_digests(
        &mut self,
        now: Now,
        (window, resolution): (Window, Resolution),
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
        let from = window.from.max(self.store.first_complete_second(now));
        let mut told = Digests { from_second: from, ..Digests::default() };
        let window = Window { from, ..window };
        match resolution {
            Resolution::Blocks => {
                // Who has not copied everything yet does not have what others had.
                if self.repair.start.is_done() {
                    let itself = self.itself(now);
                    (told.sync_ages, told.lived_ms) = (itself.ages, itself.lived_ms);
                    told.lineage = Some(itself.line);
                }
                if from <= window.to {
                    told.digests =
                        block_sums(window, &self.store.digests_by_second(from, window.to));
                }
            }
            Resolution::Seconds(blocks) => {
                if blocks.len() > BLOCKS_ANSWERED_MAX {
                    return refused(format!("{} blocks are too many", blocks.len()));
                }
                for block in blocks {
                    let seconds = window.of_block(block);
                    told.digests.extend(self.store.digests_by_second(seconds.from, seconds.to));
                }
            }
            Resolution::Shards(seconds) => {
                if seconds.len() > SECONDS_ASKED_MAX {
                    return refused(format!("{} seconds are too many", seconds.len()));
                }
                told.digests = self.store.digests_by_shard(&seconds);
            }
        }
        Response::Digests(told)
    }

    /// The versions known of some keys.
    pub(in crate::node) fn serve_versions(&self, keys: &[KeyHash]) -> Response {
        let known = keys.iter().filter_map(|key| Some((*key, self.store.version(*key)?)));
        Response::Versions { versions: known.collect(), covered: keys.len() as u64 }
    }

    /// What is known of some keys, values included.
    pub(in crate::node) fn serve_fetch(&self, now: Now, keys: &[KeyHash]) -> Response {
        let (mut items, mut bytes, mut covered) = (Vec::new(), 0, 0);
        for key in keys {
            if let Some(known) = self.store.item(*key, now) {
                let item = FetchedItem::of(known, now.mono);
                bytes += item.payload_bytes();
                if bytes > RECORDS_BYTES_MAX && !items.is_empty() {
                    break;
                }
                items.push(item);
            }
            covered += 1;
        }
        Response::Items { items, covered, more: None, tick: 0, from_second: 0 }
    }

    /// Part of a copy for a node that starts.
    pub(in crate::node) fn serve_copy(
        &mut self,
        now: Now,
        asking: Option<Incarnation>,
        (shard, last): (u8, u8),
        range: CopyRange,
    ) -> Response {
        let Some(asking) = asking else { return refused("only nodes copy".into()) };
        let copiers = &mut self.repair.copiers;
        copiers.retain(|_, at| now.mono.since_ms(*at) <= COPIER_MS_MAX);
        // Where there is nothing to copy nobody waits for others.
        let has_some = self.store.entry_count() > 0;
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
        let item = |record| FetchedItem::of(StoredItem::Value(record), now.mono);
        let (mut items, mut bytes, mut covered) = (Vec::new(), 0, 0);
        let (mut more, mut tick, mut searched) = (None, None, 0);
        for shard in usize::from(shard)..=usize::from(last).min(SHARDS - 1) {
            // A place is one of the first shard.
            let of_first = range.colder_than.filter(|_| covered == 0);
            let range = CopyRange { colder_than: of_first, ..range };
            let page = self.store.copy_page(shard, range, RECORDS_BYTES_MAX - bytes, now);
            tick.get_or_insert(page.tick);
            searched += page.searched;
            bytes += page.records.iter().map(Record::payload_bytes).sum::<usize>();
            items.extend(page.records.into_iter().map(item));
            more = page.more;
            if more.is_some() {
                break;
            }
            covered += 1;
            let full = bytes >= RECORDS_BYTES_MAX || items.len() >= COPIED_MAX;
            if full || searched >= COPY_SEARCHED_MAX {
                break;
            }
        }
        let from_second = self.store.first_complete_second(now);
        Response::Items { items, covered, more, tick: tick.unwrap_or(0), from_second }
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
