//! Requests for the copies of keys, which this node answers for others too.
//!
//! The node asks its local members for their own copies, and one contact in each other region for those of
//! that region. Whoever does not answer in time is listed as unreachable, never left out: the answer depends
//! on who exists, not on who was asked.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};

use super::{
    Effect, Node, Parts, RequestId,
    local::{CallPurpose, Context},
    membership::Membership,
};
use crate::{
    call::CallResult,
    cluster::{Member, Reachability, View},
    key::{Key, KeyHash},
    locate::{KeyCopy, NodeCopies, Reply, Spread},
    rendezvous,
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{NodeInfo, NodeState, RefusalCode, Request, Response, features},
};

/// The most requests at a time for which others are asked; more are refused.
pub(super) const SEARCHES_MAX: usize = 16;

/// How long local members may take, in milliseconds.
const LOCAL_MS: u64 = 400;

/// How long a contact of another region may take, in milliseconds: it waits for its own local members. Then
/// another one is asked, once.
const REMOTE_MS: u64 = 700;

/// The most contacts of one region that are asked, one after the other.
const CONTACTS_MAX: usize = 2;

/// An answer leaves this long before its caller's timeout, in milliseconds.
const MARGIN_MS: u64 = 50;

/// The most bytes of values that one request digests before the last value: a tenth of a millisecond. The rest has
/// no digest.
const DIGESTED_BYTES_MAX: u64 = 1 << 20;

/// What is asked for.
#[derive(Clone, Debug)]
struct Question {
    keys: Vec<Key>,
    digest: bool,
}

/// A request whose answer is not complete.
#[derive(Debug)]
struct Search {
    question: Question,
    until: Instant,
    /// Every known node. Those that have not answered are unreachable.
    nodes: BTreeMap<Incarnation, NodeCopies>,
    outstanding: usize,
    /// The contacts of each other region that were not asked yet, the best one last.
    contacts: BTreeMap<String, Vec<Incarnation>>,
}

/// The requests whose answers are not complete.
#[derive(Debug, Default)]
pub(super) struct Searches(BTreeMap<RequestId, Search>);

/// Returns what this node holds of keys, and whether it is to hold their values.
fn copies<B: Backend>(cx: &Context<'_, B>, view: &View, question: &Question) -> Vec<KeyCopy> {
    let mut left = DIGESTED_BYTES_MAX;
    let copy = |key: &Key| {
        let copy = cx.replica.store.key_copy(key, cx.now, question.digest && left > 0);
        left = left.saturating_sub(copy.digest.map_or(0, |_| copy.bytes));
        KeyCopy { is_witness: !view.keeps(cx.local.id(), key), ..copy }
    };
    question.keys.iter().map(copy).collect()
}

fn is_able(member: &Member) -> bool {
    member.features & features::LOCATE != 0
}

/// Whether a member can be asked, even one that is leaving: it may run on for long, with its copies.
fn responds(member: &Member) -> bool {
    member.reach == Reachability::Reachable || member.detector.is_responding()
}

/// Ranks the members of a region as contacts for a key.
fn rank(member: &Member, key: Option<KeyHash>) -> (bool, bool, u64) {
    let is_in_sync = member.info.state == NodeState::InSync;
    let weight = key.map_or(0, |key| rendezvous::weight(key, member.info.incarnation));
    (!member.suspect, is_in_sync, weight)
}

impl Search {
    fn add(&mut self, node: &NodeInfo, reply: Reply) {
        let unknown = || NodeCopies { node: node.clone(), reply, copies: Vec::new() };
        self.nodes.entry(node.incarnation).or_insert_with(unknown);
    }

    /// Takes in what a node says of those nodes for which it may speak: itself, or all of another region.
    fn take(&mut self, own_region: &str, member: Incarnation, nodes: Vec<NodeCopies>) {
        let Some(region) = self.region_of(member) else { return };
        let is_local = region == own_region;
        for node in nodes {
            let id = node.node.incarnation;
            let is_its_own = id == member || (!is_local && node.node.region == region);
            let is_whole =
                node.reply != Reply::Answered || node.copies.len() == self.question.keys.len();
            let is_better = self.nodes.get(&id).is_none_or(|known| known.reply != Reply::Answered);
            if is_its_own && is_whole && is_better {
                self.nodes.insert(id, node);
            }
        }
    }

    fn region_of(&self, member: Incarnation) -> Option<String> {
        self.nodes.get(&member).map(|node| node.node.region.clone())
    }

    fn into_response(self) -> Response {
        let mut nodes: Vec<_> = self.nodes.into_values().collect();
        let place = |node: &NodeInfo| (node.region.clone(), node.addresses.first().copied());
        nodes.sort_by_cached_key(|node| (place(&node.node), node.node.incarnation));
        Response::Located(nodes)
    }
}

impl<B: Backend> Node<B> {
    /// Answers a request for copies, now or when others have answered.
    pub(super) fn locate(
        &mut self,
        now: Now,
        caller: (RequestId, u64),
        question: (Vec<Key>, bool, Spread),
        out: &mut Vec<Effect>,
    ) {
        let Parts { mut cx, membership, searches, .. } = self.parts(now, out);
        searches.locate(&mut cx, membership, caller, question);
    }
}

