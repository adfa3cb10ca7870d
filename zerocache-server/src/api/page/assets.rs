//! The embedded files of the page.

use std::sync::OnceLock;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use xxhash_rust::xxh3::xxh3_128;

use super::{super::conditions::Precondition, protect};

/// An embedded file.
pub(super) struct Asset {
    pub(super) path: &'static str,
    media_type: &'static str,
    text: &'static str,
    tag: OnceLock<HeaderValue>,
}

/// A file of HTML behind the head that all have.
macro_rules! html {
    ($rest:literal) => {
        concat!(include_str!("assets/head.html"), include_str!($rest))
    };
}

/// The page.
pub(super) static INDEX: Asset =
    Asset::new(super::PAGE_PATH, "text/html; charset=utf-8", html!("assets/index.html"));
/// The login form.
pub(super) const LOGIN: &str = html!("assets/login.html");

static STYLE: Asset =
    Asset::new("/page/page.css", "text/css; charset=utf-8", include_str!("assets/page.css"));
static SCRIPT: Asset =
    Asset::new("/page/page.js", "text/javascript; charset=utf-8", include_str!("assets/page.js"));

const ICON: &str = "image/svg+xml";

macro_rules! icon {
    ($colour:literal) => {
        concat!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill=""#,
            $colour,
            r##""/><path d="M10 9h12L11 23h11" fill="none" stroke="#fff" stroke-width="3.4" stroke-linecap="round" stroke-linejoin="round"/></svg>"##
        )
    };
}

/// The icons of the tab: it shows the state of the cluster while another tab is in front.
static ICON_OK: Asset = Asset::new("/page/ok.svg", ICON, icon!("#12805c"));
static ICON_WARN: Asset = Asset::new("/page/warn.svg", ICON, icon!("#b86e00"));
static ICON_BAD: Asset = Asset::new("/page/bad.svg", ICON, icon!("#cf2e3c"));
static ICON_NONE: Asset = Asset::new("/page/none.svg", ICON, icon!("#6b7684"));

impl Asset {
    /// The files that everybody may have: they show nothing of the cluster.
    pub(super) const PUBLIC: [&'static Self; 6] =
        [&STYLE, &SCRIPT, &ICON_OK, &ICON_WARN, &ICON_BAD, &ICON_NONE];

    const fn new(path: &'static str, media_type: &'static str, text: &'static str) -> Self {
        Self { path, media_type, text, tag: OnceLock::new() }
    }

    fn tag(&self) -> &HeaderValue {
        self.tag.get_or_init(|| {
            let tag = format!("\"{:032x}\"", xxh3_128(self.text.as_bytes()));
            HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""))
        })
    }

    /// Returns the file, or 304 if the browser has it.
    pub(super) fn response(&self, request: &HeaderMap) -> Response {
        let precondition = Precondition::evaluate(request, self.tag().as_bytes());
        let is_known = precondition == Precondition::NotModified;
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            Body::from(self.text).into_response()
        };
        let headers = response.headers_mut();
        if !is_known {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        }
        headers.insert(header::ETAG, self.tag().clone());
        protect(headers, "no-cache");
        response
    }
}
