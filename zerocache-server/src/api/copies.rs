//! `/v1/locate`, `/v1/verify`: where the copies of a key are, and whether they agree; and writes that wait for
//! each node.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use bytes::Bytes;
use futures_util::future;
use serde::Serialize;
use tokio::time::sleep;
use zerocache_core::{
    access::Operation,
    entry::{Change, Record},
    key::Key,
    limits::Limits,
    locate::{CopyState, Judgement, KeyCopy, LOCATED_KEYS_MAX, NodeCopies, Reply, Verdict},
    metadata::Metadata,
    store::StoredItem,
    version::{Incarnation, Version},
    wire::{Request, Response},
};
use zerocache_net::{clock, security::TlsMode};

use super::{
    Api,
    entries::{WrittenBody, written_body},
    error::ApiError,
    query::Query,
};
use crate::{access::Caller, hex};

/// How long a write waits for each node.
const EACH_NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// The first pause between two questions whether all nodes have a write; each further one is twice as long, up to
/// [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(10);

const PAUSE_MAX: Duration = Duration::from_millis(200);

/// The copies of a key. But for latencies, ranks and remaining lifetimes every node gives the same.
#[derive(Serialize)]
pub(super) struct CopiesBody {
    /// The key as text; none if it is none.
    key: Option<String>,
    key_hex: String,
    /// Whether any node serves a value of the newest version.
    found: bool,
    /// The newest version that any node knows.
    version: Option<String>,
    /// Whether all nodes that answered agree.
    pub(super) agrees: bool,
    /// Where else the value lies, as its writer said.
    origins: Vec<String>,
    /// Sorted by region and address.
    nodes: Vec<CopyBody>,
}

/// A node, and what it holds of the key.
#[derive(Serialize)]
struct CopyBody {
    #[serde(flatten)]
    node: NodeName,
    zone: Option<String>,
    /// Where the key is read at this node.
    url: Option<String>,
    /// The readiness of the node.
    node_state: Option<&'static str>,
    #[serde(flatten)]
    held: HeldBody,
    ttl_ms: Option<u64>,
    /// What is left of the fresh time; 0 for a stale value.
    fresh_ms: Option<u64>,
    bytes: Option<u64>,
    digest: Option<String>,
    /// Whether a purge ended the value.
    purged: bool,
    /// Whether the node is to hold the value: `owner`, or `witness`, which knows the version alone.
    role: Option<&'static str>,
    verdict: &'static str,
    /// The position by latency from the node that was asked, which is 1.
    rank: Option<usize>,
    latency_ms: Option<f64>,
}

/// Which node it is.
#[derive(Clone, Serialize)]
pub(super) struct NodeName {
    id: String,
    region: String,
    address: Option<String>,
}

/// What a node holds.
#[derive(Serialize)]
pub(super) struct HeldBody {
    /// `value`, `tombstone`, `nothing`, or why that is unknown: `unreachable` or `unsupported`.
    state: &'static str,
    version: Option<String>,
}

/// A node, and whether it has a write.
#[derive(Serialize)]
pub(super) struct NodeAck {
    #[serde(flatten)]
    node: NodeName,
    #[serde(flatten)]
    held: HeldBody,
    /// Whether it has the write, or a later one.
    pub(super) acknowledged: bool,
}

impl NodeName {
    pub(super) fn of(node: &NodeCopies) -> Self {
        let NodeCopies { node, .. } = node;
        Self {
            id: node.incarnation.to_string(),
            region: node.region.clone(),
            address: node.addresses.first().map(ToString::to_string),
        }
    }
}

impl HeldBody {
    pub(super) fn of(node: &NodeCopies, copy: Option<&KeyCopy>) -> Self {
        match copy {
            Some(copy) => Self {
                state: copy.state.as_str(),
                version: copy.version.map(|version| version.to_string()),
            },
            None => Self { state: unknown(node.reply), version: None },
        }
    }
}

