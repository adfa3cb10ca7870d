//! Parsers of URLs, for the fuzz targets only.

use zerocache_core::{key::Key, metadata::Metadata, ttl::Ttl, wire::Ack};

use super::{
    key,
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
