//! Requests by clients and other nodes, and what the node reports of itself.

use alloc::{boxed::Box, vec::Vec};

use bytes::Bytes;

use super::{
    Caller, ClusterStatus, ConnectionId, DatagramCounts, DelayCounts, Effect, FeedCounts, Identity,
    LeaseCounts, Node, NodeConfig, Parts, PersistedState, ReadPolicy, RefusalCounts, RequestId,
    Write, WriteOp, clock_unset,
    feed::{FollowTerms, Interest},
    forward::ReadSource,
    leases::LeaseRequest,
    repair::{Repair, serve_versions},
    watchers::pong,
};
use crate::{
    access::Operation,
    cluster::{Member, Placement},
    store::Backend,
    time::Now,
    version::{Incarnation, Version},
    wire::{
        CONTENT_BYTES_MAX, Envelope, NodeState, RefusalCode, Request, RequestMessage, Response,
    },
};

impl<B: Backend> Node<B> {
    /// Handles a request.
    pub(super) fn request(
        &mut self,
        now: Now,
        (id, connection, caller): (RequestId, ConnectionId, Caller),
        message: RequestMessage,
        out: &mut Vec<Effect>,
    ) {
        let RequestMessage { envelope, request } = message;
        if let Some(response) = self.local.identity.refusal(&envelope, &request) {
            return out.push(Effect::Respond { id, response });
        }
        if let Some(text) = misuse(caller, &envelope, &request) {
            self.local.refused.identities += 1;
            let response = Response::refused(RefusalCode::Forbidden, text);
            return out.push(Effect::Respond { id, response });
        }
        // A request whose caller has given up is not carried out, and least of all stamped.
        let Some(timeout_ms) = envelope.remaining_ms() else {
            let response = Response::refused(RefusalCode::Expired, "the deadline had passed");
            return out.push(Effect::Respond { id, response });
        };
        let envelope = Envelope { timeout_ms, ..envelope };
        if let Some(response) = self.serve(now, (id, connection, caller), (envelope, request), out)
        {
            out.push(Effect::Respond { id, response });
        }
    }

    /// Carries out a request that is meant for this node and whose deadline has not passed. Returns the
    /// response, unless that is sent or comes later.
    fn serve(
        &mut self,
        now: Now,
        (id, connection, caller): (RequestId, ConnectionId, Caller),
        (envelope, request): (Envelope, Request),
        out: &mut Vec<Effect>,
    ) -> Option<Response> {
        let Envelope { from, seen, timeout_ms, delay_ms, .. } = envelope;
        if !is_write(&request) {
            let seen = Version::new(seen, Incarnation(0));
            self.replica.note_seen(now, seen, &mut self.local.refused);
        }
        let request = self.forward_lease(now, (id, connection), (request, &envelope), out)?;
        match request {
            Request::Put { key, value, metadata, ttl, ack, version } => {
                let op = WriteOp::Put { value, metadata, ttl };
                let write =
                    Write { ack, seen, timeout_ms, delay_ms, version, ..Write::new(key, op) };
                self.write(now, id, write, out);
            }
            request
            @ (Request::Delete { .. } | Request::Conditional(_) | Request::Purge { .. }) => {
                if let Some(write) = write_of(request) {
                    let is_forwarded = from.is_some();
                    let write = Write { seen, timeout_ms, delay_ms, is_forwarded, ..write };
                    self.write(now, id, write, out);
                }
            }
            Request::Get { key } => {
                let caller = (connection, ReadSource::of(from, connection));
                return self.read_or_forward(now, id, caller, (key, timeout_ms), out);
            }
            Request::Lease { key, lease_ms, wait_ms, newer_than } => {
                let wait_ms = wait_ms.saturating_sub(delay_ms);
                self.parts(now, out).cx.lease(LeaseRequest {
                    id,
                    connection,
                    key,
                    lease_ms,
                    wait_ms,
                    timeout_ms,
                    newer_than,
                });
            }
            Request::Follow { since, with_purges } => {
                let interest = if with_purges { Interest::Purges } else { Interest::Keys };
                let terms = FollowTerms { since, interest, at_once: false, timeout_ms };
                self.follow(now, (id, connection), terms, out);
            }
            Request::Listen { since, at_once } => {
                let terms = FollowTerms { since, interest: Interest::Details, at_once, timeout_ms };
                self.follow(now, (id, connection), terms, out);
            }
            Request::Watch { view } => {
                let Parts { mut cx, membership, watchers, .. } = self.parts(now, out);
                let caller = (id, connection);
                watchers.watch(&mut cx, &membership.view, caller, (view, timeout_ms));
            }
            Request::Locate { keys, digest, spread } => {
                self.locate(now, (id, timeout_ms), (keys, digest, spread), out);
            }
            request @ (Request::BucketVersions(_) | Request::Copy { .. }) => {
                self.begin_scan(now, (id, connection, from), request, out);
            }
            Request::Hello(hello) => {
                return Some(self.with_members(now, out, |members, cx| {
                    members.hello_received(cx, *hello, (connection, caller))
                }));
            }
            request @ (Request::Fetch(_) | Request::Adopt(_)) => {
                return self.fetch_for(now, id, (connection, from), request, out);
            }
            request => return self.serve_node(now, from, request, out),
        }
        None
    }