/// Why it is unknown what a node holds.
fn unknown(reply: Reply) -> &'static str {
    match reply {
        Reply::Answered => Reply::Unreachable.as_str(),
        reply => reply.as_str(),
    }
}

impl CopiesBody {
    pub(super) async fn new(api: &Api, key: &Key, nodes: &[NodeCopies]) -> Self {
        let judgement = Judgement::of(nodes, 0);
        let origins = origins(api, key, nodes, &judgement).await;
        let latencies = latencies(api, nodes);
        let mut by_latency: Vec<_> = latencies.values().copied().collect();
        by_latency.sort_unstable();
        let path = path_of(api, key);
        let one = |(node, verdict): (&NodeCopies, &Verdict)| {
            let latency_us = latencies.get(&node.node.incarnation).copied();
            let rank = |us| 1 + by_latency.partition_point(|other| *other < us);
            CopyBody::new(node, (*verdict, &path), latency_us.map(|us| (rank(us), us)))
        };
        let bytes = key.as_bytes();
        Self {
            key: str::from_utf8(bytes).ok().map(str::to_owned),
            key_hex: hex::encode(bytes),
            found: judgement.has_value,
            version: judgement.newest.map(|version| version.to_string()),
            agrees: judgement.agrees(),
            origins,
            nodes: nodes.iter().zip(&judgement.verdicts).map(one).collect(),
        }
    }
}

impl CopyBody {
    fn new(
        node: &NodeCopies,
        (verdict, (scheme, path)): (Verdict, &(&str, String)),
        rank: Option<(usize, u64)>,
    ) -> Self {
        let copy = node.copies.first();
        let value = copy.filter(|copy| copy.state == CopyState::Value);
        let address = node.node.addresses.first();
        Self {
            node: NodeName::of(node),
            zone: node.node.zone.clone(),
            url: address.map(|address| format!("{scheme}://{address}{path}")),
            node_state: node.state().map(|state| state.as_str()),
            held: HeldBody::of(node, copy),
            ttl_ms: value.map(|copy| copy.remaining_ms),
            fresh_ms: value.map(|copy| copy.fresh_ms),
            bytes: value.map(|copy| copy.bytes),
            digest: value.and_then(|copy| copy.digest).map(|digest| format!("{digest:032x}")),
            purged: copy.is_some_and(|copy| copy.is_purged),
            role: copy.map(|copy| if copy.is_witness { "witness" } else { "owner" }),
            verdict: verdict.as_str(),
            rank: rank.map(|(rank, _)| rank),
            latency_ms: rank.map(|(_, us)| us as f64 / 1_000.0),
        }
    }
}

/// The origins in the metadata of the newest value: from this node, or another one that has it.
async fn origins(api: &Api, key: &Key, nodes: &[NodeCopies], judgement: &Judgement) -> Vec<String> {
    let has_newest = |(node, verdict): &(&NodeCopies, &Verdict)| {
        let copy = node.copies.first();
        let has_value = copy.is_some_and(|copy| copy.state == CopyState::Value);
        **verdict == Verdict::Same
            && has_value
            && copy.and_then(|copy| copy.version) == judgement.newest
    };
    let mut holders =
        nodes.iter().zip(&judgement.verdicts).filter(has_newest).map(|(node, _)| node);
    let own = api.driver.storage().peek(key, clock::now()).hit();
    let own = own.filter(|entry| Some(entry.version) == judgement.newest);
    let metadata = match (own, holders.next()) {
        (Some(entry), Some(_)) => entry.metadata,
        (None, Some(holder)) => match fetch(api, key, holder).await {
            Some(Record { change: Change::Put { metadata, .. }, .. }) => metadata,
            _ => return Vec::new(),
        },
        (_, None) => return Vec::new(),
    };
    let metadata = Metadata::decode(&metadata).unwrap_or_default();
    metadata.origins().iter().map(ToString::to_string).collect()
}

