//! The login: a token in a form, a cookie in return.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use zerocache_core::access::{Denial, Operation};

use super::{LOGIN_PATH, PAGE_PATH, Page, assets, protect, redirect};
use crate::{
    access::{Caller, denial_status},
    api::{error::ApiError, key},
    http::read_body,
};

/// The longest body of a login, in bytes: a token with many prefixes, escaped.
const LOGIN_BYTES_MAX: u64 = 16 << 10;

/// Stands in the form where a sentence says why a token was refused.
const HINT: &str = "<!-- refusal -->";

/// The form, or the page for those who need no login.
pub(super) async fn form(
    State(page): State<Arc<Page>>,
    Extension(caller): Extension<Arc<Caller>>,
    headers: HeaderMap,
) -> Response {
    match page.viewer(&caller, &headers) {
        Ok(_) => redirect(PAGE_PATH),
        Err(_) => form_with(StatusCode::OK, None),
    }
}

/// Takes a token, and begins a session.
pub(super) async fn submit(
    State(page): State<Arc<Page>>,
    Extension(caller): Extension<Arc<Caller>>,
    body: Body,
) -> Result<Response, ApiError> {
    let body = read_body(body, LOGIN_BYTES_MAX, &page.api.bodies).await?;
    // Callers without TLS have no other rights with a token, so the cookie is for TLS alone.
    if caller.grant.permits(Operation::Monitor).is_ok() {
        return Ok(redirect(PAGE_PATH));
    }
    let token = std::str::from_utf8(&body).ok().and_then(token_of).ok_or(Denial::Missing);
    let begun = token
        .and_then(|token| page.sessions.begin(&page.api.access, caller.connection(), token.trim()));
    Ok(match begun {
        Ok(cookie) => {
            let mut response = redirect(PAGE_PATH);
            response.headers_mut().insert(header::SET_COOKIE, cookie);
            response
        }
        Err(denial) => {
            // Counted and logged as any other refused request.
            let _other_form = page.api.access.refusal(caller.connection(), denial);
            form_with(denial_status(denial), Some(denial))
        }
    })
}

/// Ends the session.
pub(super) async fn logout(
    State(page): State<Arc<Page>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut response = redirect(LOGIN_PATH);
    response.headers_mut().insert(header::SET_COOKIE, page.sessions.end(&headers));
    Ok(response)
}

/// Returns the token among the fields of a form.
fn token_of(body: &str) -> Option<String> {
    let value = body.split('&').find_map(|pair| pair.strip_prefix("token="))?;
    String::from_utf8(key::percent_decode(&value.replace('+', " "))?).ok()
}

/// Returns the form, with a sentence about the token that was refused.
fn form_with(status: StatusCode, refused: Option<Denial>) -> Response {
    let sentence = match refused {
        None => "",
        Some(Denial::Missing) => "Enter a token.",
        Some(Denial::Expired) => "That token has expired.",
        Some(Denial::Forbidden) => {
            "That token does not allow this: the page needs the role monitor."
        }
        Some(Denial::Wrong | Denial::Protected) => "That token is not one of this cluster.",
    };
    let mut response = (status, Html(assets::LOGIN.replace(HINT, sentence))).into_response();
    protect(response.headers_mut(), "no-store");
    response
}
