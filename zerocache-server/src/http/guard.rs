//! Sits between the HTTP parser and the router: refuses requests that the parser accepts although their
//! framing, their target or their host is ambiguous, and finds out who calls.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use tower::Service as _;
use zerocache_core::access::Denial;

use super::io::ConnectionState;
use super::limits::HttpLimits;
use super::{browser, refusal, suspension};
use crate::access::{Caller, ConnectionCaller};
use crate::telemetry::ServerCounters;

/// The message for a POST of a page of another origin.
const CROSS_SITE: &str = "pages of other origins may not use this path";

/// The message for a web page under a foreign host name.
const BAD_HOST: &str = "web pages reach a node under an IP address, localhost, a name without dots, or one \
    that --allowed-host names";

/// The message for a caller without TLS.
const TLS_REQUIRED: &str = "this node takes encrypted connections only: use https, and with zerocache a \
    token or the secret of the cluster";

/// The longest body that may follow a refused request on a connection that stays open, in bytes.
const UNREAD_BYTES_MAX: u64 = 16 << 10;

/// Handles a request of a caller that needs neither its body nor waiting; returns none for any other.
pub type SyncHandler =
    Arc<dyn Fn(&Request<Incoming>, &Arc<Caller>) -> Option<Response<Body>> + Send + Sync>;

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
pub(super) struct Guard {
    pub(super) service: Service,
    pub(super) limits: Arc<HttpLimits>,
    pub(super) counters: Arc<ServerCounters>,
    pub(super) state: Arc<ConnectionState>,
    pub(super) caller: ConnectionCaller,
    /// Requests are refused, because they come unencrypted.
    pub(super) needs_tls: bool,
}

impl Guard {
    /// Handles one request.
    pub(super) async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        self.state.begin_request();
        let response = self.respond(request).await;
        self.state.end_request();
        Ok(response)
    }

    /// Waits until the certificate of the caller no longer entitles to the same. Requests with other
    /// credentials, or without any, are judged one by one.
    pub(super) fn end_of_certificate(&self) -> Option<impl Future<Output = Denial> + use<>> {
        self.caller.connection().certificate.as_ref()?;
        let caller = self.caller.authenticate(None).ok()?;
        let access = Arc::clone(self.caller.access());
        Some(async move { access.end_of(&caller).await })
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        self.counters.requests.add();
        if let Some(refused) = self.refuse(&request) {
            return refused;
        }
        let caller = match self.caller.authenticate(request.headers().get(AUTHORIZATION)) {
            Ok(caller) => Some(caller),
            Err(_) if is_open(request.uri().path()) => None,
            Err(denial) => return self.deny(&request, denial),
        };
        // The end of a chunked body is not tracked below the parser, so such a request is the last one.
        let is_last = request.headers().contains_key(TRANSFER_ENCODING);
        if let (Some(handler), Some(caller)) = (&self.service.fast_path, &caller)
            && !is_last
            && let Some(response) = handler(&request, caller)
        {
            return response;
        }
        let mut request = request.map(Body::new);
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        let Ok(mut response) = self.service.router.clone().call(request).await;
        if response.status() == StatusCode::NOT_MODIFIED {
            // The router states that of the empty body, which is not that of the value (RFC 9110 section 8.6).
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.state.upgrade();
        } else if is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Refuses a request that may be outdated, is ambiguous, or comes from a foreign web page.
    fn refuse(&self, request: &Request<Incoming>) -> Option<Response<Body>> {
        let was_queued = suspension::may_have_been_queued();
        // Liveness checks carry nothing that could be outdated.
        if was_queued && !matches!(request.uri().path(), "/ping" | "/healthz") {
            self.counters.refused_after_suspend.add();
            return Some(refusal::queued());
        }
        let misread = self.state.next_flaw().map(|flaw| (StatusCode::BAD_REQUEST, flaw.as_str()));
        if let Some((status, reason)) = misread.or_else(|| flaw(request)) {
            self.counters.bad_requests.add();
            return Some(refusal::closing(status, "bad_request", reason));
        }
        if self.needs_tls {
            self.counters.plain_refused.add();
            return Some(refusal::closing(StatusCode::BAD_REQUEST, "tls_required", TLS_REQUIRED));
        }
        if browser::is_misled(request, &self.limits.allowed_hosts) {
            self.counters.browsers_refused.add();
            return Some(refusal::closing(StatusCode::FORBIDDEN, "bad_host", BAD_HOST));
        }
        // A browser sends a POST of any page without asking, with the credentials that it has.
        if *request.method() == Method::POST && browser::is_cross_site(request.headers()) {
            self.counters.browsers_refused.add();
            return Some(refusal::closing(StatusCode::FORBIDDEN, "cross_site", CROSS_SITE));
        }
        None
    }

    /// Refuses a request whose caller is not let in.
    fn deny(&self, request: &Request<Incoming>, denial: Denial) -> Response<Body> {
        let mut response = self.caller.refuse(denial);
        let length = request.body().size_hint().exact();
        let is_long = length.is_none_or(|bytes| bytes > UNREAD_BYTES_MAX);
        // On another host the caller stays where it is.
        if is_long || denial == Denial::Protected {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Returns whether everybody may ask for `path`: checks of liveness and readiness.
fn is_open(path: &str) -> bool {
    matches!(path, "/ping" | "/healthz" | "/readyz")
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
