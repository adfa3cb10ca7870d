//! Requests that tests send as messages.

use bytes::Bytes;
use zerocache_core::key::Key;
use zerocache_core::ttl::Ttl;
use zerocache_core::version::VersionSource;
use zerocache_core::wire::{Ack, Request};

/// The longest key that a node takes unless configured.
pub const KEY_BYTES_MAX: usize = 1024;

/// A key.
///
/// # Panics
///
/// If it is not a valid key.
pub fn key(name: impl AsRef<[u8]>) -> Key {
    Key::within(Bytes::copy_from_slice(name.as_ref()), KEY_BYTES_MAX).expect("a key")
}

/// Returns a write of a key with a TTL of one minute and default options.
///
/// # Panics
///
/// If the key is invalid.
pub fn put(name: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Request {
    Request::Put {
        key: key(name),
        value: value.into(),
        metadata: Bytes::new(),
        ttl: Ttl::from_secs(60).expect("a lifetime"),
        ack: Ack::Local,
        version: VersionSource::Accepted,
    }
}
