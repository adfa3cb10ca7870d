//! Responses to the repair requests of others.

use alloc::{format, string::String, vec::Vec};

use super::{Repair, compare::SECONDS_PER_REQUEST};
use crate::{
    cluster::View,
    key::KeyHash,
    node::local::{Context, Local},
    store::{Backend, Store},
    time::{Instant, Now},
    version::Incarnation,
    wire::{
        BLOCK_SECONDS, Digests, FetchedItem, NodeState, RefusalCode, Resolution, Response,
        WINDOW_SECONDS_MAX, Window,
    },
};

/// A window that ends further ahead of this node's clock is refused, in seconds.
const WINDOW_AHEAD_SECONDS_MAX: u64 = 3_600;

/// A response with items is closed once it carries this many bytes; a larger value is sent alone.
pub(in crate::node) const ITEMS_BYTES_MAX: usize = 1 << 20;

/// The most blocks whose seconds are in one response: as many as a window can touch.
const BLOCKS_MAX: usize = (WINDOW_SECONDS_MAX / BLOCK_SECONDS) as usize + 2;

/// The most members that copy from this node at once, of those that are not in sync yet.
const COPIERS_MAX: usize = 2;

/// The same of all other nodes: this one cannot reach them, or they have nothing to copy as far as is known.
/// A caller can use any name, and delays no member.
const OTHER_COPIERS_MAX: usize = 1;

/// A node that has not asked for this long does not copy any more, in milliseconds.
const COPIER_MS_MAX: u64 = 3_000;

/// A round compared what was written this long before it, in milliseconds: versions are compared from
/// 1.5 s old, and clocks differ by up to 1 s.
const UNCOMPARED_MS: u64 = 2_500;

impl Repair {
    /// Responds with digests over the versions that this node knows.
    pub(in crate::node) fn serve_digests<B: Backend>(
        &self,
        (now, local): (Now, &Local),
        store: &Store<B>,
        window: Window,
        resolution: Resolution,
    ) -> Response {
        let most = window.from.saturating_add(WINDOW_SECONDS_MAX);
        let latest = (now.wall_ms / 1_000).saturating_add(WINDOW_AHEAD_SECONDS_MAX);
        if window.from > window.to || window.to > most.min(latest) {
            return refused(format!("{window:?} is no window"));
        }
        let from = window.from.max(store.first_complete_second(now));
        let mut digests = Digests { from_second: from, ..Digests::default() };
        let window = Window { from, ..window };
        match resolution {
            Resolution::Blocks => {
                // A node that has not copied everything yet does not have what others had.
                if self.start.is_done() {
                    let own = self.describe(local, now);
                    (digests.sync_ages, digests.lived_ms) = (own.ages, own.lived_ms);
                    digests.lineage = Some(own.lineage);
                }
                digests.placed = self.placed();
                if from <= window.to {
                    let seconds = store.digests_by_second(from, window.to);
                    digests.digests = block_digests(window, &seconds);
                }
            }
            Resolution::Seconds(blocks) => {
                if blocks.len() > BLOCKS_MAX {
                    return refused(format!("{} blocks are too many", blocks.len()));
                }
                for block in blocks {
                    let seconds = window.of_block(block);
                    digests.digests.extend(store.digests_by_second(seconds.from, seconds.to));
                }
            }
            Resolution::Shards(seconds) => {
                if seconds.len() > SECONDS_PER_REQUEST {
                    return refused(format!("{} seconds are too many", seconds.len()));
                }
                digests.digests = store.digests_by_shard(&seconds);
            }
        }
        Response::Digests(digests)
    }

    /// The time before which a partner has all writes, if it last synced with this node `last_sync_ms` ago.
    pub(in crate::node) fn synced_before(now: Instant, last_sync_ms: u64) -> Instant {
        now.minus_ms(last_sync_ms.saturating_add(UNCOMPARED_MS))
    }

    /// Returns the refusal of a page of a copy for a node that starts, if it may not copy from this one now.
    pub(super) fn copy_refusal<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        caller: Option<Incarnation>,
    ) -> Option<Response> {
        let Some(caller) = caller else { return Some(refused("only nodes copy".into())) };
        let (now, store) = (cx.now, &cx.replica.store);
        let copiers = &mut self.copiers;
        copiers.retain(|_, at| now.mono.since_ms(*at) <= COPIER_MS_MAX);
        // Where there is nothing to copy, no node has to wait.
        let has_entries = store.entry_count() > 0;
        let is_warming = |id: Incarnation| {
            view.member(id).is_some_and(|member| member.info.state == NodeState::Warming)
        };
        let most = if is_warming(caller) { COPIERS_MAX } else { OTHER_COPIERS_MAX };
        let is_rival = |id: &Incarnation| *id != caller && is_warming(*id) == is_warming(caller);
        let is_full = has_entries && copiers.keys().filter(|id| is_rival(id)).count() >= most;
        cx.local.refused.over_quota += u64::from(is_full);
        if is_full || !self.start.is_done() {
            return Some(overloaded("this node copies itself, or two others copy from it"));
        }
        if has_entries {
            copiers.insert(caller, now.mono);
        }
        None
    }
}

/// Responds with the items of some keys: with the values of those that the caller `keeps`, and with the versions of others
/// if they are `settled`.
pub(in crate::node) fn serve_fetch<B: Backend>(
    store: &Store<B>,
    now: Now,
    keys: &[KeyHash],
    keeps: impl Fn(KeyHash) -> bool,
    settled: bool,
) -> Response {
    let (mut items, mut bytes, mut covered) = (Vec::new(), 0, 0);
    for key in keys {
        let keeps = keeps(*key);
        // Not among the first ones, which were put back for this request: the caller asks again for the rest.
        if keeps && store.find_on_disk(*key, now).is_some() && !items.is_empty() {
            break;
        }
        let item = store.item_for(*key, now, keeps);
        if let Some(item) = item.filter(|item| settled || item.is_value()) {
            let item = FetchedItem::of(item, now.mono);
            bytes += item.payload_bytes();
            if bytes > ITEMS_BYTES_MAX && !items.is_empty() {
                break;
            }
            items.push(item);
        }
        covered += 1;
    }
    Response::Items { items, covered, more: None, tick: 0, from_second: 0 }
}

/// Responds with the versions known of some keys.
pub(in crate::node) fn serve_versions<B: Backend>(store: &Store<B>, keys: &[KeyHash]) -> Response {
    let known = keys.iter().filter_map(|key| Some((*key, store.version(*key)?)));
    Response::Versions { versions: known.collect(), covered: keys.len() as u64 }
}

/// The digests of the blocks of a window, from those of its seconds.
pub(super) fn block_digests(window: Window, seconds: &[u64]) -> Vec<u64> {
    let mut blocks: Vec<u64> = window.blocks().map(|_| 0).collect();
    let first = window.from / BLOCK_SECONDS;
    for (second, digest) in (window.from..).zip(seconds) {
        let at = (second / BLOCK_SECONDS - first) as usize;
        blocks[at] = blocks[at].wrapping_add(*digest);
    }
    blocks
}

pub(super) fn overloaded(text: &str) -> Response {
    Response::refused(RefusalCode::Overloaded, text)
}

fn refused(text: String) -> Response {
    Response::refused(RefusalCode::BadMessage, text)
}
