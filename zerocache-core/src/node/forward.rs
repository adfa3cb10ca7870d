//! Requests about keys that other nodes own: this node asks an owner, and passes the answer on.
//!
//! Clients that know who owns a key ask an owner themselves. The others ask any node. A request that another node
//! passed on is never passed on again.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use super::{
    ConnectionId, Effect, Node, Parts, RequestId, Write, WriteOp,
    local::{CallPurpose, Context},
    quota::Quota,
    reads::{read, recent},
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
    ttl::Ttl,
    version::{Incarnation, Version},
    wire::{Envelope, RefusalCode, Request, Response},
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

/// The most leases that are remembered for one connection.
const LEASES_MAX: usize = 256;

/// How long the release of a lease may take, in milliseconds.
const RELEASE_MS: u64 = 1_000;

/// A request that was passed on.
#[derive(Debug)]
struct Forward {
    request: Request,
    key: Key,
    /// The connection that it came on; it has ended if there is none.
    connection: Option<ConnectionId>,
    /// The stamp of the highest version that the caller has seen.
    seen: u64,
    until: Instant,
    /// How long one owner may take, in milliseconds.
    each_ms: u64,
    tried: Vec<Incarnation>,
    /// The highest stamp of a recent version of the key that this node knows, or that an owner named.
    known: u64,
    /// Whether an owner has not received yet what this node knows of the key.
    is_behind: bool,
}

/// A lease that was granted by an owner through this node.
#[derive(Debug)]
struct PassedLease {
    key: Key,
    token: Version,
    owner: Incarnation,
}

/// The requests whose answers have not come, and the leases of those that have.
#[derive(Debug)]
pub(super) struct Forwards {
    pending: BTreeMap<RequestId, Forward>,
    quota: Quota,
    leases: BTreeMap<ConnectionId, VecDeque<PassedLease>>,
    /// How many requests were passed on.
    pub(super) count: u64,
}

