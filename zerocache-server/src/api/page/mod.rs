//! The page of a node: a read-only view for people, at `/page/`, of the cluster as this node sees it.
//!
//! The files are embedded. What they show comes as server-sent events from `/v1/events`: the [`Feed`] makes
//! one message a second for all viewers, and none while nobody watches. Both need
//! [`Operation::Monitor`]; browsers prove it with the cookie of a [session](sessions), which counts for these
//! paths alone.

mod assets;
mod feed;
mod frame;
mod login;
mod sessions;
mod viewer;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use zerocache_core::access::{Denial, Operation};

use self::{assets::Asset, feed::Feed, sessions::Sessions, viewer::Viewer};
use super::{Api, error::ApiError, method_not_allowed};
use crate::access::Caller;

/// The path of the page.
const PAGE_PATH: &str = "/page/";
/// The path of the login form.
const LOGIN_PATH: &str = "/page/login";

/// What browsers may do with the page: nothing but its own files and data.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The page of one node. Shared by reference.
pub struct Page {
    api: Api,
    feed: Feed,
    sessions: Sessions,
}

impl Page {
    /// Creates the page. It shows nothing until [`Page::run`] runs.
    #[must_use]
    pub fn new(api: Api) -> Arc<Self> {
        Arc::new(Self { api, feed: Feed::default(), sessions: Sessions::default() })
    }

    /// Makes messages while somebody watches. Ends only when dropped.
    pub async fn run(&self) {
        self.feed.run(&self.api).await;
    }

    /// Ends the streams of all viewers, and accepts no further ones.
    pub fn close(&self) {
        self.feed.close();
    }

    /// Returns the routes. Every request has the [`Caller`] among its extensions.
    pub(super) fn router(self: Arc<Self>) -> Router {
        let mut router = Router::new()
            .route("/", get(root))
            .route("/page", get(async || redirect(PAGE_PATH)))
            .route(PAGE_PATH, get(index))
            .route("/v1/events", get(viewer::events))
            .route("/page/logout", axum::routing::post(login::logout));
        for asset in Asset::PUBLIC {
            let serve = async move |headers: HeaderMap| asset.response(&headers);
            router = router.route(asset.path, get(serve));
        }
        router
            .method_not_allowed_fallback(method_not_allowed)
            // The form is served at the path that takes it.
            .route(LOGIN_PATH, get(login::form).post(login::submit))
            .with_state(self)
    }

    /// Returns who watches: the caller, or who has the session of its cookie.
    ///
    /// # Errors
    /// The reason why the caller may not, if it has no session.
    fn viewer(&self, caller: &Arc<Caller>, headers: &HeaderMap) -> Result<Viewer, Denial> {
        let Err(denial) = caller.grant.permits(Operation::Monitor) else {
            return Ok(Viewer::new(Arc::clone(caller), None));
        };
        let viewer = self.sessions.viewer(&self.api.access, caller.connection(), headers);
        viewer.ok_or(denial)
    }
}

/// Sends people to the page, and nobody else: programs that ask for `/` get the error that they got before.
async fn root(uri: Uri, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        return redirect(PAGE_PATH);
    }
    ApiError::not_found_path(uri.path()).into_response()
}

/// The page, or the way to the login.
async fn index(
    State(page): State<Arc<Page>>,
    Extension(caller): Extension<Arc<Caller>>,
    headers: HeaderMap,
) -> Response {
    match page.viewer(&caller, &headers) {
        Ok(_) => assets::INDEX.response(&headers),
        Err(_) => redirect(LOGIN_PATH),
    }
}

/// Leads to another path of this node.
fn redirect(path: &'static str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::from_static(path));
    protect(headers, "no-store");
    response
}

/// Adds the headers that every response of the page has. `cache`: what caches may do with it.
fn protect(headers: &mut HeaderMap, cache: &'static str) {
    let fixed = [
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests;
