//! The paths of the Python package zerocache 0.0.2, served when compatibility is switched on.
//!
//! `/{region}/{key}`: the region in the path is the caller's and not part of the entry; the key is
//! everything behind it, slashes included. Writes with `recurse=0` were already sent to the other
//! local nodes by whoever sent this one, so that they go no further.

use axum::{
    Json,
    body::Body,
    http::{Method, StatusCode},
    response::{IntoResponse, Response as HttpResponse},
};
use bytes::Bytes;
use serde::Serialize;
use zerocache_core::{
    entry::Entry,
    key::Key,
    metadata::{Freshness, Metadata},
    node::{WriteOp, WriteScope},
    ttl::Ttl,
    wire::{Ack, Response},
};
use zerocache_net::clock;

use super::{Api, entries, error::ApiError, key, query::Query, served::Served};
use crate::{http::read_body, telemetry::ReadCounts};

/// The answer to `/local_cache_info` and `/remote_cache_info`.
#[derive(Serialize)]
struct CacheInfo {
    hits: u64,
    misses: u64,
    maxsize: u64,
    currsize: u64,
}

pub(super) async fn handle(
    api: &Api,
    method: &Method,
    path: &str,
    query: Option<&str>,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    if matches!(path, "/local_cache_info" | "/remote_cache_info") && *method == Method::GET {
        return Ok(cache_info(api));
    }
    let region_and_key = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    let Some((region, raw_key)) = region_and_key.filter(|(region, _)| !region.is_empty()) else {
        return Err(ApiError::not_found_path(path));
    };
    tracing::trace!(region, "Python-compatible request");
    let key = key::from_path(raw_key, api.key_bytes_max)?;
    let query = Query::parse(query.unwrap_or_default())?;
    let scope =
        if query.get("recurse") == Some("0") { WriteScope::NodeOnly } else { WriteScope::Cluster };
    match *method {
        Method::GET => match Served::read(api, &key, false) {
            Ok(served) => Ok(served.value.into_response()),
            Err(error) => Err(error.without_warming()),
        },
        Method::PUT => {
            let ttl = query.get("expiry").and_then(|text| text.parse().ok());
            let ttl = ttl.map_or(Ttl::HTTP_DEFAULT, clamped);
            let value = read_body(body, api.value_bytes_max, &api.bodies).await?;
            let op = WriteOp::Put { value, metadata: Bytes::new(), ttl };
            done(entries::write(api, key, op, Ack::Local, scope).await, true)
        }
        Method::DELETE => {
            let held = holds(api, &key);
            done(entries::write(api, key, WriteOp::Delete, Ack::Local, scope).await, held)
        }
        _ => Err(ApiError::method(method, path)),
    }
}

/// Lifetimes out of range are clamped here, and only here.
fn clamped(seconds: i128) -> Ttl {
    Ttl::clamped_secs(u64::try_from(seconds.max(0)).unwrap_or(u64::MAX))
}

/// Whether a GET would find the key.
fn holds(api: &Api, key: &Key) -> bool {
    let now = clock::now();
    let entry = api.driver.storage().peek(key, now).hit();
    let metadata = entry.as_ref().and_then(|entry| Metadata::decode(&entry.metadata).ok());
    let fresh = |metadata: Metadata, entry: Entry| {
        metadata.freshness(entry.expires.since_ms(now.mono)) == Freshness::Fresh
    };
    metadata.zip(entry).is_some_and(|(metadata, entry)| fresh(metadata, entry))
}

fn done(response: Response, found: bool) -> Result<HttpResponse, ApiError> {
    match response {
        Response::Written(_) if found => Ok(StatusCode::OK.into_response()),
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
