//! `/v1/admin/…`: takes the node out of service and puts it back, and lists the keys that it holds.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{RawQuery, State},
    http::header,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use serde::Serialize;
use zerocache_core::{
    access::{Operation, Prefix},
    key::Key,
    metadata::has_tag,
    node::Input,
    purge::PurgeTarget,
    store::{KeyCursor, KeyInfo, KeyPageLimits},
};
use zerocache_net::clock;

use super::{Api, error::ApiError, query::Query};
use crate::{access::Caller, driver::Severity, hex};

/// The path of keys.
const KEYS_PATH: &str = "/v1/admin/keys";

/// What comes before the paths of this module.
const PREFIX: &str = "/v1/admin/";

/// The bounds of a page of keys. As many entries as are inspected take about a millisecond.
const PAGE: KeyPageLimits =
    KeyPageLimits { keys_max: 1_024, bytes_max: 64 << 10, inspected_max: 16_384 };

/// Returns the routes.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/admin/drain", post(drain))
        .route("/v1/admin/undrain", post(undrain))
        .route(KEYS_PATH, get(keys))
}

/// Returns whether `path` takes POST, as far as it is one of this module.
pub(super) fn takes_post(path: &str) -> bool {
    path.starts_with(PREFIX) && path != KEYS_PATH
}

/// Whether the node serves.
#[derive(Serialize)]
struct ServiceBody {
    state: &'static str,
    /// Whether it is leaving until it is undrained.
    drained: bool,
}

async fn drain(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Result<Json<ServiceBody>, ApiError> {
    set_service(&api, &caller, (Input::Drain, "drain"))
}

async fn undrain(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Result<Json<ServiceBody>, ApiError> {
    set_service(&api, &caller, (Input::Undrain, "undrain"))
}

fn set_service(
    api: &Api,
    caller: &Caller,
    (input, name): (Input, &'static str),
) -> Result<Json<ServiceBody>, ApiError> {
    api.permit(caller, Operation::Administer)?;
    let by = caller.name.as_deref().unwrap_or_default();
    tracing::info!(action = name, name = by, peer = %caller.ip(), "{name} requested");
    api.driver.recent_events().record(Severity::Info, &format!("{name} requested"));
    api.driver.input(input);
    let drained = api.driver.status().is_drained;
    Ok(Json(ServiceBody { state: api.driver.state().as_str(), drained }))
}

/// A page of keys.
#[derive(Serialize)]
struct KeysBody {
    keys: Vec<KeyBody>,
    /// Where the next page begins; none after the last one.
    next: Option<String>,
    /// The number of entries that were inspected for the page.
    inspected: usize,
    /// The number of entries of the node.
    entries: u64,
}

/// An entry, apart from its value.
#[derive(Serialize)]
struct KeyBody {
    key_hex: String,
    value_bytes: u64,
    /// What it takes of the byte budget.
    bytes: u64,
    ttl_ms: u64,
    version: String,
}

impl From<KeyInfo> for KeyBody {
    fn from(info: KeyInfo) -> Self {
        Self {
            key_hex: hex::encode(&info.key),
            value_bytes: info.value_bytes,
            bytes: info.weight,
            ttl_ms: info.remaining_ms,
            version: info.version.to_string(),
        }
    }
}

/// Lists the keys that the caller's grant is for; with `key_hex` this one only.
async fn keys(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    api.permit(&caller, Operation::List)?;
    let query = Query::parse(query.as_deref().unwrap_or_default())?;
    query.allow(&["after", "shard", "prefix", "tag", "limit", "key_hex"])?;
    let (storage, grant, now) = (api.driver.storage(), &caller.grant, clock::now());
    let entries = storage.entry_count();
    let body = if let Some(digits) = query.get("key_hex") {
        query.allow(&["key_hex"])?;
        let key =
            hex::decode(digits).ok_or_else(|| ApiError::bad_query("key_hex is not hexadecimal"))?;
        let key = Key::within(Bytes::from(key), api.key_bytes_max)?;
        let info = storage.key_info(&key, now).filter(|info| grant.covers(&info.key));
        let keys = info.into_iter().map(KeyBody::from).collect();
        KeysBody { keys, next: None, inspected: 1, entries }
    } else {
        let prefix = query.get("prefix").map(str::parse::<Prefix>).transpose();
        let prefix = prefix.map_err(|error| ApiError::bad_query(format!("prefix: {error}")))?;
        let tag = query.get("tag").map(PurgeTarget::tag).transpose();
        let tag = tag.map_err(|error| ApiError::bad_query(format!("tag: {error}")))?;
        let tag = tag.map(|target| target.id());
        let is_wanted = |key: &[u8], metadata: &[u8]| {
            prefix.as_ref().is_none_or(|part| part.covers(key))
                && grant.covers(key)
                && tag.is_none_or(|tag| has_tag(metadata, tag))
        };
        let limits = KeyPageLimits { keys_max: limit(&query)?, ..PAGE };
        let page = storage.list_keys(cursor(&query)?, limits, now, is_wanted);
        KeysBody {
            keys: page.keys.into_iter().map(KeyBody::from).collect(),
            next: page.next.map(|next| next.to_string()),
            inspected: page.inspected,
            entries,
        }
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

fn cursor(query: &Query<'_>) -> Result<KeyCursor, ApiError> {
    let bad = |name: &str| ApiError::bad_query(format!("{name}: not a place in the store"));
    match (query.get("after"), query.get("shard")) {
        (Some(text), _) => text.parse().map_err(|_| bad("after")),
        (None, Some(text)) => {
            let shard = text.parse().ok().and_then(KeyCursor::of_shard);
            shard.ok_or_else(|| bad("shard"))
        }
        (None, None) => Ok(KeyCursor::START),
    }
}

fn limit(query: &Query<'_>) -> Result<usize, ApiError> {
    let Some(text) = query.get("limit") else { return Ok(PAGE.keys_max) };
    let limit = text.parse().ok().filter(|limit| (1..=PAGE.keys_max).contains(limit));
    limit.ok_or_else(|| {
        ApiError::bad_query(format!("limit={text:?} is not a number from 1 to {}", PAGE.keys_max))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_checked() {
        let parse = |text| Query::parse(text).expect("a query");
        assert_eq!(cursor(&parse("")).ok(), Some(KeyCursor::START));
        assert_eq!(cursor(&parse("shard=63")).ok(), KeyCursor::of_shard(63));
        assert_eq!(limit(&parse("limit=1024")).ok(), Some(1_024));
        for bad in ["after=", "after=64.1", "shard=64", "shard=-1", "shard="] {
            assert!(cursor(&parse(bad)).is_err(), "{bad}");
        }
        for bad in ["limit=0", "limit=1025", "limit=", "limit=-1"] {
            assert!(limit(&parse(bad)).is_err(), "{bad}");
        }
        assert!(takes_post("/v1/admin/drain") && !takes_post(KEYS_PATH));
    }
}
