//! Keys and parameters in URLs.

use zerocache_core::{limits::METADATA_BYTES_MAX, metadata::Metadata, ttl::Ttl};
use zerocache_server::api::fuzzing;

/// Longest key.
const KEY_BYTES_MAX: usize = 64;

/// Reads a key and, after the first `?`, the parameters of a write.
pub fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if let Some(key) = fuzzing::key(path, KEY_BYTES_MAX) {
        assert!((1..=KEY_BYTES_MAX).contains(&key.as_bytes().len()), "a key beyond its limit");
        let escaped: String = key.as_bytes().iter().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(fuzzing::key(&escaped, KEY_BYTES_MAX), Some(key), "escaping names another key");
    }
    if let Some((ttl, _ack, metadata)) = fuzzing::write_parameters(query) {
        assert!((Ttl::MIN..=Ttl::MAX).contains(&ttl), "a lifetime out of range");
        assert_eq!(ttl.as_millis() % 1_000, 0, "a lifetime that is no whole second");
        let bytes = metadata.encode();
        assert!(bytes.len() <= METADATA_BYTES_MAX, "more metadata than an entry may have");
        assert_eq!(Metadata::decode(&bytes), Ok(metadata), "metadata that is read differently");
    }
}
