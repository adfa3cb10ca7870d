//! The HTTP interface of gateways and workers.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri};
use axum::response::Html;
use axum::routing::{get, post};
use bytes::Bytes;
use serde_json::json;
use zerocache_client::ZerocacheClient;

use crate::call::Call;
use crate::capacity::Capacity;
use crate::clock::now;
use crate::failure::Failure;
use crate::gateway::{Answer, Gateway};
use crate::internal::{self, ErrorBody, KEY_HEADER, TIME_HEADER, Wanted};
use crate::metrics::{Gauges, Metrics};
use crate::negotiate::accepts_webp;
use crate::purge;
use crate::query::{Params, VariantRules};
use crate::responses::{Conditions, Style, json, json_failure};
use crate::signature::{Keys, SharedKey};
use crate::source::Source;
use crate::variant::Format;
use crate::worker::Worker;

/// The longest body of a request between gateways and workers: a URL and a variant.
const INTERNAL_BYTES_MAX: usize = 16 << 10;

/// The type of OpenMetrics text.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A process of the service.
pub struct App {
    /// The gateway, unless the process is a worker alone.
    pub gateway: Option<Gateway>,
    /// The worker, unless the process is a gateway alone.
    pub worker: Option<Arc<Worker>>,
    /// The cache.
    pub cache: ZerocacheClient,
    /// Presets and sizes.
    pub rules: VariantRules,
    /// The keys of signed URLs.
    pub signing: Keys,
    /// The key with which everything of a source may be purged; none if nobody may.
    pub purge_key: Option<SharedKey>,
    /// The key that gateways send to workers; none if this process's worker is for itself alone.
    pub worker_key: Option<SharedKey>,
    /// How answers are sent.
    pub style: Style,
    /// Requests at once, until their answers are sent.
    pub requests: Capacity,
    /// The longest time until an answer begins.
    pub time: Duration,
    /// Whether there is a page with a gallery.
    pub gallery: bool,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The routes of a process, by its roles.
pub fn router(app: Arc<App>) -> Router {
    let mut routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics));
    if app.gateway.is_some() {
        routes = routes
            .route("/image", get(image))
            .route("/thumb/{size}/{*url}", get(thumb))
            .route("/original", get(original))
            .route("/purge", post(purge::purge));
    }
    if app.gateway.is_some() && app.gallery {
        routes = routes.route("/", get(async || Html(include_str!("gallery.html"))));
    }
    if app.worker.is_some() && app.worker_key.is_some() {
        routes = routes.route(internal::PATH, post(work));
    }
    let routes = routes.fallback(no_such_path);
    routes.layer(DefaultBodyLimit::max(INTERNAL_BYTES_MAX)).with_state(app)
}

/// Names the paths that there are, for people who look around.
async fn no_such_path(State(app): State<Arc<App>>) -> Response<Body> {
    let message = match app.gateway {
        Some(_) => {
            "there are /image?url=URL&w=250, /thumb/WIDTHxHEIGHT/URL, /original?url=URL, POST /purge, /healthz, \
             /readyz and /metrics; with --gallery there is a page at /"
        }
        None => "there are /healthz, /readyz and /metrics; gateways have the images",
    };
    let body = ErrorBody { error: "no_such_path".to_owned(), message: message.to_owned() };
    json(StatusCode::NOT_FOUND, HeaderMap::new(), &body)
}

async fn image(State(app): State<Arc<App>>, target: Uri, headers: HeaderMap) -> Response<Body> {
    let params = Params::parse(target.query().unwrap_or_default());
    app.answer(&target, &headers, params, false).await
}

async fn thumb(
    State(app): State<Arc<App>>,
    Path((size, url)): Path<(String, String)>,
    target: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let params = Params::parse(target.query().unwrap_or_default());
    app.answer(&target, &headers, params.and_then(|params| params.with_path(&size, &url)), false)
        .await
}

async fn original(State(app): State<Arc<App>>, target: Uri, headers: HeaderMap) -> Response<Body> {
    let params = Params::parse(target.query().unwrap_or_default());
    app.answer(&target, &headers, params, true).await
}

impl App {
    async fn answer(
        &self,
        target: &Uri,
        headers: &HeaderMap,
        params: Result<Params, Failure>,
        original: bool,
    ) -> Response<Body> {
        match self.try_answer(target, headers, params, original).await {
            Ok(answer) => answer,
            Err(failure) => {
                self.metrics.refused(&failure);
                tracing::info!(target: "images::access", error = failure.code(), "refused");
                self.style.failure(&failure)
            }
        }
    }

