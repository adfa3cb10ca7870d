//! Items for nodes of other regions: what this node keeps, and from the owners of the other keys what they keep.
//!
//! A node of another region knows a few nodes here, and not who owns what. So a round with it brings it every value
//! that this region has, whichever node it asks.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{
    Effect, Node, Parts, RequestId,
    local::{CallPurpose, Context},
    repair::{ITEMS_BYTES_MAX, serve_fetch},
};
use crate::{
    call::CallResult,
    key::KeyHash,
    store::{Backend, StoredItem},
    time::Now,
    version::Incarnation,
    wire::{FetchedItem, Request, Response},
};

/// The most requests whose items are gathered at a time; further ones get what this node keeps.
const GATHERINGS_MAX: usize = 64;

/// The most keys of a request that are looked up; the caller asks again for the rest.
const KEYS_MAX: usize = 128;

/// How long an owner may take, in milliseconds.
const OWNER_MS: u64 = 1_000;

/// A request whose items are gathered.
#[derive(Debug)]
struct Gathering {
    items: Vec<StoredItem>,
    covered: u64,
    outstanding: usize,
}

/// The requests whose items are gathered.
#[derive(Debug, Default)]
pub(super) struct Gatherings(BTreeMap<RequestId, Gathering>);

impl<B: Backend> Node<B> {
    /// Responds with the items of some keys, now or when the owners of keys have given theirs.
    pub(super) fn fetch_for(
        &mut self,
        now: Now,
        id: RequestId,
        (from, keys): (Option<Incarnation>, Vec<KeyHash>),
        out: &mut Vec<Effect>,
    ) -> Option<Response> {
        let view = &self.membership.view;
        let is_remote = |id: Incarnation| {
            view.member(id).is_none_or(|member| member.info.region != self.local.region())
        };
        let is_gathered = !view.placement().is_everyone() && from.is_some_and(is_remote);
        if !is_gathered || self.gatherings.0.len() >= GATHERINGS_MAX {
            return Some(serve_fetch(&self.replica.store, now, &keys));
        }
        let Parts { mut cx, membership, gatherings, .. } = self.parts(now, out);
        let (own, placement) = (cx.local.id(), membership.view.placement());
        let mut gathering = Gathering { items: Vec::new(), covered: 0, outstanding: 0 };
        let mut elsewhere: BTreeMap<Incarnation, Vec<KeyHash>> = BTreeMap::new();
        let mut bytes = 0;
        for key in keys.into_iter().take(KEYS_MAX) {
            gathering.covered += 1;
            let Some(item) = cx.replica.store.item(key, now) else { continue };
            let owners = placement.owners(key);
            let is_there = |owner: &&Incarnation| membership.view.takes_writes(**owner);
            let owner = owners.iter().find(is_there).filter(|_| !owners.contains(&own));
            match (&item, owner) {
                (StoredItem::Tombstone(..), Some(owner)) => {
                    elsewhere.entry(*owner).or_default().push(key);
                    continue;
                }
                (StoredItem::Value(record), _) => bytes += record.payload_bytes(),
                (StoredItem::Tombstone(..), None) => {}
            }
            gathering.items.push(item);
            if bytes > ITEMS_BYTES_MAX {
                break;
            }
        }
        for (owner, keys) in elsewhere {
            let Some(member) = membership.view.member(owner) else { continue };
            let to = (member.address, Some(owner));
            let purpose = CallPurpose::Gather { request: id };
            cx.local.call(purpose, to, Request::Fetch(keys), OWNER_MS, cx.out);
            gathering.outstanding += 1;
        }
        gatherings.keep(&mut cx, id, gathering);
        None
    }
}

impl Gatherings {
    fn keep<B: Backend>(&mut self, cx: &mut Context<'_, B>, id: RequestId, gathering: Gathering) {
        if gathering.outstanding > 0 {
            self.0.insert(id, gathering);
            return;
        }
        let Gathering { items, covered, .. } = gathering;
        // An owner may not have a purge yet that this node has.
        let judged = |item| match item {
            StoredItem::Value(record) if cx.replica.store.is_purged(&record, cx.now) => {
                StoredItem::Tombstone(record.key.hash(), record.version)
            }
            item => item,
        };
        let items = items.into_iter().map(judged);
        let items = items.map(|item| FetchedItem::of(item, cx.now.mono)).collect();
        let response = Response::Items { items, covered, more: None, tick: 0, from_second: 0 };
        cx.out.push(Effect::Respond { id, response });
    }

    /// Takes in what an owner keeps. What it does not give, the caller asks for again.
    pub(super) fn call_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        id: RequestId,
        result: CallResult,
    ) {
        let Some(mut gathering) = self.0.remove(&id) else { return };
        gathering.outstanding -= 1;
        if let Ok(Response::Items { items, .. }) = result {
            let stored = items.into_iter().map(|item| item.into_stored(cx.now.mono));
            gathering.items.extend(stored);
        }
        self.keep(cx, id, gathering);
    }
}
