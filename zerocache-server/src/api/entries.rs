//! `/v1/entries/{key}`: the HTTP API for curl and other languages.

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use serde::Serialize;
use zerocache_core::{
    access::Operation,
    metadata::Freshness,
    node::{Write, WriteOp},
    wire::{Response, Status, Written},
};

use super::{
    Api, copies,
    error::ApiError,
    key,
    query::{self, Query, WriteAck},
    readable_entry::ReadableEntry,
};
use crate::{access::Caller, http::read_body};

/// The remaining lifetime of an entry, in milliseconds.
const TTL_MS: HeaderName = HeaderName::from_static("zerocache-ttl-ms");

/// The remaining fresh time of an entry, in milliseconds, if it may be served longer.
const FRESH_MS: HeaderName = HeaderName::from_static("zerocache-fresh-ms");

/// The condition under which a stale entry may be served.
const STALE: HeaderName = HeaderName::from_static("zerocache-stale");

/// The tags of an entry.
const TAGS: HeaderName = HeaderName::from_static("zerocache-tags");

/// The version of an entry.
const VERSION: HeaderName = HeaderName::from_static("zerocache-version");

/// The response to a write.
#[derive(Serialize)]
pub(super) struct WrittenBody {
    status: &'static str,
    pub(super) replicas: u32,
    pub(super) replicas_wanted: u32,
    version: Option<String>,
}

pub(super) async fn handle(
    api: &Api,
    caller: &Caller,
    (method, raw_key, query): (&Method, &str, Option<&str>),
    headers: &HeaderMap,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return get(api, caller, raw_key, query);
    }
    let key = key::from_path(raw_key, api.key_bytes_max)?;
    api.permit(caller, Operation::Write(key.as_bytes()))?;
    let query = Query::parse(query.unwrap_or_default())?;
    match *method {
        Method::PUT => {
            query.allow(&query::PUT)?;
            let (ack, mut metadata) = (query.ack()?, query.metadata()?);
            query::add_header_tags(&mut metadata, headers)?;
            let ttl = query.lifetime(&metadata)?;
            let value = read_body(body, api.value_bytes_max, &api.bodies).await?;
            let op = WriteOp::Put { value, metadata: metadata.encode(), ttl };
            written(api.driver.write(Write { ack, ..Write::new(key, op) }).await)
        }
        Method::DELETE => {
            query.allow(&["ack"])?;
            let ack = query.write_ack()?;
            let write = Write { ack: ack.of_node(), ..Write::new(key.clone(), WriteOp::Delete) };
            if ack == WriteAck::EachNode {
                let response = api.driver.write(write).await;
                let mut written = copies::at_each_node(api, vec![(key, response)]).await?;
                return written
                    .pop()
                    .map(IntoResponse::into_response)
                    .ok_or_else(ApiError::unexpected);
            }
            written(api.driver.write(write).await)
        }
        _ => Err(ApiError::method(method, "/v1/entries/KEY").allowing("GET, HEAD, PUT, DELETE")),
    }
}

/// Handles a GET, which needs neither a body nor waiting.
pub(super) fn get(
    api: &Api,
    caller: &Caller,
    raw_key: &str,
    query: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let key = key::from_path(raw_key, api.key_bytes_max)?;
    api.permit(caller, Operation::Read(key.as_bytes()))?;
    let query = Query::parse(query.unwrap_or_default())?;
    query.allow(&["stale"])?;
    ReadableEntry::read(api, &key, query.flag("stale")?).map(found)
}

fn found(entry: ReadableEntry) -> HttpResponse {
    let ReadableEntry { value, version, remaining_ms, metadata, freshness } = entry;
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
    response
}

fn written(response: Response) -> Result<HttpResponse, ApiError> {
    let (code, body) = written_body(response)?;
    Ok((code, Json(body)).into_response())
}

/// Returns the status and the body of the response to a write.
pub(super) fn written_body(response: Response) -> Result<(StatusCode, WrittenBody), ApiError> {
    match response {
        Response::Written(Written { status, replicas, replicas_wanted, version }) => {
            let code = match status {
                Status::Refused => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::OK,
            };
            let version = version.map(|version| version.to_string());
            let status = status.as_str();
            Ok((code, WrittenBody { status, replicas, replicas_wanted, version }))
        }
        Response::Refused(refusal) => Err(refusal.into()),
        _ => Err(ApiError::unexpected()),
    }
}