impl Default for Forwards {
    fn default() -> Self {
        let quota = Quota::of(FORWARDS_MAX);
        Self { pending: BTreeMap::new(), quota, leases: BTreeMap::new(), count: 0 }
    }
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
        (connection, source): (ConnectionId, ReadSource),
        (key, timeout_ms): (Key, u64),
        out: &mut Vec<Effect>,
    ) -> Option<Response> {
        let (store, policy) = (&self.replica.store, self.read_policy());
        let is_owner = self.placement().keeps(self.local.id(), key.hash());
        if is_owner || is_reserved(key.as_bytes()) {
            return Some(read(store, &key, now, policy));
        }
        // What is passed on is counted at the owner.
        let known = match store.peek(&key, now) {
            Lookup::Hit(_) if policy.values_are_current => {
                return Some(read(store, &key, now, policy));
            }
            Lookup::Hit(_) | Lookup::OnDisk => 0,
            Lookup::Miss { known } => recent(known, now),
        };
        let (each_ms, all_ms) = match source {
            ReadSource::Node => return Some(Response::NotFound { warming: true, known }),
            ReadSource::Framed => (FRAMED_READ_MS, FRAMED_READS_MS),
            ReadSource::SingleUse => (READ_MS, 2 * READ_MS),
        };
        let stated_ms = if timeout_ms == 0 { u64::MAX } else { timeout_ms };
        let most_ms = stated_ms.saturating_sub(MARGIN_MS).min(all_ms);
        let request = Request::Get { key: key.clone() };
        let forward = Forward::new((request, key), connection, now.mono.plus_ms(most_ms));
        self.forward(now, id, Forward { known, each_ms, ..forward }, out);
        None
    }

    /// Passes a request for a lease, or its release, on to an owner: there the value arrives for which callers wait.
    /// Returns the request if this node is to carry it out.
    pub(super) fn forward_lease(
        &mut self,
        now: Now,
        (id, connection): (RequestId, ConnectionId),
        (mut request, envelope): (Request, &Envelope),
        out: &mut Vec<Effect>,
    ) -> Option<Request> {
        let (Request::Lease { key, .. } | Request::Release { key, .. }) = &request else {
            return Some(request);
        };
        if envelope.from.is_some() || !self.is_witness(key) {
            return Some(request);
        }
        let key = key.clone();
        if let Request::Lease { wait_ms, .. } = &mut request {
            *wait_ms = wait_ms.saturating_sub(envelope.delay_ms);
        }
        let timeout_ms = if envelope.timeout_ms == 0 { LEASE_MS } else { envelope.timeout_ms };
        let most_ms = timeout_ms.saturating_sub(MARGIN_MS);
        let forward = Forward::new((request, key), connection, now.mono.plus_ms(most_ms));
        self.forward(now, id, Forward { seen: envelope.seen, ..forward }, out);
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
        let Write { key, op, ack, condition, seen, timeout_ms, delay_ms, is_forwarded, .. } = write;
        self.replica.note_seen(now, Version::new(seen, Incarnation(0)), &mut self.local.refused);
        let op = match op {
            WriteOp::Put { value, metadata, ttl } => {
                let left_ms = ttl.as_millis().saturating_sub(delay_ms).max(1);
                let ttl = Ttl::from_millis(left_ms).unwrap_or(ttl);
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
        // A connection carries few writes at a time: all of them have one quota.
        let connection = ConnectionId(0).single_use();
        let forward = Forward::new((request, key), connection, now.mono.plus_ms(most_ms));
        self.forward(now, id, Forward { seen, ..forward }, out);
    }

    fn forward(&mut self, now: Now, id: RequestId, forward: Forward, out: &mut Vec<Effect>) {
        let Parts { mut cx, membership, forwards, .. } = self.parts(now, out);
        let Some(connection) = forward.connection else { return };
        if !forwards.quota.has_room(connection, 1) {
            cx.local.refused.over_quota += 1;
            let response = forward.given_up();
            return cx.out.push(Effect::Respond { id, response });
        }
        forwards.count += 1;
        forwards.quota.charge(connection, 1);
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
        let Some(member) = owner.and_then(|owner| view.member(owner)) else {
            let response = forward.given_up();
            return self.end(cx, view, (id, forward), response);
        };
        let timeout_ms = left_ms.min(forward.each_ms);
        let (owner, address) = (member.info.incarnation, member.address);
        forward.tried.push(owner);
        let (purpose, request) = (CallPurpose::Forward { request: id }, forward.request.clone());
        let request = (request, forward.seen);
        cx.local.call_after(purpose, (address, Some(owner)), request, timeout_ms, cx.out);
        self.pending.insert(id, forward);
    }

    /// Passes the answer of an owner on, or asks the next one. Returns the entry that a read found.
    pub(super) fn call_completed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        id: RequestId,
        result: CallResult,
    ) -> Option<Record> {
        let mut forward = self.pending.remove(&id)?;
        let is_write = matches!(forward.request, Request::Conditional(_));
        let mut found = result.as_ref().ok().and_then(|response| forward.found(response, cx.now));
        let response = match result {
            Ok(Response::NotFound { warming, known }) => {
                forward.known = forward.known.max(known);
                let known = forward.known;
                (!warming).then_some(Response::NotFound { warming, known })
            }
            Ok(Response::Refused(refusal)) => match refusal.code {
                RefusalCode::Warming | RefusalCode::WrongNode | RefusalCode::Overloaded => None,
                _ => Some(Response::Refused(refusal)),
            },
            Ok(response) if forward.is_outdated(cx, &response, found.as_ref()) => {
                forward.is_behind = true;
                found = None;
                None
            }
            Ok(response) => Some(response),
            // Sent to another owner, it could be made twice.
            Err(CallFailure::NoAnswer) if is_write => Some(Response::Unconfirmed),
            Err(_) => None,
        };
        let is_read = matches!(forward.request, Request::Get { .. });
        match response {
            Some(response) => self.end(cx, view, (id, forward), response),
            // Nobody waits any more.
            None if forward.connection.is_none() => {}
            None => self.ask(cx, view, id, forward),
        }
        found.filter(|_| is_read)
    }

    /// Gives the caller its response, and remembers a lease that it gets.
    fn end<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        (id, forward): (RequestId, Forward),
        response: Response,
    ) {
        let granted = match &response {
            Response::LeaseGranted { token } => forward.tried.last().map(|owner| PassedLease {
                key: forward.key.clone(),
                token: *token,
                owner: *owner,
            }),
            _ => None,
        };
        let Some(connection) = forward.connection else {
            return granted.into_iter().for_each(|lease| lease.release(cx, view));
        };
        self.quota.release(connection, 1);
        if let Some(lease) = granted.filter(|_| !connection.is_single_use()) {
            let leases = self.leases.entry(connection).or_default();
            leases.push_back(lease);
            if leases.len() > LEASES_MAX {
                leases.pop_front();
            }
        }
        cx.out.push(Effect::Respond { id, response });
    }

    /// Ends what was passed on for a connection that ended, and the leases that it has.
    pub(super) fn connection_closed<B: Backend>(
        &mut self,
        cx: &mut Context<'_, B>,
        view: &View,
        connection: ConnectionId,
    ) {
        let leases = self.leases.remove(&connection).unwrap_or_default();
        leases.into_iter().for_each(|lease| lease.release(cx, view));
        if self.quota.used_by(connection) == 0 {
            return;
        }
        let is_of = |forward: &&mut Forward| forward.connection == Some(connection);
        for forward in self.pending.values_mut().filter(is_of) {
            // A lease may be granted still: it is released then.
            forward.connection = None;
            self.quota.release(connection, 1);
        }
    }
}

