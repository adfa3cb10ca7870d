//! Requests about keys that other nodes own: this node asks an owner, and passes the answer on.
//!
//! Clients that know who owns a key ask an owner themselves. The others ask any node. A request that another node
//! passed on is never passed on again.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};

use super::{
    ConnectionId, Effect, Node, Parts, RequestId, Write, WriteOp,
    local::{CallPurpose, Context},
    reads::read,
};
use crate::{
    call::{CallFailure, CallResult},
    cluster::View,
    condition::{Condition, ConditionalOp, ConditionalWrite},
    entry::{Change, Record},
    key::Key,
    purge::is_reserved,
    store::{Backend, Lookup},
    time::{Instant, Now},
    version::Incarnation,
    wire::{RefusalCode, Request, Response},
};

/// The most requests that are passed on at a time.
const FORWARDS_MAX: usize = 16_384;

/// How long an owner may take for a read, in milliseconds; then the next one is asked.
const READ_MS: u64 = 300;

/// The same for a caller on a connection that carries many requests, and how long all owners together may take: such a
/// caller takes a node for silent after 100 ms, and asks others by itself.
const FRAMED_READ_MS: u64 = 50;
const FRAMED_READS_MS: u64 = 80;

/// How long an owner may take for a write if the caller states no timeout, in milliseconds.
const WRITE_MS: u64 = 2_000;

/// How long an owner may take for a lease if the caller states no timeout, in milliseconds: callers wait at most so long.
const LEASE_MS: u64 = 60_000;

/// An answer leaves this long before its caller's timeout, in milliseconds.
const MARGIN_MS: u64 = 20;

/// How a read came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadSource {
    /// From another node, which passed it on.
    Node,
    /// On a connection that carries many requests.
    Framed,
    /// On one that carries no other, as over HTTP.
    SingleUse,
}

impl ReadSource {
    /// Returns the source of a read of `from`, if that is a node, on `connection`.
    pub(super) fn of(from: Option<Incarnation>, connection: ConnectionId) -> Self {
        match from {
            Some(_) => Self::Node,
            None if connection.is_single_use() => Self::SingleUse,
            None => Self::Framed,
        }
    }
}

/// A request that was passed on.
#[derive(Debug)]
struct Forward {
    request: Request,
    key: Key,
    until: Instant,
    /// How long one owner may take, in milliseconds.
    each_ms: u64,
    tried: Vec<Incarnation>,
    /// The highest stamp of a version that an owner named.
    known: u64,
}

/// The requests whose answers have not come.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    pending: BTreeMap<RequestId, Forward>,
    /// How many requests were passed on.
    pub(super) count: u64,
}

impl<B: Backend> Node<B> {
    /// Whether other nodes own a key, so that this one keeps no value of it.
    pub(super) fn is_witness(&self, key: &Key) -> bool {
        !self.membership.view.keeps(self.local.id(), key)
    }

    /// Passes a read on to an owner, if this node has no value and others own the key. Returns the response
    /// otherwise.
    pub(super) fn read_or_forward(
        &mut self,
        now: Now,
        id: RequestId,
        (key, timeout_ms, source): (Key, u64, ReadSource),
        out: &mut Vec<Effect>,
    ) -> Option<Response> {
        let (store, policy) = (&self.replica.store, self.read_policy());
        let is_owner = self.placement().keeps(self.local.id(), key.hash());
        if is_owner || is_reserved(key.as_bytes()) {
            return Some(read(store, &key, now, policy));
        }
        // The read that led here is counted where it came in.
        let guest = Some(store.peek(&key, now)).filter(|_| policy.values_are_current);
        let response = policy.response(guest.unwrap_or(Lookup::Miss { known: 0 }), now);
        if let Response::NotFound { known, .. } = response {
            let miss = Response::NotFound { warming: true, known };
            let (each_ms, all_ms) = match source {
                ReadSource::Node => return Some(miss),
                ReadSource::Framed => (FRAMED_READ_MS, FRAMED_READS_MS),
                ReadSource::SingleUse => (READ_MS, 2 * READ_MS),
            };
            let stated_ms = if timeout_ms == 0 { u64::MAX } else { timeout_ms };
            let most_ms = stated_ms.saturating_sub(MARGIN_MS).min(all_ms);
            let request = Request::Get { key: key.clone() };
            self.forward(now, id, (request, key), (each_ms, most_ms), out);
            return None;
        }
        Some(response)
    }

    /// Passes a request for a lease, or its release, on to an owner: there the value arrives for which callers wait.
    /// Returns the request if this node is to carry it out.
    pub(super) fn forward_lease(
        &mut self,
        now: Now,
        id: RequestId,
        (request, timeout_ms): (Request, u64),
        out: &mut Vec<Effect>,
    ) -> Option<Request> {
        let (Request::Lease { key, .. } | Request::Release { key, .. }) = &request else {
            return Some(request);
        };
        if !self.is_witness(key) {
            return Some(request);
        }
        let key = key.clone();
        let timeout_ms = if timeout_ms == 0 { LEASE_MS } else { timeout_ms };
        let most_ms = timeout_ms.saturating_sub(MARGIN_MS);
        self.forward(now, id, (request, key), (most_ms, most_ms), out);
        None
    }