impl Searches {
    fn locate<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        membership: &Membership,
        (id, timeout_ms): (RequestId, u64),
        (keys, digest, spread): (Vec<Key>, bool, Spread),
    ) {
        let question = Question { keys, digest };
        let node = NodeInfo { state: cx.local.readiness.state(), ..cx.local.config.info.clone() };
        let copies = copies(cx, &membership.view, &question);
        let own = NodeCopies { node, reply: Reply::Answered, copies };
        if spread == Spread::Node {
            let response = Response::Located([own].into());
            return cx.out.push(Effect::Respond { id, response });
        }
        if self.0.len() >= SEARCHES_MAX {
            cx.local.refused.over_quota += 1;
            let text = "too many requests for the copies of keys at a time";
            let response = Response::refused(RefusalCode::Overloaded, text);
            return cx.out.push(Effect::Respond { id, response });
        }
        let most_ms = CONTACTS_MAX as u64 * REMOTE_MS;
        let wait_ms = match timeout_ms {
            0 => most_ms,
            stated => stated.saturating_sub(MARGIN_MS).clamp(1, most_ms),
        };
        let mut search = Search {
            question,
            until: cx.now.mono.plus_ms(wait_ms),
            nodes: [(cx.local.id(), own)].into(),
            outstanding: 0,
            contacts: BTreeMap::new(),
        };
        search.list(cx.local.region(), membership, spread);
        search.begin(cx, membership, id);
        self.keep(cx, id, search);
    }

    /// Takes in the answer of a node that was asked.
    pub(super) fn call_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        membership: &Membership,
        (id, member): (RequestId, Incarnation),
        result: CallResult,
    ) {
        let Some(mut search) = self.0.remove(&id) else { return };
        search.outstanding -= 1;
        match (result, search.region_of(member)) {
            (Ok(Response::Located(nodes)), _) => search.take(cx.local.region(), member, nodes),
            (_, Some(region)) => search.ask_contact(cx, membership, id, &region),
            _ => {}
        }
        self.keep(cx, id, search);
    }

    fn keep<B: Backend>(&mut self, cx: &mut Context<'_, B>, id: RequestId, search: Search) {
        if search.outstanding == 0 {
            cx.out.push(Effect::Respond { id, response: search.into_response() });
        } else {
            self.0.insert(id, search);
        }
    }
}

impl Search {
    /// Lists every known node, as far as the request is about it, and the contacts that can be asked.
    fn list(&mut self, own_region: &str, membership: &Membership, spread: Spread) {
        let view = &membership.view;
        let is_wanted = |node: &NodeInfo| spread == Spread::Cluster || node.region == own_region;
        let of_able = view.members().filter(|member| responds(member) && is_able(member));
        let able: BTreeSet<_> = of_able.map(|member| member.info.region.clone()).collect();
        for member in view.members().filter(|member| is_wanted(&member.info)) {
            let is_asked_of =
                member.info.region == own_region || !able.contains(&member.info.region);
            let is_old = responds(member) && !is_able(member) && is_asked_of;
            self.add(&member.info, if is_old { Reply::Unsupported } else { Reply::Unreachable });
        }
        for node in membership.gossip().others().filter(|node| is_wanted(node)) {
            self.add(node, Reply::Unreachable);
        }
        let key = self.question.keys.first().map(Key::hash);
        let is_contact = |member: &&Member| {
            let is_remote = member.info.region != own_region && is_wanted(&member.info);
            is_remote && responds(member) && is_able(member)
        };
        let mut contacts: Vec<_> = view.members().filter(is_contact).collect();
        contacts.sort_by_cached_key(|member| rank(member, key));
        for member in contacts {
            let of_region = self.contacts.entry(member.info.region.clone()).or_default();
            of_region.push(member.info.incarnation);
        }
        for of_region in self.contacts.values_mut() {
            of_region.drain(..of_region.len().saturating_sub(CONTACTS_MAX));
        }
    }

    /// Asks all local members, and a contact of each other region.
    fn begin<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        membership: &Membership,
        id: RequestId,
    ) {
        let is_asked = |member: &&Member| {
            member.info.region == cx.local.region() && responds(member) && is_able(member)
        };
        let local = membership.view.members().filter(is_asked);
        let local = local.map(|member| member.info.incarnation);
        for member in local.collect::<Vec<_>>() {
            self.ask(cx, membership, (id, member), (Spread::Node, LOCAL_MS));
        }
        let regions: Vec<_> = self.contacts.keys().cloned().collect();
        for region in regions {
            self.ask_contact(cx, membership, id, &region);
        }
    }

    /// Asks the next contact of a region, if there is one and time is left.
    fn ask_contact<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        membership: &Membership,
        id: RequestId,
        region: &str,
    ) {
        while let Some(contact) = self.contacts.get_mut(region).and_then(Vec::pop) {
            if self.ask(cx, membership, (id, contact), (Spread::Region, REMOTE_MS)) {
                return;
            }
        }
    }

    fn ask<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        membership: &Membership,
        (id, member): (RequestId, Incarnation),
        (spread, most_ms): (Spread, u64),
    ) -> bool {
        let timeout_ms = self.until.since_ms(cx.now.mono).min(most_ms);
        let Some(address) = membership.view.member(member).map(|member| member.address) else {
            return false;
        };
        if timeout_ms == 0 {
            return false;
        }
        let Question { keys, digest } = self.question.clone();
        let request = Request::Locate { keys, digest, spread };
        let purpose = CallPurpose::Locate { request: id, member };
        cx.local.call(purpose, (address, Some(member)), request, timeout_ms, cx.out);
        self.outstanding += 1;
        true
    }
}