impl PassedLease {
    /// Has its owner end a lease whose holder is gone.
    fn release<B: Backend>(self, cx: &mut Context<'_, B>, view: &View) {
        let Self { key, token, owner } = self;
        if let Some(member) = view.member(owner) {
            let to = (member.address, Some(owner));
            let request = Request::Release { key, token, failed: false };
            cx.local.call(CallPurpose::Release, to, request, RELEASE_MS, cx.out);
        }
    }
}

impl Forward {
    /// A request that an owner may take until then to answer.
    fn new((request, key): (Request, Key), connection: ConnectionId, until: Instant) -> Self {
        Self {
            request,
            key,
            connection: Some(connection),
            seen: 0,
            until,
            each_ms: u64::MAX,
            tried: Vec::new(),
            known: 0,
            is_behind: false,
        }
    }

    /// Whether this node knows that the key has changed since, or a purge that has ended the value in a response. The
    /// owner knows in a moment.
    fn is_outdated<B: Backend>(
        &self,
        cx: &Context<'_, B>,
        response: &Response,
        found: Option<&Record>,
    ) -> bool {
        let store = &cx.replica.store;
        let is_before = |version| store.version(self.key.hash()) > Some(version);
        let is_ended =
            |record: &Record| is_before(record.version) || store.is_purged(record, cx.now);
        match response {
            Response::NotMet { current: Some(current) } => is_before(*current),
            _ => found.is_some_and(is_ended),
        }
    }

    /// The entry of a response that has one.
    fn found(&self, response: &Response, now: Now) -> Option<Record> {
        let Response::Found { value, metadata, version, remaining_ms } = response else {
            return None;
        };
        let (value, metadata) = (value.clone(), metadata.clone());
        let change = Change::Put { value, metadata, expires: now.mono.plus_ms(*remaining_ms) };
        Some(Record { key: self.key.clone(), version: *version, change })
    }

    /// The response when no owner has answered.
    fn given_up(&self) -> Response {
        match self.request {
            Request::Get { .. } => Response::NotFound { warming: true, known: self.known },
            Request::Conditional(_) if self.is_behind => {
                let text = "the owners of the key have not received its last change yet";
                Response::refused(RefusalCode::Behind, text)
            }
            _ => not_an_owner(),
        }
    }
}
