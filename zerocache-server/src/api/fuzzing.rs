//! For the fuzz targets only: what is read from a URL.

use zerocache_core::{key::Key, metadata::Metadata, ttl::Ttl, wire::Ack};

use super::{
    key,
    query::{self, Query},
};

/// The key in the rest of a path, if it is one.
pub fn key(raw: &str, bytes_max: usize) -> Option<Key> {
    key::from_path(raw, bytes_max).ok()
}

/// The parameters of a write, if they are allowed.
pub fn write_parameters(raw: &str) -> Option<(Ttl, Ack, Metadata)> {
    let query = Query::parse(raw).ok()?;
    query.allow(&query::PUT).ok()?;
    Some((query.ttl().ok()?, query.ack().ok()?, query.metadata().ok()?))
}
