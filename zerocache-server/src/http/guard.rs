//! Sits between the HTTP parser and the router: refuses requests that the parser accepts although their
//! framing, their target or their host is ambiguous.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tower::Service as _;

use super::io::ConnectionState;
use super::limits::HttpLimits;
use super::{browser, refusal, suspension};
use crate::telemetry::ServerCounters;

/// The message for a web page under a foreign host name.
const BAD_HOST: &str = "web pages reach a node under an IP address, localhost, a name without dots, or an allowed name only";

/// Handles a request that needs neither its body nor waiting; returns none for any other.
pub type SyncHandler = Arc<dyn Fn(&Request<Incoming>) -> Option<Response<Body>> + Send + Sync>;

/// The handlers of requests.
#[derive(Clone)]
pub struct Service {
    router: Router,
    fast_path: Option<SyncHandler>,
}

impl From<Router> for Service {
    fn from(router: Router) -> Self {
        Self { router, fast_path: None }
    }
}

impl Service {
    /// Adds a handler that is tried before the router.
    #[must_use]
    pub fn with_fast_path(self, handler: SyncHandler) -> Self {
        Self { fast_path: Some(handler), ..self }
    }
}

/// Checks every request of one connection before its handler runs.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) service: Service,
    pub(super) limits: Arc<HttpLimits>,
    pub(super) counters: Arc<ServerCounters>,
    pub(super) state: Arc<ConnectionState>,
    pub(super) peer: SocketAddr,
}

impl Guard {
    /// Handles one request.
    pub(super) async fn handle(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let state = Arc::clone(&self.state);
        state.begin_request();
        let response = self.respond(request).await;
        state.end_request();
        response
    }

    async fn respond(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        self.counters.requests.add();
        let was_queued = suspension::may_have_been_queued();
        // Liveness checks carry nothing that could be outdated.
        if was_queued && !matches!(request.uri().path(), "/ping" | "/healthz") {
            self.counters.refused_after_suspend.add();
            return Ok(refusal::queued());
        }
        let misread = self.state.next_flaw().map(|flaw| (StatusCode::BAD_REQUEST, flaw.as_str()));
        if let Some((status, reason)) = misread.or_else(|| flaw(&request)) {
            self.counters.bad_requests.add();
            return Ok(refusal::closing(status, "bad_request", reason));
        }
        if browser::is_misled(&request, &self.limits.allowed_hosts) {
            self.counters.browsers_refused.add();
            return Ok(refusal::closing(StatusCode::FORBIDDEN, "bad_host", BAD_HOST));
        }
        // The end of a chunked body is not tracked below the parser, so such a request is the last one.
        let is_last = request.headers().contains_key(TRANSFER_ENCODING);
        let fast_path = self.service.fast_path.as_ref().filter(|_| !is_last);
        if let Some(response) = fast_path.and_then(|handler| handler(&request)) {
            return Ok(response);
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let Ok(mut response) = self.service.router.call(request).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.state.upgrade();
        } else if is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// Returns the flaw of a head, if it has one, and the status for it.
fn flaw<B>(request: &Request<B>) -> Option<(StatusCode, &'static str)> {
    let (version, headers) = (request.version(), request.headers());
    let bad = |reason| Some((StatusCode::BAD_REQUEST, reason));
    // RFC 9112 section 3.2 requires 400 for both.
    match headers.get_all(HOST).iter().count() {
        0 if version == Version::HTTP_11 => return bad("the Host header is missing"),
        0 | 1 => {}
        _ => return bad("there is more than one Host header"),
    }
    // With another coding before "chunked" the value would be stored encoded.
    let plain = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    if !headers.get_all(TRANSFER_ENCODING).iter().all(plain) {
        return bad("the only supported Transfer-Encoding is chunked");
    }
    // An HTTP/1.0 client may end a body by closing its side, which the parser reads as no body
    // (RFC 9112 section 6.3).
    let has_body = matches!(*request.method(), Method::PUT | Method::POST | Method::PATCH);
    if version < Version::HTTP_11 && has_body && !headers.contains_key(CONTENT_LENGTH) {
        let reason = "an HTTP/1.0 request with a body needs a Content-Length";
        return Some((StatusCode::LENGTH_REQUIRED, reason));
    }
    None
}