/// Reads the value of a node. It counts as no read there.
pub(super) async fn fetch(api: &Api, key: &Key, holder: &NodeCopies) -> Option<Record> {
    let request = Request::Fetch(vec![key.hash()]);
    let response = api.driver.ask_node(call_address(holder)?, request).await;
    let Ok(Response::Items { items, .. }) = response else { return None };
    items.into_iter().find_map(|item| match item.into_stored(clock::mono()) {
        StoredItem::Value(record) if record.key == *key => Some(record),
        _ => None,
    })
}

/// Where a node is called.
pub(super) fn call_address(node: &NodeCopies) -> Option<(SocketAddr, Incarnation)> {
    Some((*node.node.addresses.first()?, node.node.incarnation))
}

/// The scheme of the nodes' addresses, and the path of a key.
fn path_of(api: &Api, key: &Key) -> (&'static str, String) {
    let is_encrypted = api.access.security().mode() == TlsMode::Required;
    let mut path = super::ENTRIES_PREFIX.to_owned();
    // Readers of URLs leave such segments out.
    let has_dots =
        key.as_bytes().split(|byte| *byte == b'/').any(|part| matches!(part, b"." | b".."));
    for byte in key.as_bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_.~/".contains(byte);
        if is_plain && !(has_dots && *byte == b'/') {
            path.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            let _written = write!(path, "%{byte:02X}");
        }
    }
    (if is_encrypted { "https" } else { "http" }, path)
}

/// The round-trip time to each node that answered, in microseconds: of one that this node does not monitor, that
/// to its region.
fn latencies(api: &Api, nodes: &[NodeCopies]) -> BTreeMap<Incarnation, u64> {
    let status = api.driver.status();
    let of_region =
        |name: &str| status.regions.iter().find(|region| region.name == name)?.latency_us;
    let latency = |id: Incarnation, region: &str| {
        let (own, others) = status.nodes.split_first()?;
        if own.id == id {
            return Some(0);
        }
        let member = others.iter().find(|node| node.id == id);
        member.and_then(|node| node.latency_us).or_else(|| of_region(region))
    };
    let answered = nodes.iter().filter(|node| node.reply == Reply::Answered);
    let pairs = answered.filter_map(|NodeCopies { node, .. }| {
        Some((node.incarnation, latency(node.incarnation, &node.region)?))
    });
    pairs.collect()
}

/// Returns the key that a query names, as text or in hexadecimal digits.
pub(super) fn key_of(query: &Query<'_>, bytes_max: usize) -> Result<Key, ApiError> {
    let bytes = match (query.get("key"), query.get("key_hex")) {
        (Some(text), None) => text.as_bytes().to_vec(),
        (None, Some(digits)) => {
            hex::decode(digits).ok_or_else(|| ApiError::bad_query("key_hex is not hexadecimal"))?
        }
        _ => return Err(ApiError::bad_query("say which key: key=KEY, or key_hex=DIGITS")),
    };
    let limits = Limits { key_bytes_max: bytes_max, ..Limits::default() };
    Ok(Key::new(Bytes::from(bytes), &limits)?)
}

/// Lists where the copies of a key are.
pub(super) async fn locate(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
    RawQuery(query): RawQuery,
) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(query.as_deref().unwrap_or_default())?;
    query.allow(&["key", "key_hex", "digest"])?;
    let (key, digest) = (key_of(&query, api.key_bytes_max)?, query.flag("digest")?);
    answer(&api, &caller, key, digest).await
}

/// Compares the copies of a key.
pub(super) async fn verify(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
    RawQuery(query): RawQuery,
) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(query.as_deref().unwrap_or_default())?;
    query.allow(&["key", "key_hex"])?;
    let key = key_of(&query, api.key_bytes_max)?;
    answer(&api, &caller, key, true).await
}

