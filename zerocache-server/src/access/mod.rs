//! Who calls, and what a caller may do: the one place that turns a connection and its credentials into a
//! [`Grant`].
//!
//! The HTTP side asks [`AccessControl::authenticate`] before any handler runs. The handlers ask
//! [`Caller::grant`], whose rules are those of the core. Connections that stay open judge themselves again
//! whenever [`AccessControl::changes`] says so.

mod caller;
mod denials;
mod file;
mod table;
#[cfg(test)]
mod tests;

use std::{
    future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::HeaderValue;
use tokio::{sync::watch, time::sleep};
use zerocache_core::{
    access::{Denial, Grant, Role, StaticToken, Token},
    version::Incarnation,
    wire::Refusal,
};
use zerocache_net::{
    clock,
    security::{PeerCertificate, Security, TlsMode},
};

pub use self::{
    caller::{Caller, Connection, ConnectionCaller},
    denials::{DenialCounts, denial_status},
    file::AccessFileError,
    table::{AccessTable, Client, InvalidAccessFile},
};
use self::{denials::Denials, file::AccessFile};

/// The longest time until an open connection whose credentials end is judged again.
const JUDGE_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// What decides who may do what on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Nothing is configured: callers of the own host may do everything, others nothing.
    Protected,
    /// Everybody may do everything.
    Insecure,
    /// Whoever has the secret of the cluster, or a token that was made with it.
    Secret,
    /// Whoever has a certificate of the accepted CAs, or a token.
    Certificates,
}

impl Level {
    /// The name of the level in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Protected => "protected",
            Self::Insecure => "insecure",
            Self::Secret => "secret",
            Self::Certificates => "certificates",
        }
    }
}

/// The access control of a node. Shared by reference.
#[derive(Debug)]
pub struct AccessControl {
    level: Level,
    /// The cluster that signed tokens must be for.
    cluster: String,
    security: Security,
    file: AccessFile,
    denials: Denials,
    changes: watch::Sender<u64>,
}

impl AccessControl {
    /// Serves the callers of the own host only: the level of a node without security settings.
    #[must_use]
    pub fn protected() -> Arc<Self> {
        Self::new(Level::Protected, String::new(), Security::plain(), AccessFile::default())
    }

    /// Serves everybody.
    #[must_use]
    pub fn insecure() -> Arc<Self> {
        Self::new(Level::Insecure, String::new(), Security::plain(), AccessFile::default())
    }

    /// Serves who has credentials: those of `security`, at the level [`Level::Secret`] or
    /// [`Level::Certificates`], and those of the access file at `path`.
    ///
    /// # Errors
    /// [`AccessFileError`] if the file cannot be used.
    pub fn with_credentials(
        level: Level,
        cluster: &str,
        security: Security,
        path: Option<PathBuf>,
    ) -> Result<Arc<Self>, AccessFileError> {
        let file = path.map(AccessFile::load).transpose()?.unwrap_or_default();
        Ok(Self::new(level, cluster.to_owned(), security, file))
    }

    fn new(level: Level, cluster: String, security: Security, file: AccessFile) -> Arc<Self> {
        let (denials, changes) = (Denials::default(), watch::Sender::new(0));
        Arc::new(Self { level, cluster, security, file, denials, changes })
    }

    /// Returns the level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the credentials of the node.
    #[must_use]
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Returns who calls on `connection` with this `Authorization` header. Callers without credentials may do
    /// nothing, unless the access file says otherwise.
    ///
    /// # Errors
    /// [`Denial::Protected`] for a caller of another host on a protected node, [`Denial::Wrong`] and
    /// [`Denial::Expired`] for credentials that are not valid. Pass it to [`refuse`](Self::refuse) or
    /// [`refusal`](Self::refusal).
    pub fn authenticate(
        &self,
        connection: &Connection,
        authorization: Option<&HeaderValue>,
    ) -> Result<Arc<Caller>, Denial> {
        let everything = || Identified::new(Grant::new(Role::All));
        let identified = match self.level {
            Level::Protected if !connection.is_same_host() => return Err(Denial::Protected),
            Level::Protected | Level::Insecure => everything(),
            // The mode is for the time in which a cluster changes over: plain callers are as before.
            _ if !connection.is_tls && self.security.mode() != TlsMode::Required => everything(),
            _ => self.identify(connection, authorization)?,
        };
        Ok(Arc::new(Caller::new(identified, connection.clone(), authorization)))
    }

    /// Returns who has the credentials: those of the certificate if it stands for somebody, else the token's.
    fn identify(
        &self,
        connection: &Connection,
        authorization: Option<&HeaderValue>,
    ) -> Result<Identified, Denial> {
        if let Some(certificate) = &connection.certificate
            && let Some(identified) = self.identify_certificate(connection, certificate)?
        {
            return Ok(identified);
        }
        match authorization {
            Some(authorization) => self.identify_token(authorization),
            None => Ok(Identified::new(self.file.table().anonymous().clone())),
        }
    }