    /// Passes a conditional write on to an owner. One that came from another node is refused.
    pub(super) fn forward_write(
        &mut self,
        now: Now,
        id: RequestId,
        write: Write,
        out: &mut Vec<Effect>,
    ) {
        let Write { key, op, ack, condition, timeout_ms, is_forwarded, .. } = write;
        let op = match op {
            WriteOp::Put { value, metadata, ttl } => {
                Some(ConditionalOp::Put { value, metadata, ttl })
            }
            WriteOp::Delete => Some(ConditionalOp::Delete),
            WriteOp::Touch { ttl } => Some(ConditionalOp::Touch { ttl }),
            WriteOp::Take => Some(ConditionalOp::Take),
            WriteOp::Use => Some(ConditionalOp::Use),
            // Every node keeps purges.
            WriteOp::Purge { .. } => None,
        };
        let Some(op) = op.filter(|_| !is_forwarded) else {
            return out.push(Effect::Respond { id, response: not_an_owner() });
        };
        let condition = condition.map_or(Condition::Present, |condition| *condition);
        let write = ConditionalWrite { key: key.clone(), condition, op, ack };
        let timeout_ms = if timeout_ms == 0 { WRITE_MS } else { timeout_ms };
        let most_ms = timeout_ms.saturating_sub(MARGIN_MS);
        let request = Request::Conditional(Box::new(write));
        self.forward(now, id, (request, key), (most_ms, most_ms), out);
    }

    fn forward(
        &mut self,
        now: Now,
        id: RequestId,
        (request, key): (Request, Key),
        (each_ms, most_ms): (u64, u64),
        out: &mut Vec<Effect>,
    ) {
        let Parts { mut cx, membership, forwards, .. } = self.parts(now, out);
        let until = now.mono.plus_ms(most_ms);
        let forward = Forward { request, key, until, each_ms, tried: Vec::new(), known: 0 };
        forwards.count += 1;
        forwards.ask(&mut cx, &membership.view, id, forward);
    }
}

/// The refusal of a write whose condition this node cannot judge.
fn not_an_owner() -> Response {
    let text = "other nodes own this key: this one judges no conditions of it";
    Response::refused(RefusalCode::Warming, text)
}

impl Forwards {
    /// Asks the best owner that was not asked yet, or gives up.
    fn ask<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        id: RequestId,
        mut forward: Forward,
    ) {
        let left_ms = forward.until.since_ms(cx.now.mono);
        let is_complete = cx.local.readiness.misses_are_authoritative;
        let owners = view.holders(is_complete).owners(forward.key.hash());
        let is_fit =
            |owner: &&Incarnation| view.takes_writes(**owner) && !forward.tried.contains(owner);
        // A member that is suspected to be gone comes last.
        let is_doubtful = |owner: &Incarnation| view.member(*owner).is_none_or(|m| m.suspect);
        let fit = owners.iter().filter(is_fit).copied();
        let owner = fit.min_by_key(is_doubtful).filter(|_| left_ms > 0);
        let is_full = self.pending.len() >= FORWARDS_MAX;
        let Some(member) = owner.filter(|_| !is_full).and_then(|owner| view.member(owner)) else {
            let response = forward.given_up();
            return cx.out.push(Effect::Respond { id, response });
        };
        let timeout_ms = left_ms.min(forward.each_ms);
        let (owner, address) = (member.info.incarnation, member.address);
        forward.tried.push(owner);
        let purpose = CallPurpose::Forward { request: id };
        let request = forward.request.clone();
        cx.local.call(purpose, (address, Some(owner)), request, timeout_ms, cx.out);
        self.pending.insert(id, forward);
    }

    /// Passes the answer of an owner on, or asks the next one.
    pub(super) fn call_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        id: RequestId,
        result: CallResult,
    ) {
        let Some(mut forward) = self.pending.remove(&id) else { return };
        let is_read = matches!(forward.request, Request::Get { .. });
        let response = match result {
            Ok(Response::NotFound { warming: true, known }) => {
                forward.known = forward.known.max(known);
                None
            }
            Ok(Response::Refused(refusal)) => match refusal.code {
                RefusalCode::Warming | RefusalCode::WrongNode | RefusalCode::Overloaded => None,
                _ => Some(Response::Refused(refusal)),
            },
            Ok(response) if forward.is_purged(cx, &response) => None,
            Ok(response) => Some(response),
            Err(CallFailure::NoAnswer) if !is_read => {
                let text = "the owner of the key has not answered: the write may have been made";
                Some(Response::refused(RefusalCode::Expired, text))
            }
            Err(_) => None,
        };
        match response {
            Some(response) => cx.out.push(Effect::Respond { id, response }),
            None => self.ask(cx, view, id, forward),
        }
    }
}

impl Forward {
    /// Whether this node knows a purge that has ended the value in a response. The owner has it in a moment.
    fn is_purged<B: Backend>(&self, cx: &Context<'_, B>, response: &Response) -> bool {
        let Response::Found { value, metadata, version, remaining_ms } = response else {
            return false;
        };
        let expires = cx.now.mono.plus_ms(*remaining_ms);
        let change = Change::Put { value: value.clone(), metadata: metadata.clone(), expires };
        let record = Record { key: self.key.clone(), version: *version, change };
        cx.replica.store.is_purged(&record, cx.now)
    }

    /// The response when no owner has answered.
    fn given_up(&self) -> Response {
        match self.request {
            Request::Get { .. } => Response::NotFound { warming: true, known: self.known },
            _ => not_an_owner(),
        }
    }
}
