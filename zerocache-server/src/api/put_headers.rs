//! What the headers of a PUT state about its value.

use axum::http::{HeaderMap, HeaderName, header};
use zerocache_core::metadata::Metadata;

use super::error::ApiError;

/// The headers with tags that CDNs know, and what separates these.
const TAG_HEADERS: [(HeaderName, char); 2] =
    [(HeaderName::from_static("surrogate-key"), ' '), (HeaderName::from_static("cache-tag"), ',')];

/// The content type of an entry without one.
const DEFAULT_TYPE: &str = "application/octet-stream";

/// What curl sends with a body unless it is given another content type: it says nothing about the value.
const FORM_TYPE: &str = "application/x-www-form-urlencoded";

/// Adds what the headers state to the metadata.
pub(super) fn add(metadata: &mut Metadata, headers: &HeaderMap) -> Result<(), ApiError> {
    add_tags(metadata, headers)?;
    if let Some(text) = joined(headers, &header::CONTENT_TYPE, ApiError::bad_content_type)? {
        let is = |other: &str| text.eq_ignore_ascii_case(other);
        if !is(DEFAULT_TYPE) && !is(FORM_TYPE) {
            let set = metadata.set_content_type(&text);
            set.map_err(|error| ApiError::bad_content_type(error.to_string()))?;
        }
    }
    if let Some(text) = joined(headers, &header::CONTENT_ENCODING, ApiError::content_encoding)?
        && !text.eq_ignore_ascii_case("identity")
    {
        let set = metadata.set_content_encoding(&text);
        set.map_err(|error| ApiError::content_encoding(error.to_string()))?;
    }
    Ok(())
}

/// Returns the lines of a header as one; none if they are empty.
fn joined(
    headers: &HeaderMap,
    name: &HeaderName,
    error: fn(String) -> ApiError,
) -> Result<Option<String>, ApiError> {
    let mut text = String::new();
    for value in headers.get_all(name) {
        let line = value.to_str().map_err(|_| error(format!("{name} is not ASCII")))?.trim();
        if !text.is_empty() && !line.is_empty() {
            text.push_str(", ");
        }
        text.push_str(line);
    }
    Ok((!text.is_empty()).then_some(text))
}

fn add_tags(metadata: &mut Metadata, headers: &HeaderMap) -> Result<(), ApiError> {
    for (name, separator) in &TAG_HEADERS {
        for value in headers.get_all(name) {
            let text = str::from_utf8(value.as_bytes());
            let text = text.map_err(|_| ApiError::bad_query(format!("{name}: not UTF-8")))?;
            // As CDNs do, and unlike the parameter: empty ones are none, and nothing is decoded.
            for tag in text.split(*separator).map(str::trim).filter(|tag| !tag.is_empty()) {
                let added = metadata.add_tag(tag);
                added.map_err(|error| ApiError::bad_query(format!("{name}: {error}")))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn added(lines: &[(&'static str, &str)]) -> Option<Metadata> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(HeaderName::from_static(name), value);
        }
        let mut metadata = Metadata::default();
        add(&mut metadata, &headers).ok()?;
        Some(metadata)
    }

    #[test]
    fn type_and_encoding_are_kept_as_they_are_sent() {
        let metadata = added(&[
            ("content-type", "text/html; charset=utf-8"),
            ("content-encoding", "gzip"),
            ("content-encoding", "br"),
            ("surrogate-key", "a b"),
            ("cache-tag", "c"),
        ]);
        let metadata = metadata.expect("allowed");
        assert_eq!(metadata.content_type(), Some("text/html; charset=utf-8"));
        assert_eq!(metadata.content_encoding(), Some("gzip, br"));
        assert_eq!(metadata.tags(), ["a", "b", "c"]);
    }

    #[test]
    fn headers_that_state_nothing_take_no_memory() {
        for line in [
            ("content-type", ""),
            ("content-type", "application/octet-stream"),
            ("content-type", "Application/X-WWW-Form-Urlencoded"),
            ("content-encoding", "identity"),
            ("content-encoding", ""),
            ("cache-tag", ","),
        ] {
            assert_eq!(added(&[line]), Some(Metadata::default()), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_type_or_encoding_is_refused() {
        for line in [
            ("content-type", "png"),
            ("content-type", "text/\u{fc}"),
            ("content-encoding", "gzip br"),
            ("content-encoding", ","),
        ] {
            assert_eq!(added(&[line]), None, "{line:?}");
        }
        let two = [("content-type", "text/html"), ("content-type", "text/plain")];
        assert_eq!(added(&two), None);
    }
}
