//! Metadata that describe a value to readers over HTTP, and say where else it is.

use alloc::{boxed::Box, string::String, vec::Vec};

use super::Metadata;

/// The longest content type in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 255;

/// The longest content encoding in bytes.
pub const CONTENT_ENCODING_BYTES_MAX: usize = 64;

/// The longest URL of an origin in bytes.
pub const ORIGIN_BYTES_MAX: usize = 512;

/// The most origins of one entry.
pub const ORIGINS_MAX: usize = 4;

/// A description of a value. Boxed: most entries have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    content_type: Option<String>,
    content_encoding: Option<String>,
    origins: Vec<String>,
}

/// A description that cannot be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// The content type is not one, or longer than [`CONTENT_TYPE_BYTES_MAX`].
    #[error(
        "a content type is TYPE/SUBTYPE with parameters, in ASCII, of at most {CONTENT_TYPE_BYTES_MAX} bytes"
    )]
    ContentType,
    /// The content encoding is not one, or longer than [`CONTENT_ENCODING_BYTES_MAX`].
    #[error(
        "a content encoding is a list of names with commas, of at most {CONTENT_ENCODING_BYTES_MAX} bytes"
    )]
    ContentEncoding,
    /// The origin is not a URL, or longer than [`ORIGIN_BYTES_MAX`].
    #[error("an origin is a URL (SCHEME://…) in ASCII, of at most {ORIGIN_BYTES_MAX} bytes")]
    Origin,
    /// There are more than [`ORIGINS_MAX`] origins.
    #[error("an entry has at most {ORIGINS_MAX} origins")]
    TooManyOrigins,
}

impl Metadata {
    /// Returns the media type of the value (RFC 9110 section 8.3), if its writer stated one. It is a valid
    /// value of an HTTP header.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.description.as_ref()?.content_type.as_deref()
    }

    /// States the media type of the value.
    ///
    /// # Errors
    /// [`DescriptionError::ContentType`] if it is not allowed.
    pub fn set_content_type(&mut self, text: &str) -> Result<(), DescriptionError> {
        let essence = text.split(';').next().unwrap_or_default().trim_end_matches(' ');
        let is_type =
            essence.split_once('/').is_some_and(|(of, sub)| is_token(of) && is_token(sub));
        // Neither line breaks nor other control characters: it is sent in a head.
        let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !text.ends_with(' ');
        if !is_type || !is_plain || text.len() > CONTENT_TYPE_BYTES_MAX {
            return Err(DescriptionError::ContentType);
        }
        self.described().content_type = Some(text.into());
        Ok(())
    }

    /// Returns the codings that its writer applied to the value (RFC 9110 section 8.4), such as `gzip`, if it
    /// stated any. It is a valid value of an HTTP header.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&str> {
        self.description.as_ref()?.content_encoding.as_deref()
    }

    /// States the codings that were applied to the value. The value is stored as it is.
    ///
    /// # Errors
    /// [`DescriptionError::ContentEncoding`] if it is not allowed.
    pub fn set_content_encoding(&mut self, text: &str) -> Result<(), DescriptionError> {
        let is_list = text.split(',').all(|name| is_token(name.trim_matches(' ')));
        let is_trimmed = text.trim_matches(' ') == text;
        if !is_list || !is_trimmed || text.len() > CONTENT_ENCODING_BYTES_MAX {
            return Err(DescriptionError::ContentEncoding);
        }
        self.described().content_encoding = Some(text.into());
        Ok(())
    }

    /// Returns the URLs of other places that have the value, in the order in which they were added. Each is a
    /// valid value of an HTTP header.
    #[must_use]
    pub fn origins(&self) -> &[String] {
        self.description.as_ref().map_or(&[], |description| &description.origins)
    }

    /// Adds the URL of another place that has the value. Adding the same URL again has no effect.
    ///
    /// # Errors
    /// [`DescriptionError`] if it is not allowed, or one too many.
    pub fn add_origin(&mut self, url: &str) -> Result<(), DescriptionError> {
        let is_scheme = |scheme: &str| {
            let rest =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
            scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                && scheme.bytes().all(rest)
        };
        let is_url = url.split_once("://").is_some_and(|(scheme, rest)| {
            is_scheme(scheme) && !rest.is_empty() && url.bytes().all(|byte| byte.is_ascii_graphic())
        });
        if !is_url || url.len() > ORIGIN_BYTES_MAX {
            return Err(DescriptionError::Origin);
        }
        let origins = self.origins();
        if origins.iter().any(|other| other == url) {
            return Ok(());
        }
        if origins.len() >= ORIGINS_MAX {
            return Err(DescriptionError::TooManyOrigins);
        }
        self.described().origins.push(url.into());
        Ok(())
    }

    fn described(&mut self) -> &mut Description {
        self.description.get_or_insert_with(Box::default)
    }
}

