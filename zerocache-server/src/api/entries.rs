//! `/v1/entries/{key}`: the face for curl and other languages.

use std::borrow::Cow;

use axum::{
    Json,
    body::Body,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
};
use bytes::Bytes;
use serde::Serialize;
use zerocache_core::{
    key::Key,
    node::{Input, Scope, WriteOp},
    ttl::Ttl,
    wire::{Ack, Response, Status, Written},
};

use super::{Api, error::ApiError, key};
use crate::http::read_body;

/// What remains of an entry's life, in milliseconds.
const TTL_MS: HeaderName = HeaderName::from_static("zerocache-ttl-ms");

/// The version of an entry.
const VERSION: HeaderName = HeaderName::from_static("zerocache-version");

/// The answer to a write.
#[derive(Serialize)]
struct WrittenBody {
    status: &'static str,
    replicas: u32,
    replicas_wanted: u32,
    version: Option<String>,
}

pub(super) async fn handle(
    api: &Api,
    method: &Method,
    raw_key: &str,
    query: Option<&str>,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return get_at_once(api, raw_key, query);
    }
    let key = key::from_path(raw_key, api.key_bytes_max)?;
    let query = Query::parse(query.unwrap_or_default())?;
    match *method {
        Method::PUT => {
            query.allow(&["ttl", "ack"])?;
            let (ttl, ack) = (query.ttl()?, query.ack()?);
            let value = read_body(body, api.value_bytes_max, &api.bodies).await?;
            let op = WriteOp::Put { value, metadata: Bytes::new(), ttl };
            written(write(api, key, op, ack, Scope::Cluster).await)
        }
        Method::DELETE => {
            query.allow(&["ack"])?;
            written(write(api, key, WriteOp::Delete, query.ack()?, Scope::Cluster).await)
        }
        _ => Err(ApiError::method(method, "/v1/entries/KEY").allowing("GET, HEAD, PUT, DELETE")),
    }
}

/// Answers a GET.
pub(super) fn get_at_once(
    api: &Api,
    raw_key: &str,
    query: Option<&str>,
) -> Result<HttpResponse, ApiError> {
    let key = key::from_path(raw_key, api.key_bytes_max)?;
    Query::parse(query.unwrap_or_default())?.allow(&[])?;
    get(api, &key)
}

/// Writes through the node.
pub(super) async fn write(api: &Api, key: Key, op: WriteOp, ack: Ack, scope: Scope) -> Response {
    api.runtime.answer(|id| Input::Write { id, key, op, ack, scope, timeout_ms: 0 }).await
}

fn get(api: &Api, key: &Key) -> Result<HttpResponse, ApiError> {
    match api.runtime.read(key) {
        Response::Found { value, version, remaining_ms, .. } => {
            let mut response = value.into_response();
            let headers = response.headers_mut();
            headers.insert(TTL_MS, HeaderValue::from(remaining_ms));
            if let Ok(version) = HeaderValue::from_bytes(&version.to_text()) {
                headers.insert(VERSION, version);
            }
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(response)
        }
        Response::NotFound { warming } => Err(ApiError::not_found(warming)),
        _ => Err(ApiError::unexpected()),
    }
}

fn written(response: Response) -> Result<HttpResponse, ApiError> {
    match response {
        Response::Written(Written { status, replicas, replicas_wanted, version }) => {
            let code = match status {
                Status::Refused => StatusCode::SERVICE_UNAVAILABLE,
                Status::Stored | Status::Superseded | Status::Unknown => StatusCode::OK,
            };
            let version = version.map(|version| version.to_string());
            let status = status.as_str();
            Ok((code, Json(WrittenBody { status, replicas, replicas_wanted, version }))
                .into_response())
        }
        Response::Refused(refusal) => Err(refusal.into()),
        _ => Err(ApiError::unexpected()),
    }
}

/// The parameters of a request, each at most once.
pub(super) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    pub(super) fn parse(query: &'a str) -> Result<Self, ApiError> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(ApiError::bad_query(format!("the parameter {name:?} stands twice")));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_ref())
    }

    /// An unknown parameter is a mistake that would otherwise go unnoticed.
    pub(super) fn allow(&self, names: &[&str]) -> Result<(), ApiError> {
        match self.pairs.iter().find(|(name, _)| !names.contains(&name.as_ref())) {
            Some((name, _)) => Err(ApiError::bad_query(format!("unknown parameter {name:?}"))),
            None => Ok(()),
        }
    }

    pub(super) fn ttl(&self) -> Result<Ttl, ApiError> {
        let Some(text) = self.get("ttl") else { return Ok(Ttl::HTTP_DEFAULT) };
        let seconds = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        seconds.and_then(|seconds| Ttl::from_secs(seconds).ok()).ok_or_else(|| {
            ApiError::bad_ttl(format!(
                "ttl={text:?} is not a whole number of seconds from 1 to 99999999"
            ))
        })
    }

    pub(super) fn ack(&self) -> Result<Ack, ApiError> {
        match self.get("ack") {
            None | Some("local") => Ok(Ack::Local),
            Some("region") => Ok(Ack::Region),
            Some("all") => Ok(Ack::All),
            Some(other) => {
                let message = format!("ack={other:?} is none of \"local\", \"region\", \"all\"");
                Err(ApiError::bad_query(message))
            }
        }
    }
}

fn decoded(text: &str) -> Result<Cow<'_, str>, ApiError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = key::percent_decode(text);
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.map(Cow::Owned).ok_or_else(|| ApiError::bad_query("a parameter is badly percent-encoded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ttl(query: &str) -> Option<u64> {
        Query::parse(query).ok()?.ttl().ok().map(Ttl::as_millis)
    }

    #[test]
    fn lifetimes_are_whole_seconds_in_range() {
        assert_eq!(ttl(""), Some(3_600_000));
        assert_eq!(ttl("ttl=1"), Some(1_000));
        assert_eq!(ttl("ttl=99999999"), Some(99_999_999_000));
        for bad in
            ["0", "100000000", "-1", "1.5", "", "abc", "+5", " 5", "99999999999999999999999", "%zz"]
        {
            assert_eq!(ttl(&format!("ttl={bad}")), None, "{bad}");
        }
        assert!(Query::parse("ttl=1&ttl=2").is_err());
        assert!(Query::parse("tll=1").is_ok_and(|query| query.allow(&["ttl"]).is_err()));
    }
}
