//! Purges: `/v1/tags/{tag}/purge` and `/v1/purge`.

use axum::{
    Json,
    body::Body,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use futures_util::future;
use serde::Serialize;
use zerocache_core::{
    access::Operation,
    locate::{Judgement, NodeCopies},
    node::Write,
    purge::{HOLD_MS_MAX, PurgeMode, PurgeTarget},
    version::Version,
    wire::Ack,
};

use super::{
    Api,
    copies::{self, HeldBody, NodeName},
    entries::written_body,
    error::ApiError,
    key,
    query::{Query, WriteAck},
};
use crate::{access::Caller, http::read_body};

/// The path of tags.
pub(super) const TAGS_PREFIX: &str = "/v1/tags/";

/// The path of purges without a tag.
pub(super) const PURGE_PATH: &str = "/v1/purge";

/// The most tags of one request.
const TAGS_PER_REQUEST: usize = 256;

/// The largest body with tags, in bytes.
const TAGS_BYTES_MAX: u64 = 64 << 10;

/// The outcome of the purge of one of several tags.
#[derive(Serialize)]
struct TagBody<T> {
    tag: String,
    #[serde(flatten)]
    outcome: T,
}

/// The purges of a tag.
#[derive(Serialize)]
struct PurgesBody {
    tag: String,
    hard: PurgeBody,
    soft: PurgeBody,
}

/// The purge of one kind that a tag has, and who has it.
#[derive(Serialize)]
struct PurgeBody {
    /// The newest version; none if no node has such a purge.
    version: Option<String>,
    nodes: Vec<PurgeAtNode>,
}

#[derive(Serialize)]
struct PurgeAtNode {
    #[serde(flatten)]
    node: NodeName,
    #[serde(flatten)]
    held: HeldBody,
}

impl PurgeBody {
    fn new(nodes: &[NodeCopies], at: usize) -> Self {
        let one = |node| {
            let held = HeldBody::of(node, node.copies.get(at));
            PurgeAtNode { node: NodeName::of(node), held }
        };
        let version = Judgement::of(nodes, at).newest.map(|version| version.to_string());
        Self { version, nodes: nodes.iter().map(one).collect() }
    }
}

/// How to purge.
struct Manner {
    mode: PurgeMode,
    hold_ms: u64,
    ack: WriteAck,
    replayed: Option<Version>,
}

/// The parameters that all purges have.
const MANNER: [&str; 4] = ["soft", "hold", "ack", "version"];

impl Manner {
    fn parse(query: &Query<'_>) -> Result<Self, ApiError> {
        let hold_ms = match query.get("hold") {
            None => 0,
            Some(text) => {
                let seconds = text.parse::<u64>().ok().and_then(|n| n.checked_mul(1_000));
                seconds.filter(|ms| *ms <= HOLD_MS_MAX).ok_or_else(|| {
                    let most = HOLD_MS_MAX / 1_000;
                    let message =
                        format!("hold={text:?} is not a whole number of seconds from 0 to {most}");
                    ApiError::bad_query(message)
                })?
            }
        };
        let replayed = query.get("version").map(str::parse).transpose();
        Ok(Self {
            mode: if query.flag("soft")? { PurgeMode::Soft } else { PurgeMode::Hard },
            hold_ms,
            ack: match query.get("ack") {
                Some(_) => query.write_ack()?,
                None => WriteAck::OfNode(Ack::Region),
            },
            replayed: replayed.map_err(|error| ApiError::bad_query(format!("version: {error}")))?,
        })
    }
}

/// Handles the paths below [`TAGS_PREFIX`].
pub(super) async fn of_tags(
    api: &Api,
    caller: &Caller,
    (method, rest, query): (&Method, &str, Option<&str>),
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(query.unwrap_or_default())?;
    if matches!(*method, Method::GET | Method::HEAD) && !rest.ends_with("/purge") {
        query.allow(&[])?;
        return describe(api, caller, tag_of_path(rest)?).await;
    }
    query.allow(&MANNER)?;
    let manner = Manner::parse(&query)?;
    if rest == "purge" && *method == Method::POST {
        return many(api, caller, &manner, body).await;
    }
    let is_purge = method.as_str() == "PURGE";
    let raw = match rest.strip_suffix("/purge") {
        Some(raw) if *method == Method::POST => raw,
        None if is_purge => rest,
        Some(_) => return Err(ApiError::method(method, "/v1/tags/TAG/purge").allowing("POST")),
        None => return Err(ApiError::method(method, "/v1/tags/TAG").allowing("GET, HEAD, PURGE")),
    };
    let tag = tag_of_path(raw)?;
    one(api, caller, &tag_target(&tag)?, &manner).await
}

/// Says which nodes have the purges of a tag.
async fn describe(api: &Api, caller: &Caller, tag: String) -> Result<HttpResponse, ApiError> {
    let target = tag_target(&tag)?;
    let keys = vec![target.key(PurgeMode::Hard), target.key(PurgeMode::Soft)];
    api.permit(caller, Operation::Locate(&keys))?;
    let nodes = api.driver.locate(keys, false).await?;
    let [hard, soft] = [0, 1].map(|at| PurgeBody::new(&nodes, at));
    let body = PurgesBody { tag, hard, soft };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Purges one target.
async fn one(
    api: &Api,
    caller: &Caller,
    target: &PurgeTarget,
    manner: &Manner,
) -> Result<HttpResponse, ApiError> {
    let response = purge(api, caller, target, manner).await?;
    if manner.ack == WriteAck::EachNode {
        let writes = vec![(target.key(manner.mode), response)];
        let mut bodies = copies::at_each_node(api, writes).await?;
        return bodies.pop().map(IntoResponse::into_response).ok_or_else(ApiError::unexpected);
    }
    let (status, body) = written_body(response)?;
    Ok((status, Json(body)).into_response())
}

/// Purges several tags, one on each line of the body.
async fn many(
    api: &Api,
    caller: &Caller,
    manner: &Manner,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let text = read_body(body, TAGS_BYTES_MAX, &api.bodies).await?;
    let text = std::str::from_utf8(&text).map_err(|_| ApiError::bad_query("a tag is not UTF-8"))?;
    let tags: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    if tags.is_empty() || tags.len() > TAGS_PER_REQUEST {
        let message = format!("the body has 1 to {TAGS_PER_REQUEST} tags, one on each line");
        return Err(ApiError::bad_query(message));
    }
    // All are checked before the first is purged.
    let targets = tags.iter().map(|tag| tag_target(tag)).collect::<Result<Vec<_>, _>>()?;
    let purges = targets.iter().map(|target| purge(api, caller, target, manner));
    let responses = future::try_join_all(purges).await?;
    if manner.ack == WriteAck::EachNode {
        let keys = targets.iter().map(|target| target.key(manner.mode));
        let bodies = copies::at_each_node(api, keys.zip(responses).collect()).await?;
        return Ok(listed(&tags, bodies.into_iter().map(|(code, Json(body))| (code, body))));
    }
    let bodies = responses.into_iter().map(written_body).collect::<Result<Vec<_>, _>>()?;
    Ok(listed(&tags, bodies))
}

/// Returns the outcomes of several tags.
fn listed<T: Serialize>(
    tags: &[&str],
    outcomes: impl IntoIterator<Item = (StatusCode, T)>,
) -> HttpResponse {
    let mut status = StatusCode::OK;
    let body = |(tag, (code, outcome)): (&&str, (StatusCode, T))| {
        status = status.max(code);
        TagBody { tag: (*tag).to_owned(), outcome }
    };
    let bodies: Vec<_> = tags.iter().zip(outcomes).map(body).collect();
    (status, Json(bodies)).into_response()
}

/// Handles [`PURGE_PATH`]: everything, or one namespace.
pub(super) async fn of_all(
    api: &Api,
    caller: &Caller,
    (method, query): (&Method, Option<&str>),
) -> Result<HttpResponse, ApiError> {
    if *method != Method::POST {
        return Err(ApiError::method(method, PURGE_PATH).allowing("POST"));
    }
    let query = Query::parse(query.unwrap_or_default())?;
    let [soft, hold, ack, version] = MANNER;
    query.allow(&[soft, hold, ack, version, "everything", "namespace"])?;
    let target = match (query.get("everything"), query.get("namespace")) {
        (Some("yes"), None) => PurgeTarget::Everything,
        (None, Some(namespace)) => PurgeTarget::namespace(namespace)
            .map_err(|error| ApiError::bad_query(format!("namespace: {error}")))?,
        _ => {
            let message = "say what to purge: everything=yes, or namespace=NAME";
            return Err(ApiError::bad_query(message));
        }
    };
    let manner = Manner::parse(&query)?;
    one(api, caller, &target, &manner).await
}

fn tag_of_path(raw: &str) -> Result<String, ApiError> {
    let tag = key::percent_decode(raw).and_then(|tag| String::from_utf8(tag).ok());
    tag.ok_or_else(|| ApiError::bad_query("the tag is not percent-encoded UTF-8"))
}

fn tag_target(tag: &str) -> Result<PurgeTarget, ApiError> {
    PurgeTarget::tag(tag).map_err(|error| ApiError::bad_query(format!("{tag:?}: {error}")))
}

async fn purge(
    api: &Api,
    caller: &Caller,
    target: &PurgeTarget,
    manner: &Manner,
) -> Result<zerocache_core::wire::Response, ApiError> {
    let Manner { mode, hold_ms, ack, replayed } = *manner;
    api.permit(caller, Operation::Purge { target, is_held: hold_ms > 0 })?;
    let (ack, version) = (ack.of_node(), replayed.into());
    let write = Write { ack, version, ..Write::purge(target, mode, hold_ms) };
    Ok(api.driver.write(write).await)
}
