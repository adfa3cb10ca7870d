//! Items for nodes that fetch them: what this node keeps, and for those of other regions from the owners of the other
//! keys what they keep.
//!
//! A node of another region knows a few nodes here, and not who owns what. So a round with it brings it every value
//! that this region has, whichever node it asks.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{
    ConnectionId, Effect, Node, Parts, RequestId,
    local::{CallPurpose, Context},
    repair::{ITEMS_BYTES_MAX, serve_fetch},
};
use crate::{
    call::CallResult,
    cluster::Member,
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
    keys: Vec<KeyHash>,
    /// Whether the caller owns the keys, and wants their values alone.
    is_for_owner: bool,
    /// What is to be had of each key now. Of those that are left out the owner had no room in its answer.
    answered: BTreeMap<KeyHash, Option<StoredItem>>,
    outstanding: usize,
    connection: ConnectionId,
}

/// The requests whose items are gathered.
#[derive(Debug, Default)]
pub(super) struct Gatherings(BTreeMap<RequestId, Gathering>);

impl<B: Backend> Node<B> {
    /// Returns whether a node that fetches a key gets the value: a local peer that does not keep it gets the version alone.
    /// This node does keep it, or offers it to those who do.
    pub(super) fn fetches_value(&self, from: Option<Incarnation>, key: KeyHash) -> bool {
        let view = &self.membership.view;
        let is_local = |member: &Member| member.info.region == self.local.region();
        let peer = from.filter(|id| view.member(*id).is_some_and(is_local));
        peer.is_none_or(|peer| view.placement().keeps(peer, key))
    }

    /// Responds with the items of some keys, now or when the owners of keys have given theirs.
    pub(super) fn fetch_for(
        &mut self,
        now: Now,
        id: RequestId,
        (connection, from): (ConnectionId, Option<Incarnation>),
        request: Request,
        out: &mut Vec<Effect>,
    ) -> Option<Response> {
        let (keys, is_for_owner) = match request {
            Request::Fetch(keys) => (keys, false),
            Request::Adopt(keys) => (keys, true),
            _ => return None,
        };
        let view = &self.membership.view;
        let is_remote = |id: Incarnation| {
            view.member(id).is_none_or(|member| member.info.region != self.local.region())
        };
        let is_gathered = !view.placement().is_everyone() && from.is_some_and(is_remote);
        // That there is no value this node can tell only if its misses are authoritative.
        let is_settled = !is_for_owner || self.misses_are_authoritative();
        if !is_gathered || self.gatherings.0.len() >= GATHERINGS_MAX {
            let keeps = |key| is_for_owner || self.fetches_value(from, key);
            return Some(serve_fetch(&self.replica.store, now, &keys, keeps, is_settled));
        }
        let Parts { mut cx, membership, gatherings, .. } = self.parts(now, out);
        let (own, placement) = (cx.local.id(), membership.view.placement());
        let mut gathering = Gathering {
            keys: keys.into_iter().take(KEYS_MAX).collect(),
            is_for_owner,
            answered: BTreeMap::new(),
            outstanding: 0,
            connection,
        };
        let mut elsewhere: BTreeMap<Incarnation, Vec<KeyHash>> = BTreeMap::new();
        let mut bytes = 0;
        for key in gathering.keys.iter().copied() {
            let item = cx.replica.store.item(key, now);
            let owners = placement.owners(key);
            let is_there = |owner: &&Incarnation| membership.view.takes_writes(**owner);
            let owner = owners.iter().find(is_there).filter(|_| !owners.contains(&own));
            let given = match (item, owner) {
                (Some(StoredItem::Value(record)), _) => {
                    bytes += record.payload_bytes();
                    Some(StoredItem::Value(record))
                }
                (Some(_), Some(owner)) => {
                    elsewhere.entry(*owner).or_default().push(key);
                    continue;
                }
                (item, None) => item.filter(|_| is_settled && owners.contains(&own)),
                (None, Some(_)) => None,
            };
            gathering.answered.insert(key, given);
            if bytes > ITEMS_BYTES_MAX {
                break;
            }
        }
        for (owner, keys) in elsewhere {
            let Some(member) = membership.view.member(owner) else { continue };
            let to = (member.address, Some(owner));
            let purpose = CallPurpose::Gather { request: id, keys: keys.clone() };
            let request = if is_for_owner { Request::Adopt(keys) } else { Request::Fetch(keys) };
            cx.local.call(purpose, to, request, OWNER_MS, cx.out);
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
        let (mut items, mut bytes, mut covered) = (Vec::new(), 0, 0);
        let Gathering { keys, is_for_owner, mut answered, .. } = gathering;
        // As many as fit, up to the first one for which its owner had no room: the caller asks again for the rest.
        for key in keys {
            let Some(item) = answered.remove(&key) else { break };
            // Others get the version at least; whoever owns the key there asks for its value.
            let version = || cx.replica.store.item(key, cx.now).filter(|_| !is_for_owner);
            if let Some(item) = item.or_else(version) {
                let item = FetchedItem::of(judged(cx, item), cx.now.mono);
                bytes += item.payload_bytes();
                if bytes > ITEMS_BYTES_MAX && !items.is_empty() {
                    break;
                }
                items.push(item);
            }
            covered += 1;
        }
        let response = Response::Items { items, covered, more: None, tick: 0, from_second: 0 };
        cx.out.push(Effect::Respond { id, response });
    }

    /// Takes in what an owner keeps of some keys.
    pub(super) fn call_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        (id, mut keys): (RequestId, Vec<KeyHash>),
        result: CallResult,
    ) {
        let Some(mut gathering) = self.0.remove(&id) else { return };
        gathering.outstanding -= 1;
        let (items, covered) = match result {
            Ok(Response::Items { items, covered, .. }) => (items, covered),
            _ => (Vec::new(), u64::MAX),
        };
        keys.truncate(usize::try_from(covered).unwrap_or(usize::MAX));
        gathering.answered.extend(keys.into_iter().map(|key| (key, None)));
        for item in items.into_iter().map(|item| item.into_stored(cx.now.mono)) {
            let (key, version) = item.key_version();
            // Not if the owner has not received yet what this node knows.
            if cx.replica.store.version(key) <= Some(version)
                && let Some(answer @ None) = gathering.answered.get_mut(&key)
            {
                *answer = Some(item);
            }
        }
        self.keep(cx, id, gathering);
    }

    /// Forgets a request of a connection that ended.
    pub(super) fn connection_closed(&mut self, connection: ConnectionId) {
        self.0.retain(|_, gathering| gathering.connection != connection);
    }
}

/// What is given of an item: an owner may not have a purge yet that this node has.
fn judged<B: Backend>(cx: &Context<'_, B>, item: StoredItem) -> StoredItem {
    match item {
        StoredItem::Value(record) if cx.replica.store.is_purged(&record, cx.now) => {
            StoredItem::Tombstone(record.key.hash(), record.version)
        }
        item => item,
    }
}
