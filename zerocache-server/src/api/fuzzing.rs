//! Parsers of URLs and headers, for the fuzz targets only.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use zerocache_core::{key::Key, metadata::Metadata, ttl::Ttl, wire::Ack};

use super::{
    conditions::{Part, Precondition},
    key, put_headers,
    query::{self, Query},
};

/// Returns the key in the rest of a path, if it is valid.
pub fn key(raw: &str, bytes_max: usize) -> Option<Key> {
    key::from_path(raw, bytes_max).ok()
}

/// Returns the parameters of a write, if they are valid.
pub fn write_parameters(raw: &str) -> Option<(Ttl, Ack, Metadata)> {
    let query = Query::parse(raw).ok()?;
    query.allow(&query::PUT).ok()?;
    Some((query.ttl().ok()?, query.ack().ok()?, query.metadata().ok()?))
}

/// Parses the headers of a read of a value with `total` bytes, and of a PUT. Returns the range that is read, if
/// it is one, and what the PUT says about its value, if it is valid.
pub fn headers<'a>(
    lines: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    (etag, total): (&[u8], usize),
) -> (Option<Range<usize>>, Option<Metadata>) {
    let headers: HeaderMap = lines
        .filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
        .collect();
    let range = match (Precondition::evaluate(&headers, etag), Part::asked(&headers, etag, total)) {
        (Precondition::Passed, Part::Bytes(range)) => Some(range),
        _ => None,
    };
    let mut metadata = Metadata::default();
    let added = put_headers::add(&mut metadata, &headers);
    (range, added.ok().map(|()| metadata))
}
