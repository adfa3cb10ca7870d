//! Where the copies of a key are, as any node says; reads at one of these places.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    slice,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use zerocache_core::{
    access::Denial,
    call::CallFailure,
    client::{FoundItem, ReadOptions, ReadResult},
    key::Key,
    locate::{CopyState, Judgement, KeyCopy, NodeCopies, Reply, Spread, Verdict},
    route::{Budget, Step, Tier},
    version::{Incarnation, Version},
    wire::{Request, Response},
};
use zerocache_net::clock;

use super::{Running, ZerocacheClient, engine::Engine, entry::Entry, millis, valid};
use crate::{Error, wait};

/// How long one node may take: it waits for others.
const NODE_TIMEOUT_MS: u64 = 2_000;

/// How long all of it may take, unless the caller says otherwise.
const TOTAL_MS: u64 = 5_000;

/// Asks where the copies of a key are; from [`ZerocacheClient::locate`].
///
/// # Cancellation
/// Dropping it gives the answer up.
#[must_use = "operations do nothing unless they are awaited"]
pub struct Locate {
    client: ZerocacheClient,
    key: Bytes,
    digest: bool,
    deadline: Option<Duration>,
    running: Option<Running<Locations>>,
}

impl Locate {
    pub(super) fn new(client: ZerocacheClient, key: &[u8]) -> Self {
        let key = Bytes::copy_from_slice(key);
        Self { client, key, digest: false, deadline: None, running: None }
    }

    /// Also compares the contents of the copies, by digests that the nodes compute: a copy of the newest version with
    /// another content is [`Verdict::Damaged`].
    pub fn digests(mut self) -> Self {
        self.digest = true;
        self
    }

    /// How long it may take in all, instead of 5 s; at least 1 ms is taken.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Asks now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Locations, Error> {
        wait::block_on(self)
    }
}

/// An error where no node can say: none is reachable, the key is invalid, or the permission is missing.
impl Future for Locate {
    type Output = Result<Locations, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { client, key, digest, deadline, running } = &mut *self;
        let running = running.get_or_insert_with(|| {
            let (key, digest) = (key.clone(), *digest);
            let total_ms = deadline.map_or(TOTAL_MS, |deadline| millis(deadline).max(1));
            client.run(
                move |engine| async move { engine.locate(valid(key)?, digest, total_ms).await },
            )
        });
        Pin::new(running).poll(context)
    }
}

/// Where the copies of a key are: one [`Location`] for each known node, nearest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Locations {
    /// The newest version that any node knows.
    pub version: Option<Version>,
    /// Whether all nodes that answered agree.
    pub agrees: bool,
    locations: Vec<Location>,
}

/// A node, and what it holds of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Location {
    /// The node.
    pub node: Incarnation,
    /// Its region.
    pub region: String,
    /// Its zone, if it states one.
    pub zone: Option<String>,
    /// Its first address.
    pub address: Option<SocketAddr>,
    /// What it holds; none if it did not say.
    pub copy: Option<KeyCopy>,
    /// How that compares with the others.
    pub verdict: Verdict,
    /// The round-trip time from this client: of a node that it does not know, that to its region.
    pub latency: Option<Duration>,
}

impl Location {
    /// Whether the node has this version, or a later one.
    #[must_use]
    pub fn has(&self, version: Version) -> bool {
        self.copy.is_some_and(|copy| copy.has(version))
    }
}

impl Locations {
    /// The nearest node with a value of the newest version, by the latencies that this client has measured.
    #[must_use]
    pub fn nearest(&self) -> Option<&Location> {
        let has_value = |location: &&Location| {
            let copy = location.copy.filter(|copy| copy.state == CopyState::Value);
            copy.is_some() && location.verdict == Verdict::Same
        };
        self.iter().find(has_value)
    }

    /// All nodes, nearest first.
    pub fn iter(&self) -> slice::Iter<'_, Location> {
        self.locations.iter()
    }

    fn new(nodes: Vec<NodeCopies>, latency_us: impl Fn(&NodeCopies) -> Option<u64>) -> Self {
        let Judgement { newest, verdicts, .. } = Judgement::of(&nodes, 0);
        let agrees = !verdicts.iter().any(|verdict| verdict.disagrees());
        let one = |(node, verdict): (NodeCopies, Verdict)| Location {
            latency: latency_us(&node).map(Duration::from_micros),
            node: node.node.incarnation,
            address: node.node.addresses.first().copied(),
            region: node.node.region,
            zone: node.node.zone,
            copy: node.copies.first().copied(),
            verdict,
        };
        let mut locations: Vec<_> = nodes.into_iter().zip(verdicts).map(one).collect();
        locations.sort_by_key(|location| location.latency.unwrap_or(Duration::MAX));
        Self { version: newest, agrees, locations }
    }
}

