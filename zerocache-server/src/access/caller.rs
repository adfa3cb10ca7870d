//! A connection as far as permissions are concerned, and who is on its other side.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::HeaderValue;
use parking_lot::Mutex;
use zerocache_core::{
    access::{Denial, Grant, Operation},
    node,
    version::Incarnation,
};
use zerocache_net::{
    clock,
    security::{PeerCertificate, is_same_host},
};

use super::{AccessControl, Identified};

/// An accepted connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The address of the other side.
    pub peer: SocketAddr,
    /// The own address of this connection.
    pub local: SocketAddr,
    /// The connection is encrypted.
    pub is_tls: bool,
    /// The certificate that the other side proved to have.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// The [generation](zerocache_net::security::Security::generation) of the node's credentials that
    /// verified the certificate.
    pub generation: u64,
}

impl Connection {
    /// A connection without encryption.
    #[must_use]
    pub fn plain(peer: SocketAddr, local: SocketAddr) -> Self {
        Self { peer, local, is_tls: false, certificate: None, generation: 0 }
    }

    /// Returns whether the caller is on the node's own host, as far as addresses tell: a proxy on this host
    /// that passes connections of others on looks the same.
    #[must_use]
    pub fn is_same_host(&self) -> bool {
        is_same_host(self.peer, self.local)
    }
}

/// Who calls, and what it may do.
#[derive(Debug)]
pub struct Caller {
    /// What the caller may do.
    pub grant: Grant,
    /// Its name in the access file or the token.
    pub name: Option<Arc<str>>,
    /// The node that the caller proved to be.
    pub identity: Option<Incarnation>,
    /// The end of its credentials.
    pub valid_until: Option<SystemTime>,
    connection: Connection,
    authorization: Option<HeaderValue>,
}

impl Caller {
    pub(super) fn new(
        identified: Identified,
        connection: Connection,
        authorization: Option<&HeaderValue>,
    ) -> Self {
        // A copy, because the value of a parsed head keeps the read buffer of its connection.
        let authorization = authorization.and_then(|value| {
            let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            // Its text is not shown where a caller is.
            copy.set_sensitive(true);
            Some(copy)
        });
        let Identified { grant, name, identity, valid_until } = identified;
        Self { grant, name, identity, valid_until, connection, authorization }
    }

    /// Returns the connection that the caller uses.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns the address of the caller, IPv4 where it is one.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.connection.peer.ip().to_canonical()
    }

    /// Returns the caller as the state machine knows it.
    #[must_use]
    pub fn to_core(&self) -> node::Caller {
        let is_node = self.grant.permits(Operation::Join).is_ok();
        node::Caller { ip: Some(self.ip()), is_node, identity: self.identity }
    }

    /// Returns whether `other` is entitled to the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.grant == other.grant && self.name == other.name && self.identity == other.identity
    }

    /// Returns whether the credentials of the caller have not ended.
    #[must_use]
    pub fn is_valid_now(&self) -> bool {
        self.remaining().is_none_or(|remaining| !remaining.is_zero())
    }

    /// Returns the time until the credentials of the caller end; none if they do not.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let until = self.valid_until?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = Duration::from_millis(clock::coarse_now().wall_ms);
        Some(until.saturating_sub(now))
    }

    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

/// The caller of one connection. Remembers it as long as the connection sends the same credentials and
/// nothing changed, so that most requests cost a comparison.
#[derive(Debug)]
pub struct ConnectionCaller {
    access: Arc<AccessControl>,
    connection: Connection,
    /// The last caller, and the number of changes at that time.
    known: Mutex<Option<(u64, Arc<Caller>)>>,
}

impl ConnectionCaller {
    /// Begins without a known caller.
    #[must_use]
    pub fn new(access: Arc<AccessControl>, connection: Connection) -> Self {
        Self { access, connection, known: Mutex::default() }
    }

    /// Returns the access control that judges the caller.
    #[must_use]
    pub fn access(&self) -> &Arc<AccessControl> {
        &self.access
    }

    /// Returns the connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Counts and logs a refused request of the connection. Returns the response to it.
    #[must_use]
    pub fn refuse(&self, denial: Denial) -> axum::response::Response {
        self.access.refuse(&self.connection, denial)
    }

    /// Returns who sent a request with this `Authorization` header.
    ///
    /// # Errors
    /// As [`AccessControl::authenticate`] does.
    pub fn authenticate(&self, authorization: Option<&HeaderValue>) -> Result<Arc<Caller>, Denial> {
        // Before the judgement, so that a change meanwhile is not missed.
        let changes = self.access.change_count();
        let mut known = self.known.lock();
        if let Some((then, caller)) = &*known
            && *then == changes
            && caller.authorization() == authorization
            && caller.is_valid_now()
        {
            return Ok(Arc::clone(caller));
        }
        let caller = self.access.authenticate(&self.connection, authorization)?;
        *known = Some((changes, Arc::clone(&caller)));
        Ok(caller)
    }
}
