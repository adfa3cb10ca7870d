//! The HTTP API of a node: entries for curl, messages for nodes and clients, the cluster for operators.
//! It translates between HTTP and the core, which has the rules.

mod admin;
mod cluster;
mod compat;
pub mod conditions;
mod config;
mod copies;
mod entries;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod hot_keys;
mod key;
mod messages;
mod metrics;
mod page;
mod purges;
mod put_headers;
mod query;
mod readable_entry;
mod repair;
mod stats;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use zerocache_core::{
    access::{Denial, Operation},
    wire::{NodeState, RequestMessage},
};
use zerocache_net::transport::MESSAGES_PATH;

use self::error::ApiError;
pub use self::{
    config::ConfigBody,
    messages::{SMALL_MESSAGE_BYTES, message_bytes_max},
    metrics::LastScrape,
    page::Page,
};
use crate::{
    access::{AccessControl, Caller},
    driver::NodeDriver,
    framed::FramedConnections,
    http::{BodyBudget, SyncHandler},
    telemetry::ServerCounters,
};

/// The path of entries.
const ENTRIES_PREFIX: &str = "/v1/entries/";

/// Compares the copies of a key.
const VERIFY_PATH: &str = "/v1/verify";

/// Repairs the copies of a key.
const REPAIR_PATH: &str = "/v1/repair";

/// The state of the handlers.
#[derive(Clone)]
pub struct Api {
    /// The node.
    pub driver: Arc<NodeDriver>,
    /// Judges callers.
    pub access: Arc<AccessControl>,
    /// The memory budget of values.
    pub bodies: BodyBudget,
    /// The memory budget of messages, so that replication does not wait behind uploads.
    pub messages: BodyBudget,
    /// The counters of the listener.
    pub counters: Arc<ServerCounters>,
    /// The largest value, in bytes.
    pub value_bytes_max: u64,
    /// The longest key, in bytes.
    pub key_bytes_max: usize,
    /// Serves upgraded connections; none when upgrades are disabled.
    pub framed: Option<Arc<FramedConnections>>,
    /// The settings that `/v1/config` shows.
    pub config: Arc<ConfigBody>,
    /// The last text of `/metrics`.
    pub scrape: Arc<LastScrape>,
    /// The paths of entries are served.
    pub entries: bool,
    /// The paths of the Python package are served.
    pub compat: bool,
}

impl Api {
    /// Checks that `caller` may do `operation`.
    fn permit(&self, caller: &Caller, operation: Operation<'_>) -> Result<(), ApiError> {
        caller.grant.permits(operation).map_err(|denial| self.denied(caller, denial))
    }

    /// Checks that `caller` may send `message`.
    fn permit_message(&self, caller: &Caller, message: &RequestMessage) -> Result<(), ApiError> {
        caller.grant.permits_message(message).map_err(|denial| self.denied(caller, denial))
    }

    fn denied(&self, caller: &Caller, denial: Denial) -> ApiError {
        self.access.refusal(caller.connection(), denial).into()
    }
}

/// Returns all routes of a node, with those of its page if it has one. Every request has the [`Caller`] among
/// its extensions.
pub fn router(api: Api, page: Option<Arc<Page>>) -> Router {
    let router = for_operators(page).route(MESSAGES_PATH, post(messages::post));
    complete(router, api)
}

/// Returns the routes of a listener for operators: those of a node without entries and messages. Every request
/// has the [`Caller`] among its extensions.
pub fn admin_router(api: Api, page: Option<Arc<Page>>) -> Router {
    complete(for_operators(page), Api { entries: false, compat: false, ..api })
}

/// Returns the routes that serve neither nodes nor clients.
fn for_operators(page: Option<Arc<Page>>) -> Router<Api> {
    let router = probes()
        .route("/v1/cluster", get(cluster::get))
        .route("/v1/config", get(config::get))
        .route("/v1/stats", get(stats::get))
        .route("/v1/hot-keys", get(hot_keys::get))
        .route("/v1/locate", get(copies::locate))
        .route(VERIFY_PATH, post(copies::verify))
        .route(REPAIR_PATH, post(repair::repair))
        .route("/metrics", get(metrics::get))
        .merge(admin::routes());
    match page {
        Some(page) => router.merge(page.router().with_state(())),
        None => router,
    }
}

