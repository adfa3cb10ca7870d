//! Purges: `/v1/tags/{tag}/purge` and `/v1/purge`.

use axum::{
    Json,
    body::Body,
    http::{Method, StatusCode},
    response::{IntoResponse, Response as HttpResponse},
};
use futures_util::future;
use serde::Serialize;
use zerocache_core::{
    access::Operation,
    node::Write,
    purge::{HOLD_MS_MAX, PurgeMode, PurgeTarget},
    version::Version,
    wire::Ack,
};

use super::{
    Api,
    entries::{WrittenBody, written_body},
    error::ApiError,
    key,
    query::Query,
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
struct TagBody {
    tag: String,
    #[serde(flatten)]
    written: WrittenBody,
}

/// How to purge.
struct Manner {
    mode: PurgeMode,
    hold_ms: u64,
    ack: Ack,
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
            ack: if query.get("ack").is_some() { query.ack()? } else { Ack::Region },
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
    query.allow(&MANNER)?;
    let manner = Manner::parse(&query)?;
    if rest == "purge" && *method == Method::POST {
        return many(api, caller, &manner, body).await;
    }
    let is_purge = method.as_str() == "PURGE";
    let raw = match rest.strip_suffix("/purge") {
        Some(raw) if *method == Method::POST => raw,
        _ if is_purge => rest,
        Some(_) => return Err(ApiError::method(method, "/v1/tags/TAG/purge").allowing("POST")),
        None => return Err(ApiError::method(method, "/v1/tags/TAG").allowing("PURGE")),
    };
    let tag = key::percent_decode(raw).and_then(|tag| String::from_utf8(tag).ok());
    let tag = tag.ok_or_else(|| ApiError::bad_query("the tag is not percent-encoded UTF-8"))?;
    let (status, body) = written_body(purge(api, caller, &tag_target(&tag)?, &manner).await?)?;
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
    let mut bodies = Vec::with_capacity(tags.len());
    let mut status = StatusCode::OK;
    for (tag, response) in tags.into_iter().zip(future::join_all(purges).await) {
        let (code, written) = written_body(response?)?;
        status = status.max(code);
        bodies.push(TagBody { tag: tag.to_owned(), written });
    }
    Ok((status, Json(bodies)).into_response())
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
    let (status, body) = written_body(purge(api, caller, &target, &manner).await?)?;
    Ok((status, Json(body)).into_response())
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
    let write = Write { ack, version: replayed.into(), ..Write::purge(target, mode, hold_ms) };
    Ok(api.driver.write(write).await)
}
