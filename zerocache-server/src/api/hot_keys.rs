//! `/v1/hot-keys`: the keys that are read most on this node.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{RawQuery, State},
};
use serde::Serialize;
use zerocache_core::access::Operation;

use super::{Api, error::ApiError, query::Query};
use crate::{access::Caller, hot_keys::HotKeyInfo};

/// The number of keys if the caller does not say one.
const COUNT_DEFAULT: usize = 20;
/// The most keys of one answer.
const COUNT_MAX: usize = 256;

#[derive(Serialize)]
pub(super) struct HotKeysBody {
    mode: &'static str,
    keys: Vec<HotKeyInfo>,
}

impl HotKeysBody {
    /// The `count` hottest keys, as `caller` may see them.
    pub(super) fn new(api: &Api, count: usize, shows_names: bool) -> Self {
        let hot = api.driver.hot_keys();
        Self { mode: hot.mode().as_str(), keys: hot.list(count, shows_names) }
    }
}

pub(super) async fn get(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
    RawQuery(query): RawQuery,
) -> Result<Json<HotKeysBody>, ApiError> {
    api.permit(&caller, Operation::Monitor)?;
    let query = Query::parse(query.as_deref().unwrap_or_default())?;
    query.allow(&["count"])?;
    let count = match query.get("count") {
        None => COUNT_DEFAULT,
        Some(text) => {
            let count = text.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count));
            count.ok_or_else(|| {
                ApiError::bad_query(format!("count={text:?} is not a number from 1 to {COUNT_MAX}"))
            })?
        }
    };
    Ok(Json(HotKeysBody::new(&api, count, shows_names(&caller))))
}

/// Returns whether `caller` may see the names of keys.
pub(super) fn shows_names(caller: &Caller) -> bool {
    caller.grant.permits(Operation::Administer).is_ok()
}