/// Returns the routes of a listener for the Python package alone. Every request has the [`Caller`] among its
/// extensions.
pub fn compat_router(api: Api) -> Router {
    complete(probes(), Api { entries: false, compat: true, ..api })
}

/// Returns the routes that every listener has, and that everybody may ask for.
fn probes() -> Router<Api> {
    Router::new()
        .route("/ping", get(ping))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

/// Adds what answers where no route does. The fallback for methods holds for the routes that there are by now.
fn complete(router: Router<Api>, api: Api) -> Router {
    router.fallback(by_path).method_not_allowed_fallback(method_not_allowed).with_state(api)
}

/// Returns the handler of requests that need no waiting: reads of entries, which are most requests.
pub fn sync_handler(api: Api) -> SyncHandler {
    Arc::new(move |request, caller| {
        let key = request.uri().path().strip_prefix(ENTRIES_PREFIX)?;
        if request.method() != Method::GET {
            return None;
        }
        match entries::get(&api, caller, (key, request.uri().query()), request.headers()) {
            Err(error) if error.is_miss() && entries::is_elsewhere(&api, key) => None,
            answer => Some(answer.unwrap_or_else(|error| error_response(&api, error))),
        }
    })
}

fn error_response(api: &Api, error: ApiError) -> Response {
    if error.is_bad_request() {
        api.counters.bad_requests.add();
    }
    error.into_response()
}

/// Routes entries by hand: a key is any bytes, and axum's path parameters are text.
async fn by_path(
    State(api): State<Api>,
    Extension(caller): Extension<Arc<Caller>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: axum::body::Body,
) -> Response {
    let path = uri.path();
    let entry_key = path.strip_prefix(ENTRIES_PREFIX).filter(|_| api.entries);
    let result = if let Err(error) = check_headers(&method, &headers, entry_key.is_some()) {
        Err(error)
    } else if let Some(key) = entry_key {
        entries::handle(&api, &caller, (&method, key, uri.query()), &headers, body).await
    } else if let Some(rest) = path.strip_prefix(purges::TAGS_PREFIX).filter(|_| api.entries) {
        purges::of_tags(&api, &caller, (&method, rest, uri.query()), body).await
    } else if path == purges::PURGE_PATH && api.entries {
        purges::of_all(&api, &caller, (&method, uri.query())).await
    } else if api.compat && !path.starts_with("/v1/") {
        compat::handle(&api, &caller, (&method, path, uri.query()), &headers, body).await
    } else {
        Err(ApiError::not_found_path(path))
    };
    result.unwrap_or_else(|error| error_response(&api, error))
}

/// Refuses a write with headers that would make it partial, or conditional in a way that is not supported: ignoring
/// them would surprise the caller later. Writes of entries may depend on entity tags.
fn check_headers(
    method: &Method,
    headers: &HeaderMap,
    takes_entity_tags: bool,
) -> Result<(), ApiError> {
    if !matches!(*method, Method::PUT | Method::DELETE) {
        return Ok(());
    }
    // RFC 9110 section 14.5: 400.
    const REFUSED: [HeaderName; 3] =
        [header::CONTENT_RANGE, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];
    const ENTITY_TAGS: [HeaderName; 2] = [header::IF_MATCH, header::IF_NONE_MATCH];
    let entity_tags = ENTITY_TAGS.iter().filter(|_| !takes_entity_tags);
    let mut refused = REFUSED.iter().chain(entity_tags);
    if let Some(name) = refused.find(|name| headers.contains_key(*name)) {
        return Err(ApiError::unsupported_header(name));
    }
    Ok(())
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    let takes_post = [MESSAGES_PATH, VERIFY_PATH, REPAIR_PATH].contains(&path);
    let takes_post = takes_post || admin::takes_post(path);
    let methods = if takes_post { "POST" } else { "GET, HEAD" };
    ApiError::method(&method, path).allowing(methods)
}

/// Responds while the process runs.
async fn ping() -> &'static str {
    "pong"
}

/// Responds 200 while the process serves, whatever its peers do.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Responds 200 when the node is in sync, and 503 while it is warming or leaving.
async fn readyz(State(api): State<Api>) -> Response {
    let state = api.driver.state();
    let ready = state == NodeState::InSync;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", state.as_str())).into_response()
}
