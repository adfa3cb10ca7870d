//! Errors over HTTP: status, stable code, message.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use zerocache_core::{
    access::Denial,
    key::InvalidKey,
    wire::{Refusal, RefusalCode},
};

use crate::{access::denial_status, http::BodyError};

/// The `Retry-After` of an overloaded node, in seconds.
const RETRY_AFTER_S: u32 = 1;

/// Marks a miss that is not authoritative: the node is warming or leaving.
pub(super) const WARMING: HeaderName = HeaderName::from_static("zerocache-warming");

/// An error response.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after_s: Option<u32>,
    warming: bool,
    allow: Option<&'static str>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            retry_after_s: None,
            warming: false,
            allow: None,
        }
    }

    pub(super) fn bad_query(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_query", message)
    }

    pub(super) fn bad_key(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_key", message)
    }

    pub(super) fn bad_ttl(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_ttl", message)
    }

    pub(super) fn bad_message(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_message", message)
    }

    pub(super) fn bad_content_type(message: String) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_content_type", message)
    }

    pub(super) fn unsupported_header(name: &HeaderName) -> Self {
        let message = format!("{name} is not supported: a write always stores the whole value");
        Self::new(StatusCode::BAD_REQUEST, "unsupported_header", message)
    }

    /// A write on a condition of a kind that nodes do not judge.
    pub(super) fn unsupported_condition(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unsupported_header", message)
    }

    pub(super) fn content_encoding(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", message)
    }

    /// The value is not the one that the caller wants.
    pub(super) fn precondition_failed() -> Self {
        let message = "the value has another entity tag";
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", message)
    }

    /// The condition of a write does not hold.
    pub(super) fn condition_not_met(has_value: bool) -> Self {
        let message = match has_value {
            true => "the condition does not hold for the value that this node has",
            false => "the condition does not hold: this node has no value for this key",
        };
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", message)
    }

    /// The value has none of the bytes that the caller wants.
    pub(super) fn unsatisfiable_range(bytes: usize) -> Self {
        let message = format!("the value has {bytes} bytes");
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "unsatisfiable_range", message)
    }

    /// The copies of a key, or what happened to it meanwhile, do not allow what is asked for.
    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    pub(super) fn not_found(warming: bool) -> Self {
        let error =
            Self::new(StatusCode::NOT_FOUND, "not_found", "no value is stored for this key");
        Self { warming, ..error }
    }

    /// Whether the node has no value of the key.
    pub(super) fn is_miss(&self) -> bool {
        self.code == "not_found"
    }

    /// A value that this node holds and cannot show: to whoever asks it is a miss.
    pub(super) fn unreadable() -> Self {
        let message = "the value of this key cannot be shown over HTTP: unpacked it is larger than this node \
                       accepts values, or it was written by a later release";
        Self::new(StatusCode::NOT_FOUND, "unreadable_value", message)
    }

    pub(super) fn not_found_path(path: &str) -> Self {
        let shown: String = path.chars().take(80).collect();
        let message = format!(
            "no such path: {shown}; entries are at /v1/entries/KEY, and the page of a node, unless it is off, \
             at /page/"
        );
        Self::new(StatusCode::NOT_FOUND, "no_such_path", message)
    }

    pub(super) fn method(method: &Method, path: &str) -> Self {
        let shown: String = path.chars().take(80).collect();
        let message = format!("{method} is not allowed at {shown}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// Returns whether the request is invalid; a miss and a caller without permission are not.
    pub(super) fn is_bad_request(&self) -> bool {
        let is_denied = matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let is_miss = self.is_miss() || self.code == "unreadable_value";
        self.status.is_client_error() && !is_denied && !is_miss
    }

    /// Removes the warming mark, for paths without it.
    pub(super) fn without_warming(self) -> Self {
        Self { warming: false, ..self }
    }

    /// Sets the allowed methods.
    pub(super) fn allowing(self, methods: &'static str) -> Self {
        Self { allow: Some(methods), ..self }
    }

    /// A request that a page of another origin sent.
    pub(super) fn cross_site() -> Self {
        let message = "pages of other origins may not use this path";
        Self::new(StatusCode::FORBIDDEN, "cross_site", message)
    }

    /// The page of the node has as many viewers as it may, or the node is closing.
    pub(super) fn no_seat() -> Self {
        let message = "too many viewers, or the node is closing";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message);
        Self { retry_after_s: Some(RETRY_AFTER_S), ..error }
    }

    /// A write of which it is not known whether it was made.
    pub(super) fn unconfirmed() -> Self {
        let message = "the owner of the key has not answered: the write may have been made";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "unconfirmed", message)
    }

    /// A response of the core that does not match the request.
    pub(super) fn unexpected() -> Self {
        let message = "unexpected response of the node";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl From<InvalidKey> for ApiError {
    fn from(error: InvalidKey) -> Self {
        Self::bad_key(error.to_string())
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let code = match error {
            BodyError::TooLarge { .. } => "too_large",
            BodyError::TooSlow => "body_too_slow",
            BodyError::Incomplete => "body_incomplete",
            BodyError::NoMemory => "overloaded",
            BodyError::Suspended => "suspended",
        };
        let refused = Self::new(error.status(), code, error.to_string());
        Self { retry_after_s: error.retry_after_s(), ..refused }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        if let Some(denial) = Denial::from_refusal_code(refusal.code) {
            return Self::new(denial_status(denial), denial.as_str(), refusal.text);
        }
        let (status, code) = match refusal.code {
            RefusalCode::BadKey => (StatusCode::BAD_REQUEST, "bad_key"),
            RefusalCode::BadMessage | RefusalCode::BadHello => {
                (StatusCode::BAD_REQUEST, "bad_message")
            }
            RefusalCode::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            RefusalCode::WrongCluster | RefusalCode::WrongNode => {
                (StatusCode::MISDIRECTED_REQUEST, "misdirected")
            }
            RefusalCode::Warming => (StatusCode::SERVICE_UNAVAILABLE, "warming"),
            RefusalCode::Behind => (StatusCode::SERVICE_UNAVAILABLE, "behind"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        };
        let unavailable = status == StatusCode::SERVICE_UNAVAILABLE;
        let refused = Self::new(status, code, refusal.text);
        Self { retry_after_s: unavailable.then_some(RETRY_AFTER_S), ..refused }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body { code: self.code, message: &self.message };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(methods) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.warming {
            headers.insert(WARMING, HeaderValue::from_static("true"));
        }
        response
    }
}