    fn follow(
        &mut self,
        now: Now,
        caller: (RequestId, ConnectionId),
        terms: FollowTerms,
        out: &mut Vec<Effect>,
    ) {
        let Parts { cx, .. } = self.parts(now, out);
        cx.replica.feed.follow((now, cx.local), caller, terms, cx.out);
    }

    /// Begins to carry out a request that takes a scan of the store.
    fn begin_scan(
        &mut self,
        now: Now,
        caller: (RequestId, ConnectionId, Option<Incarnation>),
        request: Request,
        out: &mut Vec<Effect>,
    ) {
        let Parts { mut cx, membership, repair, .. } = self.parts(now, out);
        match request {
            Request::BucketVersions(buckets) => {
                let (id, connection, _) = caller;
                repair.serve_bucket_versions((id, connection), buckets, cx.out);
            }
            Request::Copy { first_shard, last_shard, range, owned } => {
                let section = (first_shard, last_shard, range, owned);
                repair.serve_copy(&mut cx, &membership.view, caller, section);
            }
            _ => {}
        }
    }

    /// Carries out a request that is answered at once: most of those that nodes send each other.
    fn serve_node(
        &mut self,
        now: Now,
        from: Option<Incarnation>,
        request: Request,
        out: &mut Vec<Effect>,
    ) -> Option<Response> {
        Some(match request {
            Request::Ping => pong(now, &self.local, &self.membership.view),
            Request::Release { key, token, failed } => {
                self.release(now, (&key, token), failed, out)
            }
            Request::Goodbye => {
                // A goodbye is verified before it is believed: the next ping shows whether it is true.
                self.with_members(now, out, |members, cx| members.verify(cx, from));
                Response::Done
            }
            Request::Gossip(content) => Response::Gossip(match from {
                Some(from) => self.with_members(now, out, |members, cx| {
                    members.receive_gossip(cx, (from, false), &content, CONTENT_BYTES_MAX)
                }),
                None => Bytes::new(),
            }),
            Request::Replicate(_) if !self.local.clocks.is_set() => clock_unset(),
            Request::Replicate(batch) => {
                let Parts { mut cx, membership, replication, repair, .. } = self.parts(now, out);
                let (view, gossip) = (&membership.view, membership.gossip());
                if !view.placement().is_everyone() {
                    repair.note_guests(&cx, view, &batch);
                }
                replication.receive(&mut cx, view, batch, |node| gossip.region(node))
            }
            Request::Digests { window, resolution, last_sync_ms } => {
                let (local, store) = (&self.local, &self.replica.store);
                let mut response =
                    self.repair.serve_digests((now, local), store, window, resolution);
                let is_reached =
                    |id| self.membership.view.member(id).is_some_and(Member::takes_writes);
                if let Response::Digests(digests) = &mut response
                    && !from.is_some_and(is_reached)
                {
                    digests.placed = self.repair.placed_for_unreached(from);
                }
                if let (Some(peer), Some(ms), Response::Digests(_)) =
                    (from, last_sync_ms, &response)
                {
                    self.replication.synced(peer, Repair::synced_before(now.mono, ms));
                }
                response
            }
            Request::KeyVersions(keys) => serve_versions(&self.replica.store, &keys),
            Request::Offer(offered) => {
                let Parts { mut cx, membership, repair, .. } = self.parts(now, out);
                repair.serve_offer(&mut cx, &membership.view, from, &offered)
            }
            _ => return None,
        })
    }

    /// The node's own readiness.
    #[must_use]
    pub fn state(&self) -> NodeState {
        self.local.readiness.state()
    }

    /// Returns whether a miss here means that no local peer has the key either.
    #[must_use]
    pub fn misses_are_authoritative(&self) -> bool {
        self.local.readiness.misses_are_authoritative
    }

    /// What reads of the store may be answered with, for readers that bypass the node.
    #[must_use]
    pub fn read_policy(&self) -> ReadPolicy {
        self.local.readiness.read_policy()
    }

    /// Who has which values in the node's region, for readers that bypass the node.
    #[must_use]
    pub fn placement(&self) -> &Placement {
        self.membership.view.holders(self.misses_are_authoritative())
    }