    async fn try_answer(
        &self,
        target: &Uri,
        headers: &HeaderMap,
        params: Result<Params, Failure>,
        original: bool,
    ) -> Result<Response<Body>, Failure> {
        let begin = now();
        let gateway = self.gateway.as_ref().ok_or(Failure::Internal)?;
        let call = self.call(self.time).await?;
        // Before anything that depends on the parameters.
        let signed = target.path_and_query().map_or("", |target| target.as_str());
        self.signing.verify(signed)?;
        let params = params?;
        let source =
            Source::parse(params.get("url").ok_or_else(|| Failure::bad("url: required"))?)?;
        let (Answer { picture, outcome, worker }, varies) = if original {
            (gateway.original(&source, &call).await?, false)
        } else {
            let variant = self.rules.variant(&params, accepts_webp(text(headers, &ACCEPT)))?;
            let varies = matches!(variant.format, Format::Auto | Format::AutoWebp);
            (gateway.variant(&source, &variant, &call).await?, varies)
        };
        let conditions = Conditions { headers, in_parts: original, varies };
        let found = (outcome, worker);
        let (answer, outcome) = self.style.image(&source, picture, found, conditions, &call);
        let took = now() - begin;
        self.metrics.answered(outcome, took);
        let (source, ms) = (source.hash(), took.as_secs_f64() * 1e3);
        tracing::info!(target: "images::access", %source, outcome = outcome.as_str(), ms, "answered");
        Ok(answer)
    }
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A worker's answer to a gateway.
async fn work(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    match app.work(&headers, &body).await {
        Ok(answer) => answer,
        Err(failure) => {
            app.metrics.refused(&failure);
            json_failure(&failure)
        }
    }
}

impl App {
    async fn work(&self, headers: &HeaderMap, body: &[u8]) -> Result<Response<Body>, Failure> {
        let sent = headers.get(KEY_HEADER).map(HeaderValue::as_bytes);
        if !self.worker_key.as_ref().is_some_and(|key| key.matches(sent)) {
            return Err(Failure::Forbidden);
        }
        let worker = self.worker.as_ref().ok_or(Failure::Internal)?;
        let time = text(headers, &TIME_HEADER).and_then(|time| time.parse().ok());
        let time = time.map_or(self.time, |time| self.time.min(Duration::from_millis(time)));
        let call = self.call(time).await?;
        let Wanted { url, variant } = serde_json::from_slice(body)
            .map_err(|_| Failure::bad("the body is not a request of a gateway"))?;
        let source = Source::parse(&url)?;
        let picture = match variant {
            Some(variant) => worker.variant(&source, &variant, &call).await?,
            None => worker.original(&source, &call).await?,
        };
        let (name, shape) = internal::shape(&picture);
        let mut answer = Response::new(Body::from(call.hold(picture.bytes)));
        answer.headers_mut().insert(name, shape);
        Ok(answer)
    }

    async fn call(&self, time: Duration) -> Result<Call, Failure> {
        let deadline = now() + time;
        Ok(Call::new(deadline, self.requests.acquire(deadline).await?))
    }

    fn cache_nodes(&self) -> usize {
        self.cache.nodes().iter().filter(|node| node.in_rotation).count()
    }
}

/// A gateway is ready when it knows a worker. The cache is no condition: without it the service is slower.
async fn ready(State(app): State<Arc<App>>) -> Response<Body> {
    let workers = app.gateway.as_ref().map(Gateway::worker_count);
    let body = json!({ "workers": workers, "cache_nodes": app.cache_nodes() });
    let status = match workers {
        Some(0) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    };
    json(status, HeaderMap::new(), &body)
}

async fn metrics(State(app): State<Arc<App>>) -> ([(HeaderName, &'static str); 1], String) {
    let worker = app.worker.as_ref();
    let of = |capacity: &Capacity| (capacity.used(), capacity.waiting());
    let (fetching, waiting) = worker.map_or((0, 0), |worker| of(&worker.fetches));
    let waiting_for_hosts = worker.map_or(0, |worker| worker.hosts.waiting());
    app.metrics.set_gauges(&Gauges {
        workers: app.gateway.as_ref().map_or(0, Gateway::worker_count),
        conversions: worker.map_or((0, 0), |worker| of(&worker.conversions)),
        fetches: (fetching, waiting + waiting_for_hosts),
        cache_nodes: app.cache_nodes(),
    });
    ([(CONTENT_TYPE, METRICS_TYPE)], app.metrics.text())
}