impl<'a> IntoIterator for &'a Locations {
    type Item = &'a Location;
    type IntoIter = slice::Iter<'a, Location>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Reads a key at one node; from [`Get::from`](super::Get::from).
///
/// # Cancellation
/// Dropping it gives the answer up.
#[must_use = "operations do nothing unless they are awaited"]
pub struct GetFrom(Running<Option<Entry>>);

impl GetFrom {
    pub(super) fn new(
        client: &ZerocacheClient,
        (key, options): (Bytes, ReadOptions),
        location: &Location,
        deadline: Option<Duration>,
    ) -> Self {
        let (node, address, total_ms) =
            (location.node, location.address, client.total_ms(deadline));
        Self(client.run(move |engine| async move {
            engine.get_from(valid(key)?, options, (node, address), total_ms).await
        }))
    }

    /// Reads now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Option<Entry>, Error> {
        wait::block_on(self)
    }
}

/// `None` where that node has no value any more. No other node is asked: an error if it does not answer.
impl Future for GetFrom {
    type Output = Result<Option<Entry>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl ZerocacheClient {
    /// Asks where the copies of a purge are.
    pub(crate) fn locate_reserved(&self, key: Key) -> Running<Locations> {
        self.run(move |engine| async move { engine.locate(key, false, TOTAL_MS).await })
    }
}

impl Engine {
    /// Asks nodes, one after the other, until one says where the copies of `key` are.
    pub(super) async fn locate(
        &self,
        key: Key,
        digest: bool,
        total_ms: u64,
    ) -> Result<Locations, Error> {
        let budget = Budget::new(clock::mono(), total_ms);
        self.ready(total_ms).await?;
        let steps = self.directory().steps_by_distance(clock::mono());
        let mut timed_out = false;
        for step in steps {
            let timeout_ms = budget.remaining_ms(clock::mono()).min(NODE_TIMEOUT_MS);
            if timeout_ms == 0 {
                break;
            }
            let request =
                Request::Locate { keys: vec![key.clone()], digest, spread: Spread::Cluster };
            match self.ask_step(&step, request, timeout_ms).await {
                Ok(Response::Located(nodes)) => {
                    return Ok(Locations::new(nodes, |node| self.latency_us(node)));
                }
                Ok(Response::Refused(refusal)) => {
                    if let Some(denial) = Denial::from_refusal_code(refusal.code) {
                        return Err(self.denied(denial, refusal.text));
                    }
                }
                Ok(_) => {}
                Err(failure) => timed_out |= failure == CallFailure::NoAnswer,
            }
        }
        Err(self.unreachable(timed_out))
    }

    /// The round-trip time to a node that answered, in microseconds.
    fn latency_us(&self, node: &NodeCopies) -> Option<u64> {
        let directory = self.directory();
        let known = directory.node(node.node.incarnation).and_then(|known| known.latency.micros());
        let of_region = || {
            let region = directory.nodes().filter(|other| other.info.region == node.node.region);
            region.filter_map(|other| other.latency.micros()).min()
        };
        (node.reply == Reply::Answered).then(|| known.or_else(of_region)).flatten()
    }

    async fn get_from(
        &self,
        key: Key,
        options: ReadOptions,
        (node, address): (Incarnation, Option<SocketAddr>),
        timeout_ms: u64,
    ) -> Result<Option<Entry>, Error> {
        let Some(address) = address else { return Err(self.unreachable(false)) };
        let step =
            Step { tier: Tier::Local, node, address, bytes_max: 0, value_bytes_max: u64::MAX };
        let tier =
            self.directory().node(node).filter(|node| !node.is_local()).map(|_| Tier::Nearest);
        let step = Step { tier: tier.unwrap_or(step.tier), ..step };
        let result = match self.ask_step(&step, Request::Get { key }, timeout_ms).await {
            Ok(Response::Found { value, metadata, version, remaining_ms }) => {
                self.note_seen(version);
                if options.at_least.is_some_and(|least| version < least) {
                    return Ok(None);
                }
                ReadResult::Found(step, FoundItem { value, metadata, version, remaining_ms })
            }
            Ok(Response::NotFound { known, warming }) => {
                ReadResult::Miss { known, is_doubtful: warming }
            }
            Ok(Response::Refused(refusal)) => match Denial::from_refusal_code(refusal.code) {
                Some(denial) => ReadResult::Denied(denial, refusal.text),
                None => ReadResult::Unreachable { timed_out: false },
            },
            Ok(_) => ReadResult::Unreachable { timed_out: false },
            Err(failure) => ReadResult::Unreachable { timed_out: failure == CallFailure::NoAnswer },
        };
        self.read_outcome(&options, result).0.map(|read| read.entry)
    }

    async fn ask_step(
        &self,
        step: &Step,
        request: Request,
        timeout_ms: u64,
    ) -> Result<Response, CallFailure> {
        let message = self.message(request, Some(step.node), timeout_ms, self.seen());
        self.transport.call(step.address, message, Duration::from_millis(timeout_ms)).await
    }
}
