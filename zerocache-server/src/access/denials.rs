//! Refused callers: counts, log lines, and the response over HTTP.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use zerocache_core::access::Denial;
use zerocache_net::clock;

use super::Connection;

/// The shortest time between two warnings about refused callers, in milliseconds: who is refused may try
/// again at any rate.
const WARN_EVERY_MS: u64 = 5_000;

/// The sentence for a caller whose certificate is verified and gives no permission.
const UNKNOWN_CERTIFICATE: &str = "the certificate is valid, but no name in it is that of a node or of a client \
    in the access file, and no token was presented; add the name to the access file, or use a token that \
    `zerocache token create` printed";

/// The numbers of refused requests, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DenialCounts {
    /// No credentials were presented.
    pub unauthenticated: u64,
    /// The credentials were not of this cluster, were changed, or were revoked.
    pub bad_credentials: u64,
    /// The credentials had expired.
    pub expired_credentials: u64,
    /// The credentials did not allow the request.
    pub forbidden: u64,
    /// The caller was on another host than the protected node.
    pub protected: u64,
}

/// Counts and logs refused requests.
#[derive(Debug, Default)]
pub(super) struct Denials {
    counts: [AtomicU64; Denial::ALL.len()],
    /// The time of the last warning plus one, on the monotonic clock in milliseconds; 0 before the first.
    warned_ms: AtomicU64,
    /// Refused requests since that warning.
    unreported: AtomicU64,
}

impl Denials {
    /// Counts and logs a refused request. Returns a sentence for its caller.
    pub(super) fn note(&self, connection: &Connection, denial: Denial) -> &'static str {
        let has_certificate = connection.certificate.is_some();
        let text = match denial {
            Denial::Missing if has_certificate => UNKNOWN_CERTIFICATE,
            denial => advice(denial),
        };
        self.counts[index(denial)].fetch_add(1, Ordering::Relaxed);
        let now_ms = clock::coarse().as_millis();
        let warned_ms = self.warned_ms.load(Ordering::Relaxed);
        let is_due = warned_ms == 0 || now_ms >= warned_ms + WARN_EVERY_MS;
        let claim = || {
            let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
            self.warned_ms.compare_exchange(warned_ms, now_ms + 1, set, get).is_ok()
        };
        if is_due && claim() {
            let others = self.unreported.swap(0, Ordering::Relaxed);
            let reason = denial.as_str();
            let peer = connection.peer.ip().to_canonical();
            tracing::warn!(%peer, reason, others, "request refused: {text}");
        } else {
            self.unreported.fetch_add(1, Ordering::Relaxed);
        }
        text
    }

    pub(super) fn counts(&self) -> DenialCounts {
        let count = |denial| self.counts[index(denial)].load(Ordering::Relaxed);
        DenialCounts {
            unauthenticated: count(Denial::Missing),
            bad_credentials: count(Denial::Wrong),
            expired_credentials: count(Denial::Expired),
            forbidden: count(Denial::Forbidden),
            protected: count(Denial::Protected),
        }
    }
}

fn index(denial: Denial) -> usize {
    Denial::ALL.iter().position(|known| *known == denial).unwrap_or_default()
}

/// Returns one sentence that says what is wrong and what to do.
const fn advice(denial: Denial) -> &'static str {
    match denial {
        Denial::Missing => {
            "no credentials were presented; use a token that `zerocache token create` printed, or a client \
             certificate"
        }
        Denial::Wrong => {
            "the credentials are not of this cluster, were changed, or were revoked; use a token that \
             `zerocache token create` printed for this cluster"
        }
        Denial::Expired => {
            "the credentials have expired; use a new token of `zerocache token create`, or renew the certificate"
        }
        Denial::Forbidden => {
            "the credentials do not allow this; use others with the role and the prefixes for it"
        }
        Denial::Protected => {
            "this node serves callers of its own host only; give all nodes the same ZEROCACHE_SECRET and \
             clients a token, or start the nodes with --insecure"
        }
    }
}

/// Returns the status of a refused request over HTTP: 401 where other credentials are needed, else 403.
#[must_use]
pub const fn denial_status(denial: Denial) -> StatusCode {
    match denial {
        Denial::Missing | Denial::Wrong | Denial::Expired => StatusCode::UNAUTHORIZED,
        Denial::Forbidden | Denial::Protected => StatusCode::FORBIDDEN,
    }
}

pub(super) fn response(denial: Denial, text: &str) -> Response {
    let body = serde_json::json!({ "code": denial.as_str(), "message": text });
    let status = denial_status(denial);
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}
