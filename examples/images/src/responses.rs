//! Answers: images with what browsers and CDNs need to know, and errors in JSON.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use zerocache_server::api::conditions::{Part, Precondition};

use crate::call::Call;
use crate::convert::Kind;
use crate::failure::Failure;
use crate::internal::ErrorBody;
use crate::metrics::Outcome;
use crate::picture::Picture;
use crate::source::Source;

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const X_WORKER: HeaderName = HeaderName::from_static("x-images-worker");
const X_ERROR: HeaderName = HeaderName::from_static("x-images-error");

/// How answers are sent.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// How long browsers and CDNs keep an image without asking. `None`: they ask each time, and get 304. They keep
    /// an image beyond a purge otherwise.
    pub max_age: Option<Duration>,
    /// The time after that in which they may show it while they ask, and while the service is down.
    pub stale: Duration,
    /// Whether the worker is named.
    pub name_worker: bool,
    /// The image that is sent instead of an error of an origin.
    pub fallback: Option<(Kind, Bytes)>,
}

/// What a request says about the answer.
#[derive(Clone, Copy, Debug)]
pub struct Conditions<'a> {
    /// The headers, with preconditions and ranges.
    pub headers: &'a HeaderMap,
    /// Whether parts are sent.
    pub in_parts: bool,
    /// Whether the answer depends on `Accept`.
    pub varies: bool,
}

impl Style {
    fn cache_control(&self) -> HeaderValue {
        let Some(max_age) = self.max_age else { return HeaderValue::from_static("no-cache") };
        let (age, stale) = (max_age.as_secs(), self.stale.as_secs());
        let text = format!(
            "public, max-age={age}, stale-while-revalidate={stale}, stale-if-error={stale}"
        );
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("no-cache"))
    }

    /// Answers with an image, or a part of it, or that it is known. Returns what was done, too. The bytes keep the
    /// place of the call until they are sent.
    #[must_use]
    pub fn image(
        &self,
        source: &Source,
        picture: Picture,
        found: (Outcome, Option<String>),
        conditions: Conditions<'_>,
        call: &Call,
    ) -> (Response<Body>, Outcome) {
        let mut headers = HeaderMap::new();
        let mut set = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        };
        let etag = picture.etag();
        set(ETAG, &etag);
        set(SURROGATE_KEY, &format!("{} {}", source.tag(), source.host_tag()));
        set(X_CACHE, found.0.as_str());
        if let Some(worker) = found.1.filter(|_| self.name_worker) {
            set(X_WORKER, &worker);
        }
        if conditions.varies {
            set(VARY, "Accept");
        }
        headers.insert(CACHE_CONTROL, self.cache_control());
        match Precondition::evaluate(conditions.headers, etag.as_bytes()) {
            Precondition::Passed => {}
            Precondition::NotModified => {
                return (answer(StatusCode::NOT_MODIFIED, headers, Body::empty()), Outcome::Known);
            }
            Precondition::Failed => {
                let status = StatusCode::PRECONDITION_FAILED;
                return (answer(status, headers, Body::empty()), found.0);
            }
        }
        protect(&mut headers, picture.kind, &source.hash().to_string());
        let part = match conditions.in_parts {
            true => Part::asked(conditions.headers, etag.as_bytes(), picture.bytes.len()),
            false => Part::Whole,
        };
        (body(call.hold(picture.bytes), headers, part), found.0)
    }

    /// Answers with an error, or with the fallback image and the status of the error.
    #[must_use]
    pub fn failure(&self, failure: &Failure) -> Response<Body> {
        match &self.fallback {
            Some((kind, bytes)) if concerns_origin(failure) => {
                let mut headers = HeaderMap::new();
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                headers.insert(X_ERROR, HeaderValue::from_static(failure.code()));
                protect(&mut headers, *kind, "fallback");
                answer(status(failure), headers, Body::from(bytes.clone()))
            }
            _ => json_failure(failure),
        }
    }
}

fn status(failure: &Failure) -> StatusCode {
    StatusCode::from_u16(failure.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn concerns_origin(failure: &Failure) -> bool {
    failure.is_lasting() || matches!(failure, Failure::OriginFailed | Failure::OriginTimeout)
}

/// Answers with the bytes, or the part of them that was asked for.
fn body(bytes: Bytes, mut headers: HeaderMap, part: Part) -> Response<Body> {
    let length = bytes.len();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let range_of =
        |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    match part {
        Part::Whole => {
            headers.insert(CONTENT_LENGTH, length.into());
            answer(StatusCode::OK, headers, Body::from(bytes))
        }
        Part::Bytes(range) => {
            let (first, last) = (range.start, range.end.saturating_sub(1));
            headers.insert(CONTENT_RANGE, range_of(format!("bytes {first}-{last}/{length}")));
            headers.insert(CONTENT_LENGTH, range.len().into());
            answer(StatusCode::PARTIAL_CONTENT, headers, Body::from(bytes.slice(range)))
        }
        Part::Unsatisfiable => {
            headers.insert(CONTENT_RANGE, range_of(format!("bytes */{length}")));
            answer(StatusCode::RANGE_NOT_SATISFIABLE, headers, Body::empty())
        }
    }
}

/// Headers with which a file of a stranger is an image and nothing else.
fn protect(headers: &mut HeaderMap, kind: Kind, name: &str) {
    let extension = kind.media_type().trim_start_matches("image/");
    let name = format!("inline; filename=\"{name}.{extension}\"");
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind.media_type()));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("cross-origin"));
    if let Ok(name) = HeaderValue::try_from(name) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
}

/// Answers with an error in JSON.
#[must_use]
pub fn json_failure(failure: &Failure) -> Response<Body> {
    let mut headers = HeaderMap::new();
    if let Some(seconds) = failure.retry_after() {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    let body = ErrorBody { error: failure.code().to_owned(), message: failure.to_string() };
    json(status(failure), headers, &body)
}

/// Answers with JSON, which nobody keeps.
#[must_use]
pub fn json(
    status: StatusCode,
    mut headers: HeaderMap,
    body: &impl serde::Serialize,
) -> Response<Body> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer(status, headers, Body::from(serde_json::to_vec(body).unwrap_or_default()))
}

fn answer(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
    answer
}
