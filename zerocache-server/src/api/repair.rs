//! `/v1/repair`: makes the copies of a key agree.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse, Response as HttpResponse},
};
use futures_util::future;
use serde::Serialize;
use zerocache_core::{
    access::Operation,
    entry::{Change, Record},
    key::Key,
    locate::{CopyState, Judgement, KeyCopy, NodeCopies, Verdict},
    node::{Write, WriteOp},
    ttl::Ttl,
    version::{Incarnation, Version},
    wire::{Ack, Receipt, ReplicatedRecord, Request, Response, Written},
};
use zerocache_net::clock;

use super::{
    Api,
    copies::{self, CopiesBody, NodeName, await_each_node, call_address, key_of},
    error::ApiError,
    query::Query,
};
use crate::{access::Caller, driver::Severity};

/// The outcome of a repair.
#[derive(Serialize)]
struct RepairBody {
    /// The nodes whose copies differed.
    repaired: Vec<RepairedBody>,
    /// The version with which the value was written again; none if that was not needed.
    rewritten: Option<String>,
    /// The copies afterwards.
    #[serde(flatten)]
    copies: CopiesBody,
}

/// A node whose copy differed.
#[derive(Serialize)]
struct RepairedBody {
    #[serde(flatten)]
    node: NodeName,
    before: &'static str,
    after: &'static str,
}

/// Repairs the copies of a key.
pub(super) async fn repair(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
    RawQuery(query): RawQuery,
) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(query.as_deref().unwrap_or_default())?;
    query.allow(&["key", "key_hex", "from"])?;
    let key = key_of(&query, api.key_bytes_max)?;
    api.permit(&caller, Operation::Write(key.as_bytes()))?;
    let before = api.driver.locate(vec![key.clone()], true).await?;
    let from = query.get("from").map(|text| node_named(&before, text)).transpose()?;
    let by = caller.name.as_deref().unwrap_or_default();
    tracing::info!(action = "repair", name = by, peer = %caller.ip(), "repair requested");
    api.driver.recent_events().record(Severity::Info, "repair requested");
    let rewritten = run(&api, &key, &before, from).await?;
    let after = api.driver.locate(vec![key.clone()], true).await?;
    let body = RepairBody {
        repaired: repaired(&before, &after),
        rewritten: rewritten.map(|version| version.to_string()),
        copies: CopiesBody::new(&api, &key, &after).await,
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Returns the node that a parameter names by its id or its address.
fn node_named<'a>(nodes: &'a [NodeCopies], text: &str) -> Result<&'a NodeCopies, ApiError> {
    let address: Option<SocketAddr> = text.parse().ok();
    let is_named = |node: &&NodeCopies| {
        node.node.incarnation.to_string() == text
            || address.is_some_and(|address| node.node.addresses.contains(&address))
    };
    let node = nodes.iter().find(is_named);
    let has_value =
        |node: &&NodeCopies| held(node).is_some_and(|copy| copy.state == CopyState::Value);
    node.filter(has_value).ok_or_else(|| {
        ApiError::bad_query(format!("from={text:?} names no node that has a value of this key"))
    })
}

fn held(node: &NodeCopies) -> Option<&KeyCopy> {
    node.copies.first()
}