async fn answer(
    api: &Api,
    caller: &Caller,
    key: Key,
    digest: bool,
) -> Result<HttpResponse, ApiError> {
    let keys = vec![key.clone()];
    api.permit(caller, Operation::Locate(&keys))?;
    let nodes = api.driver.locate(keys, digest).await?;
    let body = CopiesBody::new(api, &key, &nodes).await;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// The outcome of a write, and which nodes have it.
#[derive(Serialize)]
pub(super) struct EachNodeBody {
    #[serde(flatten)]
    pub(super) written: WrittenBody,
    /// Every known node; none if too many such requests were in progress.
    pub(super) nodes: Option<Vec<NodeAck>>,
}

impl EachNodeBody {
    fn new(mut written: WrittenBody, nodes: Option<Vec<NodeAck>>, known: usize) -> Self {
        written.replicas_wanted = known as u32;
        if let Some(nodes) = &nodes {
            written.replicas = nodes.iter().filter(|node| node.acknowledged).count() as u32;
            written.replicas_wanted = nodes.len() as u32;
        }
        Self { written, nodes }
    }
}

/// Waits until every known node has these writes, given with the responses of this one.
pub(super) async fn at_each_node(
    api: &Api,
    writes: Vec<(Key, Response)>,
) -> Result<Vec<(StatusCode, Json<EachNodeBody>)>, ApiError> {
    let version = |response: &Response| match response {
        Response::Written(written) => written.version,
        _ => None,
    };
    // A write that was refused has no version.
    let awaited =
        writes.iter().filter_map(|(key, response)| Some((key.clone(), version(response)?)));
    let awaited: Vec<_> = awaited.collect();
    let mut acks = await_each_node(api, &awaited).await.into_iter();
    let known = api.driver.status().nodes.len();
    let body = |(_, response): (Key, Response)| {
        let nodes = version(&response).and_then(|_| acks.next().flatten());
        let (status, written) = written_body(response)?;
        Ok((status, Json(EachNodeBody::new(written, nodes, known))))
    };
    writes.into_iter().map(body).collect()
}

/// Waits until every known node has each of these versions, or for about 2 s. Returns who has them; none if too many
/// such requests are in progress.
pub(super) async fn await_each_node(
    api: &Api,
    writes: &[(Key, Version)],
) -> Vec<Option<Vec<NodeAck>>> {
    let deadline = clock::elapsed() + EACH_NODE_TIMEOUT;
    let chunks = writes.chunks(LOCATED_KEYS_MAX).map(|writes| await_some(api, writes, deadline));
    future::join_all(chunks).await.into_iter().flatten().collect()
}

/// The same, for writes that fit into one request. None is sent after `deadline`.
async fn await_some(
    api: &Api,
    writes: &[(Key, Version)],
    deadline: Duration,
) -> Vec<Option<Vec<NodeAck>>> {
    let keys: Vec<_> = writes.iter().map(|(key, _)| key.clone()).collect();
    let (mut pause, mut nodes) = (PAUSE_MIN, None);
    loop {
        nodes = api.driver.locate(keys.clone(), false).await.ok().or(nodes);
        let is_complete =
            nodes.as_ref().is_some_and(|nodes| nodes.iter().all(|node| has_all(node, writes)));
        if is_complete || clock::elapsed() + pause >= deadline {
            break;
        }
        sleep(pause).await;
        pause = PAUSE_MAX.min(2 * pause);
    }
    let acks = |(at, (_, version)): (usize, &(Key, Version))| {
        Some(nodes.as_ref()?.iter().map(|node| ack_of(node, at, *version)).collect())
    };
    writes.iter().enumerate().map(acks).collect()
}

fn has_all(node: &NodeCopies, writes: &[(Key, Version)]) -> bool {
    let mut copies = node.copies.iter().zip(writes);
    node.copies.len() == writes.len() && copies.all(|(copy, (_, version))| copy.has(*version))
}

fn ack_of(node: &NodeCopies, at: usize, version: Version) -> NodeAck {
    let copy = node.copies.get(at);
    NodeAck {
        node: NodeName::of(node),
        held: HeldBody::of(node, copy),
        acknowledged: copy.is_some_and(|copy| copy.has(version)),
    }
}