    fn identify_certificate(
        &self,
        connection: &Connection,
        certificate: &PeerCertificate,
    ) -> Result<Option<Identified>, Denial> {
        if wall_time() > certificate.not_after {
            return Err(Denial::Expired);
        }
        // The handshake has verified it against the credentials of that time.
        let is_verified = connection.generation == self.security.generation();
        if !is_verified && !self.security.still_trusts(certificate) {
            return Err(Denial::Wrong);
        }
        let valid_until = Some(certificate.not_after);
        if certificate.is_node {
            let is_own_key = self.level == Level::Secret;
            let identity = is_own_key.then(|| Incarnation(certificate.identity()));
            let grant = Grant::new(Role::Node);
            return Ok(Some(Identified { grant, name: None, identity, valid_until }));
        }
        if let Some(client) = self.file.table().client_of_certificate(certificate) {
            let (grant, name) = (client.grant.clone(), Some(Arc::clone(&client.name)));
            return Ok(Some(Identified { grant, name, identity: None, valid_until }));
        }
        let of_client = || Identified { valid_until, ..Identified::new(Grant::new(Role::Write)) };
        Ok((self.level == Level::Secret && certificate.is_client_of_secret).then(of_client))
    }

    fn identify_token(&self, authorization: &HeaderValue) -> Result<Identified, Denial> {
        let text = bearer(authorization).ok_or(Denial::Wrong)?;
        let table = self.file.table();
        if let Ok(token) = text.parse::<StaticToken>() {
            let client = table.client_of_token(&token.hash()).ok_or(Denial::Wrong)?;
            let name = Some(Arc::clone(&client.name));
            return Ok(Identified { name, ..Identified::new(client.grant.clone()) });
        }
        let token: Token = text.parse().map_err(|_| Denial::Wrong)?;
        let now_s = clock::now().wall_ms / 1_000;
        let grant = token.verify(&self.security.token_keys(), &self.cluster, now_s)?;
        let fields = token.fields();
        if table.is_revoked(fields.id) {
            return Err(Denial::Wrong);
        }
        // It is valid throughout its last second.
        let end_s = fields.not_after_s.saturating_add(1);
        let valid_until = UNIX_EPOCH.checked_add(Duration::from_secs(end_s));
        let name = Some(fields.name.as_str().into());
        Ok(Identified { grant, name, identity: None, valid_until })
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
    /// changed. It follows the credentials of the node only while [`watch`](Self::watch) runs.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Returns a number that has grown when the answers of [`authenticate`](Self::authenticate) may have
    /// changed.
    pub(crate) fn change_count(&self) -> u64 {
        self.file.generation().wrapping_add(self.security.generation())
    }

    /// Reads the credentials and the access file again, and uses what is in them now. What cannot be used is
    /// logged and counted, and changes nothing.
    pub fn reload(&self) {
        let _logged_and_counted = self.security.reload();
        self.file.reload();
        self.publish();
    }

    /// Reloads the credentials and the access file when they change. Ends only when dropped.
    pub async fn watch(&self) {
        let mut credentials = self.security.changes();
        let follow = async {
            while credentials.changed().await.is_ok() {
                self.publish();
            }
            future::pending::<()>().await;
        };
        let look = async {
            loop {
                self.file.changed().await;
                self.publish();
            }
        };
        tokio::join!(follow, look, self.security.watch_files());
    }

    fn publish(&self) {
        let count = self.change_count();
        self.changes.send_if_modified(|published| std::mem::replace(published, count) != count);
    }

    /// Returns how often something changed on disk that could not be used.
    #[must_use]
    pub fn failed_reloads(&self) -> u64 {
        self.file.failures() + self.security.failed_reloads()
    }

    /// Returns what callers without credentials may do.
    #[must_use]
    pub fn anonymous(&self) -> Grant {
        self.file.table().anonymous().clone()
    }

    /// Counts and logs a refused request on `connection`. Returns the refusal as a message of the protocol.
    #[must_use]
    pub fn refusal(&self, connection: &Connection, denial: Denial) -> Refusal {
        let text = self.denials.note(connection, denial).to_owned();
        Refusal { code: denial.refusal_code(), text, wall_ms: 0, value_bytes_max: 0 }
    }

    /// Counts and logs a refused request on `connection`. Returns the refusal as a response over HTTP: 401 or
    /// 403 and a JSON body.
    #[must_use]
    pub fn refuse(&self, connection: &Connection, denial: Denial) -> axum::response::Response {
        let text = self.denials.note(connection, denial);
        denials::response(denial, text)
    }

    /// Returns the numbers of refused requests.
    #[must_use]
    pub fn denial_counts(&self) -> DenialCounts {
        self.denials.counts()
    }
}

/// Who has certain credentials.
struct Identified {
    grant: Grant,
    name: Option<Arc<str>>,
    identity: Option<Incarnation>,
    valid_until: Option<SystemTime>,
}

impl Identified {
    fn new(grant: Grant) -> Self {
        Self { grant, name: None, identity: None, valid_until: None }
    }
}

/// Returns the token of an `Authorization` header (RFC 6750).
fn bearer(authorization: &HeaderValue) -> Option<&str> {
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn wall_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(clock::coarse_now().wall_ms)
}