    /// Whose requests the node accepts, for readers that bypass the node.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.local.identity
    }

    /// The incarnation in the versions that the node assigns: its own, or another one since it had to set its
    /// clock back.
    #[must_use]
    pub fn writer(&self) -> Incarnation {
        self.replica.clock.last().incarnation()
    }

    /// The configuration of the node.
    #[must_use]
    pub fn config(&self) -> &NodeConfig {
        &self.local.config
    }

    /// The first message of a connection to another node.
    #[must_use]
    pub fn introduction(&self, now: Now) -> RequestMessage {
        let envelope = Envelope {
            cluster: self.local.identity.cluster_id,
            from: Some(self.local.id()),
            ..Envelope::default()
        };
        let (now, local) = (self.local.clocks.adjust(now), &self.local);
        let hello = self.membership.hello(now, local, self.replica.store.entry_count(), 0);
        RequestMessage { envelope, request: Request::Hello(Box::new(hello)) }
    }

    /// Returns whether no write waits for a peer that responds.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.replication.is_flushed()
    }

    /// Returns whether the data is complete, as far as others had it when the node started.
    #[must_use]
    pub fn has_all_data(&self) -> bool {
        self.repair.has_all_data()
    }

    /// Returns whether a later process may start with what this one knows: it has all data, or all that it knew when
    /// an earlier process of it ended.
    #[must_use]
    pub fn may_persist(&self) -> bool {
        self.repair.may_persist()
    }

    /// The state that a later process of this node needs besides the entries.
    #[must_use]
    pub fn persisted_state(&self, now: Now) -> PersistedState {
        let now = self.local.clocks.adjust(now);
        let retention_ms = self.replica.store.retention_ms(now);
        self.repair.persisted_state(&self.local, &self.membership.view, retention_ms, now)
    }

    /// Returns `now` by the time that the nodes of the cluster agree on.
    #[must_use]
    pub fn cluster_time(&self, now: Now) -> Now {
        self.local.clocks.adjust(now)
    }

    /// The cluster as this node sees it at `now`.
    #[must_use]
    pub fn status(&self, now: Now) -> ClusterStatus {
        self.cluster_status(self.local.clocks.adjust(now))
    }

    /// The counters of datagrams.
    #[must_use]
    pub fn datagram_counts(&self) -> DatagramCounts {
        self.membership.datagram_counts()
    }

    /// How long writes of other nodes took to this one, by the region in which they were made; none stands for
    /// regions beyond [`DELAY_REGIONS_MAX`](super::DELAY_REGIONS_MAX), and for writers that this node does not
    /// know.
    pub fn replication_delays(&self) -> impl Iterator<Item = (Option<&str>, &DelayCounts)> {
        self.replication.delays().by_region()
    }

    /// The counters of leases.
    #[must_use]
    pub fn lease_counts(&self) -> LeaseCounts {
        self.replica.leases.counts()
    }

    /// The counters of the feed.
    #[must_use]
    pub fn feed_counts(&self) -> FeedCounts {
        self.replica.feed.counts()
    }

    /// The counters of what was refused because callers claimed or wanted too much.
    #[must_use]
    pub fn refusal_counts(&self) -> RefusalCounts {
        let refused = self.local.refused;
        let addresses = refused.addresses + self.membership.view.candidates().refused();
        RefusalCounts { addresses, ..refused }
    }

    /// How many callers wait for a change of the view.
    #[must_use]
    pub fn watcher_count(&self) -> usize {
        self.watchers.count()
    }

    /// The records, and their bytes, that wait for each peer; batches in flight are not counted.
    pub fn queued(&self) -> impl Iterator<Item = (usize, usize)> {
        self.replication.queued()
    }
}

/// Whether a request writes.
const fn is_write(request: &Request) -> bool {
    matches!(
        request,
        Request::Put { .. }
            | Request::Delete { .. }
            | Request::Conditional(_)
            | Request::Purge { .. }
    )
}

/// Returns the write that a request asks for; none if it asks for something else, or is the most frequent one.
fn write_of(request: Request) -> Option<Write> {
    Some(match request {
        Request::Delete { key, ack } => Write { ack, ..Write::new(key, WriteOp::Delete) },
        Request::Conditional(write) => Write::conditional(*write),
        Request::Purge { target, mode, hold_ms, ack, replayed } => {
            let write = Write::purge(&target, mode, hold_ms);
            Write { ack, version: replayed.into(), ..write }
        }
        _ => return None,
    })
}

/// Returns what is wrong with a request that only a node may send, or in the name of a node, if its caller
/// is not that node.
fn misuse(caller: Caller, envelope: &Envelope, request: &Request) -> Option<&'static str> {
    if !caller.is_node && (envelope.from.is_some() || Operation::of(request) == Operation::Join) {
        return Some("only a node of this cluster may send this request");
    }
    let introduced = match request {
        Request::Hello(hello) => hello.node.as_ref().map(|node| node.incarnation),
        _ => None,
    };
    let mut claimed = envelope.from.into_iter().chain(introduced);
    let is_other = claimed.any(|id| caller.identity.is_some_and(|proven| proven != id));
    is_other.then_some("the caller has proven to be another node")
}
