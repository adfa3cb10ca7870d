//! Who calls, and what a caller may do: the one place that turns a connection and its credentials into a
//! [`Grant`](zerocache_core::access::Grant).
//!
//! The HTTP side asks [`AccessControl::authenticate`] before any handler runs. The handlers ask
//! [`Caller::grant`], whose rules are those of the core. Connections that stay open judge themselves again
//! whenever [`AccessControl::changes`] says so.

mod caller;
mod denials;
#[cfg(test)]
mod tests;

use std::{future, net::IpAddr, sync::Arc, time::Duration};

use axum::http::HeaderValue;
use tokio::{sync::watch, time::sleep};
use zerocache_core::{
    access::{Denial, Grant, Role},
    wire::Refusal,
};

use self::denials::Denials;
pub use self::{
    caller::{Caller, Connection, ConnectionCaller},
    denials::{DenialCounts, denial_status},
};

/// The longest time until an open connection whose credentials end is judged again.
const JUDGE_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// What decides who may do what on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Nothing is configured: callers of the own host may do everything, others nothing.
    Protected,
    /// Everybody may do everything.
    Insecure,
}

/// The access control of a node. Shared by reference.
#[derive(Debug)]
pub struct AccessControl {
    level: Level,
    denials: Denials,
    changes: watch::Sender<u64>,
}

impl AccessControl {
    /// Serves the callers of the own host only: the level of a node without security settings.
    #[must_use]
    pub fn protected() -> Arc<Self> {
        Self::new(Level::Protected)
    }

    /// Serves everybody.
    #[must_use]
    pub fn insecure() -> Arc<Self> {
        Self::new(Level::Insecure)
    }

    fn new(level: Level) -> Arc<Self> {
        Arc::new(Self { level, denials: Denials::default(), changes: watch::Sender::new(0) })
    }

    /// Returns who calls on `connection` with this `Authorization` header.
    ///
    /// # Errors
    /// [`Denial::Protected`] for a caller of another host on a protected node. Pass it to
    /// [`refuse`](Self::refuse) or [`refusal`](Self::refusal).
    pub fn authenticate(
        &self,
        connection: &Connection,
        authorization: Option<&HeaderValue>,
    ) -> Result<Arc<Caller>, Denial> {
        let grant = match self.level {
            Level::Protected if !connection.is_same_host() => return Err(Denial::Protected),
            Level::Protected | Level::Insecure => Grant::new(Role::All),
        };
        Ok(Arc::new(Caller::new(grant, connection.clone(), authorization.cloned())))
    }

    /// Returns what an open connection of `caller` is entitled to now.
    ///
    /// # Errors
    /// As [`authenticate`](Self::authenticate) does.
    pub fn judge_again(&self, caller: &Caller) -> Result<Arc<Caller>, Denial> {
        self.authenticate(caller.connection(), caller.authorization())
    }

    /// Waits until an open connection of `caller` is not entitled to the same any more, because something
    /// was changed or its credentials ended. Returns the reason.
    pub async fn end_of(&self, caller: &Caller) -> Denial {
        let mut changes = self.changes();
        loop {
            let now = match self.judge_again(caller) {
                Ok(now) if now.is_like(caller) => now,
                Ok(_) => return Denial::Forbidden,
                Err(denial) => return denial,
            };
            let ended = async {
                match now.remaining() {
                    Some(remaining) => sleep(remaining.min(JUDGE_AGAIN_AFTER)).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                () = ended => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// Returns a number that grows whenever the answers of [`authenticate`](Self::authenticate) may have
    /// changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns the number that [`changes`](Self::changes) has now.
    pub(crate) fn change_count(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Counts and logs a refused request of `peer`. Returns the refusal as a message of the protocol.
    #[must_use]
    pub fn refusal(&self, peer: IpAddr, denial: Denial) -> Refusal {
        self.denials.note(peer, denial);
        let (code, text) = (denial.refusal_code(), denials::advice(denial).to_owned());
        Refusal { code, text, wall_ms: 0, value_bytes_max: 0 }
    }

    /// Counts and logs a refused request of `peer`. Returns the refusal as a response over HTTP: 401 or 403
    /// and a JSON body.
    #[must_use]
    pub fn refuse(&self, peer: IpAddr, denial: Denial) -> axum::response::Response {
        self.denials.note(peer, denial);
        denials::response(denial)
    }

    /// Returns the numbers of refused requests.
    #[must_use]
    pub fn denial_counts(&self) -> DenialCounts {
        self.denials.counts()
    }
}
