//! For the fuzz targets only: what is read from a URL.

use zerocache_core::{key::Key, ttl::Ttl, wire::Ack};

use super::{entries::Query, key};

/// The key in the rest of a path, if it is one.
pub fn key(raw: &str, bytes_max: usize) -> Option<Key> {
    key::from_path(raw, bytes_max).ok()
}

/// The parameters of a write, if they are allowed.
pub fn write_parameters(raw: &str) -> Option<(Ttl, Ack)> {
    let query = Query::parse(raw).ok()?;
    query.allow(&["ttl", "ack"]).ok()?;
    Some((query.ttl().ok()?, query.ack().ok()?))
}