/// Returns whether `text` is a token of HTTP (RFC 9110 section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn content_type_is_a_valid_header_value() {
        let set = |text: &str| {
            let mut metadata = Metadata::default();
            let result = metadata.set_content_type(text);
            assert_eq!(metadata.content_type(), result.is_ok().then_some(text));
            assert_eq!(metadata == Metadata::default(), result.is_err(), "a default has no bytes");
            result.is_ok()
        };
        for good in [
            "image/png",
            "text/html; charset=utf-8",
            "text/plain ;x=\"a b\"",
            "application/vnd.api+json;a=b;c=d",
        ] {
            assert!(set(good), "{good}");
        }
        for bad in [
            "",
            "png",
            "/",
            "image/",
            "/png",
            "image/p ng",
            " image/png",
            "image/png ",
            "image/png;a=\u{fc}",
            "image/png\r\nSet-Cookie: a=b",
            "image/png;\tx",
            "image/png;\u{7f}",
        ] {
            assert!(!set(bad), "{bad:?}");
        }
        assert!(set(&format!("a/{}", "x".repeat(CONTENT_TYPE_BYTES_MAX - 2))));
        assert!(!set(&format!("a/{}", "x".repeat(CONTENT_TYPE_BYTES_MAX - 1))));
    }

    #[test]
    fn content_encoding_is_a_list_of_names() {
        let set = |text: &str| Metadata::default().set_content_encoding(text).is_ok();
        for good in ["gzip", "br", "gzip, zstd", "a,b", &"x".repeat(CONTENT_ENCODING_BYTES_MAX)] {
            assert!(set(good), "{good}");
        }
        for bad in ["", ",", "gzip,", "gzip br", " gzip", "gzip ", "gzip\r\nx", "g\u{fc}"] {
            assert!(!set(bad), "{bad:?}");
        }
        assert!(!set(&"x".repeat(CONTENT_ENCODING_BYTES_MAX + 1)));
    }

    #[test]
    fn origins_are_urls_and_few() {
        let mut metadata = Metadata::default();
        for bad in [
            "",
            "://",
            "http://",
            "a.example/x",
            "1http://a",
            "http://a b",
            "http://a\n",
            "h\u{fc}://a",
        ] {
            assert_eq!(metadata.add_origin(bad), Err(DescriptionError::Origin), "{bad:?}");
        }
        let url = |n: usize| format!("https://{n}.example/{}", "x".repeat(ORIGIN_BYTES_MAX - 18));
        assert_eq!(
            metadata.add_origin(&url(10)),
            Err(DescriptionError::Origin),
            "one byte too long"
        );
        for n in 0..ORIGINS_MAX {
            metadata.add_origin(&url(n)).unwrap();
            metadata.add_origin(&url(n)).unwrap();
        }
        assert_eq!(metadata.origins().len(), ORIGINS_MAX);
        assert_eq!(metadata.add_origin(&url(9)), Err(DescriptionError::TooManyOrigins));
    }
}