/// Brings the copies into agreement. Returns the version of the value if it was written again.
async fn run(
    api: &Api,
    key: &Key,
    nodes: &[NodeCopies],
    from: Option<&NodeCopies>,
) -> Result<Option<Version>, ApiError> {
    let judgement = Judgement::of(nodes, 0);
    let Some(newest) = judgement.newest else { return Ok(None) };
    let is_sound = |node: &&NodeCopies| {
        let copy = held(node).filter(|copy| copy.state == CopyState::Value);
        copy.is_some_and(|copy| copy.version == Some(newest) && copy.digest == judgement.digest)
    };
    let verdicts = || nodes.iter().zip(&judgement.verdicts);
    let is_damaged = judgement.verdicts.contains(&Verdict::Damaged);
    let differs = from.is_some_and(|from| !is_sound(&from));
    if is_damaged || differs {
        let source = from.or_else(|| nodes.iter().find(is_sound)).ok_or_else(|| {
            ApiError::conflict("no content has a majority: say which node is right, from=NODE")
        })?;
        let value = fetch(api, key, source).await?;
        return rewrite(api, key, newest, value).await.map(Some);
    }
    let change = match nodes.iter().find(is_sound).filter(|_| judgement.has_value) {
        Some(source) => fetch(api, key, source).await?,
        None => Change::Delete,
    };
    if judgement.is_purged && !judgement.agrees() {
        // The value has the version of its tombstones: a delete ends it where the purge is not known.
        let write = Write { ack: Ack::All, ..Write::new(key.clone(), WriteOp::Delete) };
        return match api.driver.write(write).await {
            Response::Written(Written { version, .. }) => Ok(version),
            Response::Refused(refusal) => Err(refusal.into()),
            _ => Err(ApiError::unexpected()),
        };
    }
    let record = Record { key: key.clone(), version: newest, change };
    let targets = verdicts().filter(|(_, verdict)| verdict.disagrees()).map(|(node, _)| node);
    let pushes = future::join_all(targets.map(|node| push(api, node, &record))).await;
    let is_refused = pushes.into_iter().any(|receipt| receipt == Some(Receipt::Refused));
    match record.change {
        // Older than the retention of a node that knows nothing of the key.
        change @ Change::Put { .. } if is_refused => {
            rewrite(api, key, newest, change).await.map(Some)
        }
        _ => Ok(None),
    }
}

/// Reads the value of a node.
async fn fetch(api: &Api, key: &Key, source: &NodeCopies) -> Result<Change, ApiError> {
    let expected = held(source).and_then(|copy| copy.version);
    match copies::fetch(api, key, source).await {
        Some(Record { version, change, .. }) if Some(version) == expected => Ok(change),
        _ => Err(ApiError::conflict("the key changed, or its node fell silent, meanwhile")),
    }
}

/// Sends a record to one node. Returns its receipt, if it answers.
async fn push(api: &Api, node: &NodeCopies, record: &Record) -> Option<Receipt> {
    // A witness gets the version alone.
    let witness = held(node).is_some_and(|copy| copy.is_witness);
    let records = vec![ReplicatedRecord { record: record.clone(), relay: false, witness }];
    match api.driver.ask_node(call_address(node)?, Request::Replicate(records)).await {
        Ok(Response::Replicated(receipts)) => receipts.first().copied(),
        _ => None,
    }
}

/// Writes a value again, with a version above `newest` and what is left of its life.
async fn rewrite(
    api: &Api,
    key: &Key,
    newest: Version,
    change: Change,
) -> Result<Version, ApiError> {
    let changed = || ApiError::conflict("the key was written meanwhile");
    if api.driver.storage().version(key.hash()).is_some_and(|known| known > newest) {
        return Err(changed());
    }
    let Change::Put { value, metadata, expires } = change else { return Err(changed()) };
    let ttl = Ttl::from_millis(expires.since_ms(clock::mono()));
    let ttl = ttl.map_err(|_| ApiError::conflict("the value expires within a second"))?;
    let op = WriteOp::Put { value, metadata, ttl };
    let write = Write { ack: Ack::All, seen: newest.stamp(), ..Write::new(key.clone(), op) };
    let version = match api.driver.write(write).await {
        Response::Written(Written { version: Some(version), .. }) => version,
        Response::Refused(refusal) => return Err(refusal.into()),
        _ => return Err(changed()),
    };
    await_each_node(api, &[(key.clone(), version)]).await;
    Ok(version)
}

/// The nodes whose copies differed, with the verdicts before and after.
fn repaired(before: &[NodeCopies], after: &[NodeCopies]) -> Vec<RepairedBody> {
    let verdicts = Judgement::of(after, 0).verdicts;
    let verdict_after = |id: Incarnation| {
        let at = after.iter().position(|node| node.node.incarnation == id);
        at.map_or(Verdict::Unreachable, |at| verdicts[at])
    };
    let differing = before.iter().zip(Judgement::of(before, 0).verdicts);
    let differing = differing.filter(|(_, verdict)| verdict.disagrees());
    let body = |(node, verdict): (&NodeCopies, Verdict)| RepairedBody {
        node: NodeName::of(node),
        before: verdict.as_str(),
        after: verdict_after(node.node.incarnation).as_str(),
    };
    differing.map(body).collect()
}
