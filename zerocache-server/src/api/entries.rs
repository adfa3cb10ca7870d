//! `/v1/entries/{key}`: the HTTP API for curl, proxies and other languages.

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use bytes::Bytes;
use serde::Serialize;
use zerocache_core::{
    access::Operation,
    key::Key,
    metadata::Freshness,
    node::{Write, WriteOp},
    version::Version,
    wire::{Response, Status, Written},
};

use super::{
    Api,
    conditions::{self, Part, Precondition},
    copies,
    error::ApiError,
    key, put_headers,
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

/// Another place that has the value of an entry.
const ORIGIN: HeaderName = HeaderName::from_static("zerocache-origin");

/// What browsers may do with a value that they show as a page of its own: run nothing, and be of no origin. The
/// node's own page is of the same one.
const POLICY: &str = "sandbox";

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
    match *method {
        Method::GET => return get_anywhere(api, caller, (raw_key, query), headers).await,
        Method::HEAD => {
            // Ranges are defined for GET alone.
            let mut headers = headers.clone();
            headers.remove(header::RANGE);
            return get_anywhere(api, caller, (raw_key, query), &headers).await;
        }
        _ => {}
    }
    let key = key::from_path(raw_key, api.key_bytes_max)?;
    api.permit(caller, Operation::Write(key.as_bytes()))?;
    let query = Query::parse(query.unwrap_or_default())?;
    let condition = conditions::of_write(headers)?.map(Box::new);
    match *method {
        Method::PUT => {
            query.allow(&query::PUT)?;
            let (ack, mut metadata) = (query.ack()?, query.metadata()?);
            put_headers::add(&mut metadata, headers)?;
            let ttl = query.lifetime(&metadata)?;
            let value = read_body(body, api.value_bytes_max, &api.bodies).await?;
            let op = WriteOp::Put { value, metadata: metadata.encode(), ttl };
            written(api.driver.write(Write { ack, condition, ..Write::new(key, op) }).await)
        }
        Method::DELETE => {
            query.allow(&["ack"])?;
            let ack = query.write_ack()?;
            let write = Write::new(key.clone(), WriteOp::Delete);
            let write = Write { ack: ack.of_node(), condition, ..write };
            if ack == WriteAck::EachNode {
                let response = api.driver.write(write).await;
                if let Response::NotMet { .. } = response {
                    return written(response);
                }
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

/// Handles a GET as [`get`] does, for a value that is not in memory: at an owner of the key, or from disk.
async fn get_anywhere(
    api: &Api,
    caller: &Caller,
    target: (&str, Option<&str>),
    headers: &HeaderMap,
) -> Result<HttpResponse, ApiError> {
    let (key, allow_stale) = readable(api, caller, target)?;
    served(api, &ReadableEntry::read_anywhere(api, key, allow_stale).await?, headers)
}

/// Returns whether a read of the key of a path has to wait: other nodes own it, or its value is on disk.
pub(super) fn is_elsewhere(api: &Api, raw_key: &str) -> bool {
    api.driver.may_read_elsewhere()
        && key::from_path(raw_key, api.key_bytes_max).is_ok_and(|key| api.driver.is_elsewhere(&key))
}

/// Returns the key that a GET reads, and whether it takes a stale value.
fn readable(
    api: &Api,
    caller: &Caller,
    (raw_key, query): (&str, Option<&str>),
) -> Result<(Key, bool), ApiError> {
    let key = key::from_path(raw_key, api.key_bytes_max)?;
    api.permit(caller, Operation::Read(key.as_bytes()))?;
    let query = Query::parse(query.unwrap_or_default())?;
    query.allow(&["stale"])?;
    Ok((key, query.flag("stale")?))
}

/// Handles a GET, which needs neither a body nor waiting.
pub(super) fn get(
    api: &Api,
    caller: &Caller,
    target: (&str, Option<&str>),
    headers: &HeaderMap,
) -> Result<HttpResponse, ApiError> {
    let (key, allow_stale) = readable(api, caller, target)?;
    let entry = ReadableEntry::read(api, &key, allow_stale)?;
    served(api, &entry, headers)
}

/// Returns the response with an entry, or without its value if a condition says so.
fn served(api: &Api, entry: &ReadableEntry, headers: &HeaderMap) -> Result<HttpResponse, ApiError> {
    let etag = entity_tag(entry.version);
    match Precondition::evaluate(headers, &etag) {
        Precondition::Failed => return Ok(ApiError::precondition_failed().into_response()),
        Precondition::NotModified => {
            return Ok(described(StatusCode::NOT_MODIFIED.into_response(), entry, etag));
        }
        Precondition::Passed => {}
    }
    let value = entry.value(api)?;
    let total = value.len();
    Ok(match Part::asked(headers, &etag, total) {
        Part::Whole => described(value.into_response(), entry, etag),
        Part::Bytes(range) => {
            let text = format!("bytes {}-{}/{total}", range.start, range.end - 1);
            let response = (StatusCode::PARTIAL_CONTENT, value.slice(range)).into_response();
            with_range(described(response, entry, etag), text)
        }
        Part::Unsatisfiable => {
            let response = ApiError::unsatisfiable_range(total).into_response();
            with_range(response, format!("bytes */{total}"))
        }
    })
}

/// Returns the entity tag of a version, in quotes: the same at every node that has it.
fn entity_tag(version: Version) -> Bytes {
    Bytes::from([b"\"", &version.to_text()[..], b"\""].concat())
}

fn with_range(mut response: HttpResponse, range: String) -> HttpResponse {
    if let Ok(range) = HeaderValue::try_from(range) {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

/// About as many headers as a response with an entry has: the map of headers is allocated once.
const HEADERS_USUAL: usize = 12;

/// Adds the headers of an entry to a response with its value, or without.
fn described(mut response: HttpResponse, entry: &ReadableEntry, etag: Bytes) -> HttpResponse {
    let ReadableEntry { remaining_ms, metadata, freshness, .. } = entry;
    let has_value = response.status() != StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    headers.reserve(HEADERS_USUAL);
    let of_value = [
        (header::CONTENT_TYPE, metadata.content_type()),
        (header::CONTENT_ENCODING, metadata.content_encoding()),
    ];
    for (name, text) in of_value {
        if let Some(Ok(value)) = text.filter(|_| has_value).map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    for value in metadata.origins().iter().flat_map(HeaderValue::try_from) {
        headers.append(ORIGIN, value);
    }
    headers.insert(TTL_MS, HeaderValue::from(*remaining_ms));
    if metadata.stale_ms() > 0 {
        headers.insert(FRESH_MS, HeaderValue::from(metadata.fresh_ms(*remaining_ms)));
    }
    if *freshness != Freshness::Fresh {
        let condition = if *freshness == Freshness::Stale { "while" } else { "if-error" };
        headers.insert(STALE, HeaderValue::from_static(condition));
    }
    if let Some(Ok(tags)) = query::tags_as_text(metadata).map(HeaderValue::try_from) {
        headers.insert(TAGS, tags);
    }
    // The text in the quotes.
    let version = etag.slice(1..etag.len() - 1);
    for (name, text) in [(VERSION, version), (header::ETAG, etag)] {
        if let Ok(value) = HeaderValue::from_maybe_shared(text) {
            headers.insert(name, value);
        }
    }
    let fixed = [
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn written(response: Response) -> Result<HttpResponse, ApiError> {
    if let Response::NotMet { current } = response {
        return Ok(not_met(current));
    }
    let (code, body) = written_body(response)?;
    Ok((code, Json(body)).into_response())
}

/// Returns the response to a write whose condition does not hold, with the entity tag for which one would.
fn not_met(current: Option<Version>) -> HttpResponse {
    let mut response = ApiError::condition_not_met(current.is_some()).into_response();
    if let Some(Ok(etag)) =
        current.map(|version| HeaderValue::from_maybe_shared(entity_tag(version)))
    {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
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
        Response::Unconfirmed => Err(ApiError::unconfirmed()),
        _ => Err(ApiError::unexpected()),
    }
}
