//! Headers of reads and writes over HTTP.

use zerocache_core::{limits::METADATA_BYTES_MAX, metadata::Metadata};
use zerocache_server::api::fuzzing;

/// The entity tag of the value.
const ETAG: &[u8] = b"\"1.a\"";

/// Reads the length of a value, a byte, and then lines of headers with names and values.
pub fn headers(data: &[u8]) {
    let Some((total, lines)) = data.split_first() else { return };
    let total = usize::from(*total);
    let lines = lines.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    });
    let (range, metadata) = fuzzing::headers(lines, (ETAG, total));
    if let Some(range) = range {
        assert!(range.start < range.end && range.end <= total, "a range beyond the value");
    }
    let Some(metadata) = metadata else { return };
    let bytes = metadata.encode();
    assert!(bytes.len() <= METADATA_BYTES_MAX, "more metadata than an entry may have");
    for text in metadata.content_type().into_iter().chain(metadata.content_encoding()) {
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "a line break in a header");
    }
    assert_eq!(Metadata::decode(&bytes), Ok(metadata), "metadata that is read differently");
}
