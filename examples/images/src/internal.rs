//! What gateways and workers say to each other, over HTTP.

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::convert::Kind;
use crate::failure::Failure;
use crate::picture::Picture;
use crate::variant::Variant;

/// The path of a worker.
pub const PATH: &str = "/internal/image";

/// The header with the key that gateways and workers share.
pub const KEY_HEADER: HeaderName = HeaderName::from_static("x-images-key");

/// The header with the milliseconds that the gateway waits for the answer.
pub const TIME_HEADER: HeaderName = HeaderName::from_static("x-images-time-ms");

/// The header with what is not in the bytes: kind, width and height.
const SHAPE_HEADER: HeaderName = HeaderName::from_static("x-images-shape");

/// What a gateway asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wanted {
    /// The URL of the original.
    pub url: String,
    /// The variant; none for the original.
    pub variant: Option<Variant>,
}

/// The header of an answer with a picture.
#[must_use]
pub fn shape(picture: &Picture) -> (HeaderName, HeaderValue) {
    let shape = (picture.kind, picture.width, picture.height);
    let text = serde_json::to_string(&shape).unwrap_or_default();
    (SHAPE_HEADER, HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("")))
}

/// Reads an answer with a picture.
#[must_use]
pub fn picture(header: impl Fn(HeaderName) -> Option<String>, bytes: Vec<u8>) -> Option<Picture> {
    let (kind, width, height): (Kind, u32, u32) =
        serde_json::from_str(&header(SHAPE_HEADER)?).ok()?;
    Some(Picture::new(kind, (width, height), bytes))
}

/// The body of an answer without a picture.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The code of the failure.
    pub error: String,
    /// A sentence for people.
    pub message: String,
}

/// Reads an answer without a picture; none if it is not that of a worker, or the worker refuses the gateway.
#[must_use]
pub fn failure(status: u16, body: &[u8]) -> Option<Failure> {
    let body: ErrorBody = serde_json::from_slice(body).ok()?;
    let failure = Failure::ALL.into_iter().find(|failure| failure.code() == body.error)?;
    match failure {
        Failure::Forbidden => None,
        _ if failure.status() != status => None,
        Failure::BadRequest(_) => Some(Failure::BadRequest(body.message)),
        failure => Some(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_cross_the_network() {
        for failure in Failure::ALL {
            let body = ErrorBody { error: failure.code().to_owned(), message: failure.to_string() };
            let body = serde_json::to_vec(&body).expect("JSON");
            let read = super::failure(failure.status(), &body);
            let expected = (failure != Failure::Forbidden).then(|| failure.clone());
            assert_eq!(read, expected);
            assert_eq!(super::failure(418, &body), None);
        }
        assert_eq!(super::failure(502, b"<html>a proxy in between</html>"), None);
    }
}
