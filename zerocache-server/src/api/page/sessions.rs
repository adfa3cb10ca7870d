//! Sessions of browsers, which cannot send a token with each request.
//!
//! A session is in memory alone, ends after 8 hours, and stands for the token with which it began: what the
//! token is no longer entitled to, the session is not either.

use std::{collections::HashMap, fmt::Write, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
use tokio::sync::watch;
use zerocache_core::{
    access::{Denial, Operation},
    time::Instant,
};
use zerocache_net::clock;

use super::viewer::Viewer;
use crate::access::{AccessControl, Connection};

/// The longest time of a session.
const SESSION_TIME: Duration = Duration::from_secs(8 * 60 * 60);
/// The most sessions. One more ends the oldest: it is a browser that logs in again.
const SESSIONS_MAX: usize = 256;
/// The random bytes of a session's name.
const ID_BYTES: usize = 32;

/// The cookie. Browsers take it over TLS alone, for this host, and no script reads it.
const COOKIE: &str = "__Host-zc";
/// The attributes that a browser obeys.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

/// The sessions of a node. Shared by reference.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Session>>);

struct Session {
    authorization: HeaderValue,
    begun: Instant,
    /// Dropped with the session, which may end before its time: at a logout, or for another one.
    presence: watch::Sender<()>,
}

impl Session {
    fn new(authorization: HeaderValue, begun: Instant) -> Self {
        Self { authorization, begun, presence: watch::Sender::new(()) }
    }

    fn remaining(&self, now: Instant) -> Duration {
        SESSION_TIME.saturating_sub(Duration::from_millis(now.since_ms(self.begun)))
    }

    /// Returns the end; none if it has passed.
    fn end(&self, now: Instant) -> Option<SessionEnd> {
        let remaining = self.remaining(now);
        (!remaining.is_zero()).then(|| SessionEnd(remaining, self.presence.subscribe()))
    }
}

impl Sessions {
    /// Begins a session for whoever has `token`. Returns the cookie.
    ///
    /// # Errors
    /// The reason why the token does not permit to watch.
    pub(super) fn begin(
        &self,
        access: &AccessControl,
        connection: &Connection,
        token: &str,
    ) -> Result<HeaderValue, Denial> {
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Denial::Wrong)?;
        authorization.set_sensitive(true);
        let caller = access.authenticate(connection, Some(&authorization))?;
        caller.grant.permits(Operation::Monitor)?;
        let mut random = [0; ID_BYTES];
        getrandom::fill(&mut random).map_err(|_| Denial::Wrong)?;
        let id = random.iter().fold(String::with_capacity(2 * ID_BYTES), |mut id, byte| {
            // Writing to a string does not fail.
            let _ = write!(id, "{byte:02x}");
            id
        });
        let cookie = set_cookie(&id, SESSION_TIME);
        self.insert(id, Session::new(authorization, clock::mono()));
        Ok(cookie)
    }

    fn insert(&self, id: String, session: Session) {
        let mut sessions = self.0.lock();
        sessions.retain(|_, known| !known.remaining(session.begun).is_zero());
        if sessions.len() >= SESSIONS_MAX {
            let oldest = sessions.iter().min_by_key(|(_, known)| known.begun);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                sessions.remove(&oldest);
            }
        }
        sessions.insert(id, session);
    }

    /// Returns who watches with the cookie among `headers`, if that is still permitted.
    pub(super) fn viewer(
        &self,
        access: &AccessControl,
        connection: &Connection,
        headers: &HeaderMap,
    ) -> Option<Viewer> {
        let (authorization, end) = {
            let sessions = self.0.lock();
            let session = sessions.get(cookie(headers)?)?;
            (session.authorization.clone(), session.end(clock::mono())?)
        };
        let caller = access.authenticate(connection, Some(&authorization)).ok()?;
        caller.grant.permits(Operation::Monitor).ok()?;
        Some(Viewer::new(caller, Some(end)))
    }

    /// Ends the session of the cookie among `headers`. Returns the cookie that replaces it.
    pub(super) fn end(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(id) = cookie(headers) {
            self.0.lock().remove(id);
        }
        set_cookie("", Duration::ZERO)
    }
}

/// The end of a session: the time until it, and a channel that closes if the session is removed before.
pub(super) struct SessionEnd(Duration, watch::Receiver<()>);

impl SessionEnd {
    /// Waits for the end.
    pub(super) async fn reached(mut self) {
        let _over_or_removed = tokio::time::timeout(self.0, self.1.changed()).await;
    }
}

/// Returns the header that gives a browser the cookie for a time; none removes it.
fn set_cookie(id: &str, time: Duration) -> HeaderValue {
    let text = format!("{COOKIE}={id}; Max-Age={}; {ATTRIBUTES}", time.as_secs());
    // Hexadecimal digits are always a value.
    let mut cookie = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    cookie.set_sensitive(true);
    cookie
}

/// Returns the value of the cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn session(begun_ms: u64) -> Session {
        let authorization = HeaderValue::from_static("Bearer x");
        Session::new(authorization, Instant::from_millis(begun_ms))
    }

    #[test]
    fn oldest_session_makes_room() {
        let sessions = Sessions::default();
        for n in 0..=SESSIONS_MAX as u64 {
            sessions.insert(n.to_string(), session(n));
        }
        let known = sessions.0.lock();
        assert_eq!(known.len(), SESSIONS_MAX);
        assert!(!known.contains_key("0") && known.contains_key("1"));
    }

    #[tokio::test]
    async fn viewer_notices_that_its_session_was_removed() {
        let sessions = Sessions::default();
        let first = session(0);
        let mut end = Box::pin(first.end(first.begun).expect("an end").reached());
        sessions.insert("0".into(), first);
        assert!((&mut end).now_or_never().is_none());
        let line = HeaderValue::from_static("__Host-zc=0");
        let taken_away = sessions.end(&HeaderMap::from_iter([(header::COOKIE, line)]));
        assert!(taken_away.as_bytes().starts_with(b"__Host-zc=; Max-Age=0; "));
        assert!(end.now_or_never().is_some());
    }

    #[test]
    fn sessions_end_after_their_time() {
        let sessions = Sessions::default();
        sessions.insert("a".into(), session(0));
        let end_ms = SESSION_TIME.as_millis() as u64;
        assert!(!session(0).remaining(Instant::from_millis(end_ms - 1)).is_zero());
        sessions.insert("b".into(), session(end_ms));
        let known = sessions.0.lock();
        assert!(!known.contains_key("a") && known.contains_key("b"));
    }

    #[test]
    fn cookie_is_found_among_others() {
        let headers = |line: &'static str| {
            HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(line))])
        };
        assert_eq!(cookie(&headers("a=b; __Host-zc=42; c=d")), Some("42"));
        assert_eq!(cookie(&headers("__Host-zcx=42; zc=1")), None);
        assert_eq!(cookie(&HeaderMap::new()), None);
    }
}
