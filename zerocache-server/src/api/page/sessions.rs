//! Sessions of browsers, which cannot send a token with each request.
//!
//! A session is in memory alone, ends after 8 hours, and stands for the token with which it began: what the
//! token is no longer entitled to, the session is not either.

use std::{collections::HashMap, fmt::Write, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;
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
/// What a browser is told beside its value.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Strict";

/// The sessions of a node. Shared by reference.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Session>>);

struct Session {
    authorization: HeaderValue,
    begun: Instant,
}

impl Session {
    fn remaining(&self, now: Instant) -> Duration {
        SESSION_TIME.saturating_sub(Duration::from_millis(now.since_ms(self.begun)))
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
        let cookie = format!("{COOKIE}={id}; Max-Age={}; {ATTRIBUTES}", SESSION_TIME.as_secs());
        let mut cookie = HeaderValue::try_from(cookie).map_err(|_| Denial::Wrong)?;
        cookie.set_sensitive(true);
        self.insert(id, Session { authorization, begun: clock::mono() });
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
        let (authorization, remaining) = {
            let sessions = self.0.lock();
            let session = sessions.get(cookie(headers)?)?;
            (session.authorization.clone(), session.remaining(clock::mono()))
        };
        if remaining.is_zero() {
            return None;
        }
        let caller = access.authenticate(connection, Some(&authorization)).ok()?;
        caller.grant.permits(Operation::Monitor).ok()?;
        Some(Viewer::new(caller, Some(remaining)))
    }

    /// Ends the session of the cookie among `headers`. Returns the cookie that replaces it.
    pub(super) fn end(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(id) = cookie(headers) {
            self.0.lock().remove(id);
        }
        const ENDED: &str = "__Host-zc=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Strict";
        HeaderValue::from_static(ENDED)
    }
}

/// Returns the value of the cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(begun_ms: u64) -> Session {
        let authorization = HeaderValue::from_static("Bearer x");
        Session { authorization, begun: Instant::from_millis(begun_ms) }
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
