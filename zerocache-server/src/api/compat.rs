//! The paths of the Python package zerocache 0.0.2, served when compatibility is enabled.
//!
//! `/{region}/{key}`: the region in the path is the caller's and not part of the entry; the key is the
//! rest of the path, including slashes. The sender of a write with `recurse=0` has sent it to the other
//! local nodes itself, so such a write is not replicated.

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use bytes::Bytes;
use serde::Serialize;
use zerocache_core::{
    access::Operation,
    key::Key,
    metadata::{Freshness, Metadata},
    node::{Write, WriteOp, WriteScope},
    store::Lookup,
    ttl::Ttl,
    wire::Response,
};

use super::{Api, error::ApiError, key, query::Query, readable_entry::ReadableEntry};
use crate::{access::Caller, http::read_body, telemetry::ReadCounts};

/// The response to `/local_cache_info` and `/remote_cache_info`.
#[derive(Serialize)]
struct CacheInfo {
    hits: u64,
    misses: u64,
    maxsize: u64,
    currsize: u64,
}

pub(super) async fn handle(
    api: &Api,
    caller: &Caller,
    (method, path, query): (&Method, &str, Option<&str>),
    headers: &HeaderMap,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    if matches!(path, "/local_cache_info" | "/remote_cache_info") && *method == Method::GET {
        api.permit(caller, Operation::Connect)?;
        return Ok(cache_info(api));
    }
    let region_and_key = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    let Some((region, raw_key)) = region_and_key.filter(|(region, _)| !region.is_empty()) else {
        return Err(ApiError::not_found_path(path));
    };
    tracing::trace!(region, "Python-compatible request");
    let key = key::from_path(raw_key, api.key_bytes_max)?;
    let is_read = *method == Method::GET;
    let operation = if is_read { Operation::Read } else { Operation::Write };
    api.permit(caller, operation(key.as_bytes()))?;
    let query = Query::parse(query.unwrap_or_default())?;
    let is_local = query.get("recurse") == Some("0");
    let scope = if is_local { WriteScope::NodeOnly } else { WriteScope::Cluster };
    match *method {
        Method::GET => {
            let entry = ReadableEntry::read_anywhere(api, key, false).await;
            let value = entry.and_then(|entry| entry.value(api));
            value.map(IntoResponse::into_response).map_err(ApiError::without_warming)
        }
        Method::PUT => {
            refuse_encoding(headers)?;
            let ttl = query.get("expiry").and_then(|text| text.parse().ok());
            let ttl = ttl.map_or(Ttl::HTTP_DEFAULT, clamped);
            let value = read_body(body, api.value_bytes_max, &api.bodies).await?;
            let op = WriteOp::Put { value, metadata: Bytes::new(), ttl };
            done(api.driver.write(Write { scope, ..Write::new(key, op) }).await, true)
        }
        Method::DELETE => {
            let is_held = has_fresh_value(api, &key).await;
            let write = Write { scope, ..Write::new(key, WriteOp::Delete) };
            done(api.driver.write(write).await, is_held)
        }
        _ => Err(ApiError::method(method, path)),
    }
}

/// Refuses a value with a content encoding, of which nobody would learn.
fn refuse_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_encoded = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().any(is_encoded) {
        let message = "Content-Encoding is not stored: send the value without it";
        return Err(ApiError::content_encoding(message));
    }
    Ok(())
}

/// Clamps a lifetime that is out of range, which only these paths allow.
fn clamped(seconds: i128) -> Ttl {
    Ttl::clamped_secs(u64::try_from(seconds.max(0)).unwrap_or(u64::MAX))
}

/// Returns whether a GET would find the key.
async fn has_fresh_value(api: &Api, key: &Key) -> bool {
    let reader = api.driver.reader();
    if api.driver.is_elsewhere(key) {
        return ReadableEntry::read_anywhere(api, key.clone(), false).await.is_ok();
    }
    let context = reader.context();
    let Lookup::Hit(entry) = reader.peek(key, context) else { return false };
    let remaining_ms = entry.expires.since_ms(context.now.mono);
    Metadata::decode(&entry.metadata)
        .is_ok_and(|metadata| metadata.freshness(remaining_ms) == Freshness::Fresh)
}

fn done(response: Response, is_found: bool) -> Result<HttpResponse, ApiError> {
    match response {
        Response::Written(_) if is_found => Ok(StatusCode::OK.into_response()),
        Response::Written(_) => Err(ApiError::not_found(false)),
        Response::Refused(refusal) => Err(refusal.into()),
        _ => Err(ApiError::unexpected()),
    }
}

fn cache_info(api: &Api) -> HttpResponse {
    let (stats, capacity) = (api.driver.storage().stats(), api.driver.storage().capacity());
    let reads = ReadCounts::of(&api.counters, api.driver.storage());
    let info = CacheInfo {
        hits: reads.hits,
        misses: reads.misses,
        maxsize: capacity.entries_max.min(i64::MAX.unsigned_abs()),
        currsize: stats.entries,
    };
    Json(info).into_response()
}
