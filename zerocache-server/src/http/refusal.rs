//! Refusals that the listener gives itself, before a handler sees the request. All have the form of the
//! API's errors.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Response, StatusCode};

/// The response to a connection above the cap; its request has not been read.
pub(super) const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    retry-after: 1\r\nconnection: close\r\ncontent-type: application/json\r\n\
    cache-control: no-store\r\ncontent-length: 63\r\n\r\n\
    {\"code\":\"overloaded\",\"message\":\"too many connections are open\"}";

/// Returns the body of a refusal; neither part needs escaping.
pub(super) fn body(code: &str, message: &str) -> String {
    format!("{{\"code\":\"{code}\",\"message\":\"{message}\"}}")
}

/// The response to a request that may have been queued while the process was suspended.
pub(super) fn queued() -> Response<Body> {
    let message = "the node was suspended and has not read this request";
    let mut response = closing(StatusCode::SERVICE_UNAVAILABLE, "suspended", message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A response after which the connection is closed.
pub(super) fn closing(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let mut response = Response::new(body(code, message).into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_states_its_length() {
        let text = std::str::from_utf8(OVERLOADED).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
