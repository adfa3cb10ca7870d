//! `/v1/entries/{key}`: the face for curl and other languages.

use axum::{
    Json,
    body::Body,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use serde::Serialize;
use zerocache_core::{
    key::Key,
    metadata::Freshness,
    node::{Input, Write, WriteOp, WriteScope},
    wire::{Ack, Response, Status, Written},
};

use super::{
    Api,
    error::ApiError,
    key,
    query::{self, Query},
    served::Served,
};
use crate::http::read_body;

/// What remains of an entry's life, in milliseconds.
const TTL_MS: HeaderName = HeaderName::from_static("zerocache-ttl-ms");

/// What remains of an entry's fresh time, in milliseconds, where it may be served longer.
const FRESH_MS: HeaderName = HeaderName::from_static("zerocache-fresh-ms");

/// On what condition an entry may still be served that is past its fresh time.
const STALE: HeaderName = HeaderName::from_static("zerocache-stale");

/// The groups to which an entry belongs.
const TAGS: HeaderName = HeaderName::from_static("zerocache-tags");

/// The version of an entry.
const VERSION: HeaderName = HeaderName::from_static("zerocache-version");

/// The answer to a write.
#[derive(Serialize)]
struct WrittenBody {
    status: &'static str,
    replicas: u32,
    replicas_wanted: u32,
    version: Option<String>,
}

pub(super) async fn handle(
    api: &Api,
    method: &Method,
    raw_key: &str,
    query: Option<&str>,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return fast_get(api, raw_key, query);
    }
    let key = key::from_path(raw_key, api.key_bytes_max)?;
    let query = Query::parse(query.unwrap_or_default())?;
    match *method {
        Method::PUT => {
            query.allow(&query::PUT)?;
            let (ack, metadata) = (query.ack()?, query.metadata()?);
            let life = query.life(&metadata)?;
            let value = read_body(body, api.value_bytes_max, &api.bodies).await?;
            let op = WriteOp::Put { value, metadata: metadata.encode(), ttl: life };
            written(write(api, key, op, ack, WriteScope::Cluster).await)
        }
        Method::DELETE => {
            query.allow(&["ack"])?;
            written(write(api, key, WriteOp::Delete, query.ack()?, WriteScope::Cluster).await)
        }
        _ => Err(ApiError::method(method, "/v1/entries/KEY").allowing("GET, HEAD, PUT, DELETE")),
    }
}

/// Answers a GET.
pub(super) fn fast_get(
    api: &Api,
    raw_key: &str,
    query: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let key = key::from_path(raw_key, api.key_bytes_max)?;
    let query = Query::parse(query.unwrap_or_default())?;
    query.allow(&["stale"])?;
    get(api, &key, query.flag("stale")?)
}

/// Writes through the node.
pub(super) async fn write(
    api: &Api,
    key: Key,
    op: WriteOp,
    ack: Ack,
    scope: WriteScope,
) -> Response {
    let write = Write { ack, scope, ..Write::new(key, op) };
    let input = |id| Input::Write { id, write };
    api.driver.answer(api.driver.next_connection(), input).await
}

fn get(api: &Api, key: &Key, allow_stale: bool) -> Result<HttpResponse, ApiError> {
    let Served { value, version, remaining_ms, metadata, freshness } =
        Served::read(api, key, allow_stale)?;
    let mut response = value.into_response();
    let headers = response.headers_mut();
    headers.insert(TTL_MS, HeaderValue::from(remaining_ms));
    if metadata.stale_ms() > 0 {
        headers.insert(FRESH_MS, HeaderValue::from(metadata.fresh_ms(remaining_ms)));
    }
    if freshness != Freshness::Fresh {
        let condition = if freshness == Freshness::Stale { "while" } else { "if-error" };
        headers.insert(STALE, HeaderValue::from_static(condition));
    }
    if let Some(Ok(tags)) = query::tags_as_text(&metadata).map(HeaderValue::try_from) {
        headers.insert(TAGS, tags);
    }
    if let Ok(version) = HeaderValue::from_bytes(&version.to_text()) {
        headers.insert(VERSION, version);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn written(response: Response) -> Result<HttpResponse, ApiError> {
    match response {
        Response::Written(Written { status, replicas, replicas_wanted, version }) => {
            let code = match status {
                Status::Refused => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::OK,
            };
            let version = version.map(|version| version.to_string());
            let status = status.as_str();
            Ok((code, Json(WrittenBody { status, replicas, replicas_wanted, version }))
                .into_response())
        }
        Response::Refused(refusal) => Err(refusal.into()),
        _ => Err(ApiError::unexpected()),
    }
}
