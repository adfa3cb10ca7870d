//! Permissions: the role of a caller, the keys it may use, and the one function that judges a request.
//!
//! [`Grant::permits`] is called at every door of a node, after the caller was authenticated. The match in
//! [`Operation::of`] is closed: a new request kind does not compile without a row. `docs/security.md` has
//! the table.

mod secret;
mod static_token;
mod token;

use alloc::{
    boxed::Box,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, str::FromStr};

use crate::{
    key::Key,
    name::{self, NAME_BYTES_MAX},
    purge::{PurgeTarget, is_memoized, is_reserved},
    wire::{RefusalCode, Request, RequestMessage},
};

pub use self::{
    secret::{InvalidSecret, SECRET_BYTES, Secret},
    static_token::{InvalidStaticToken, STATIC_TOKEN_BYTES, StaticToken, TokenHash},
    token::{InvalidToken, TOKEN_ID_BYTES, Token, TokenFields, TokenId, TokenKey},
};

/// The most prefixes of one grant.
pub const PREFIXES_MAX: usize = 32;

/// The longest text prefix, in bytes.
pub const PREFIX_BYTES_MAX: usize = 256;

/// What a caller may do.
///
/// `None < Read < Write < Node`, and apart from these `Monitor < Admin`. `Admin` includes `Write`. `All`
/// includes everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// Nothing but the liveness checks.
    #[default]
    None,
    /// Reads entries, and sees the cluster.
    Read,
    /// Reads, writes and deletes entries.
    Write,
    /// Is a member of the cluster. Never granted by a token.
    Node,
    /// Sees metrics, statistics and the cluster, and no entries.
    Monitor,
    /// Operates the cluster: everything but being a member.
    Admin,
    /// Everything: the callers of a node without authentication. Never granted by a token or a file.
    All,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 7] =
        [Self::None, Self::Read, Self::Write, Self::Node, Self::Monitor, Self::Admin, Self::All];

    /// The name of the role in configuration, logs and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Read => "read",
            Self::Write => "write",
            Self::Node => "node",
            Self::Monitor => "monitor",
            Self::Admin => "admin",
            Self::All => "all",
        }
    }

    /// Returns whether this role may do what `needed` may do.
    #[must_use]
    pub const fn includes(self, needed: Self) -> bool {
        match needed {
            Self::None => true,
            Self::Read => !matches!(self, Self::None | Self::Monitor),
            Self::Write => matches!(self, Self::Write | Self::Node | Self::Admin | Self::All),
            Self::Node => matches!(self, Self::Node | Self::All),
            Self::Monitor => matches!(self, Self::Monitor | Self::Admin | Self::All),
            Self::Admin => matches!(self, Self::Admin | Self::All),
            Self::All => matches!(self, Self::All),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text && *role != Self::All);
        role.ok_or_else(|| {
            alloc::format!("{text:?} is no role; use none, read, write, monitor, admin or node")
        })
    }
}

/// A part of the key space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// Keys that begin with this text.
    Text(Box<str>),
    /// Results of memoized functions in this namespace; the empty one is that of clients without a namespace.
    Memo(Box<str>),
}

/// What introduces a prefix of memoized results in text.
const MEMO: &str = "memo:";

impl Prefix {
    /// Returns whether `key` is in this part.
    ///
    /// Keys of memoized results begin with a scheme byte, which no text has, and the length and the bytes of the
    /// namespace. So the namespaces `a` and `ab` do not overlap.
    #[must_use]
    pub fn covers(&self, key: &[u8]) -> bool {
        match self {
            Self::Text(text) => key.starts_with(text.as_bytes()),
            Self::Memo(namespace) => {
                let Some(([scheme, length], rest)) = key.split_first_chunk() else { return false };
                is_memoized(*scheme)
                    && usize::from(*length) == namespace.len()
                    && rest.starts_with(namespace.as_bytes())
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Memo(namespace) => write!(f, "{MEMO}{namespace}"),
        }
    }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(namespace) = text.strip_prefix(MEMO) {
            if !namespace.is_empty() {
                name::check(namespace).map_err(|error| error.to_string())?;
            }
            return Ok(Self::Memo(namespace.into()));
        }
        match text.len() {
            1..=PREFIX_BYTES_MAX => Ok(Self::Text(text.into())),
            _ => Err(alloc::format!(
                "a prefix has 1 to {PREFIX_BYTES_MAX} bytes, or is memo:NAMESPACE with a namespace of up to \
                 {NAME_BYTES_MAX}"
            )),
        }
    }
}

/// The reason why a caller is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The caller presented no credentials.
    Missing,
    /// The credentials are not of this cluster, were changed, or were revoked.
    Wrong,
    /// The credentials were valid until a time that has passed.
    Expired,
    /// The credentials are valid, and do not allow this.
    Forbidden,
    /// The node is not configured for callers of other hosts.
    Protected,
}

impl Denial {
    /// All reasons.
    pub const ALL: [Self; 5] =
        [Self::Missing, Self::Wrong, Self::Expired, Self::Forbidden, Self::Protected];

    /// The stable code of the reason, in JSON and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "unauthenticated",
            Self::Wrong => "bad_credentials",
            Self::Expired => "expired_credentials",
            Self::Forbidden => "forbidden",
            Self::Protected => "protected",
        }
    }

    /// The code of the reason in a [`Refusal`](crate::wire::Refusal).
    #[must_use]
    pub const fn refusal_code(self) -> RefusalCode {
        match self {
            Self::Missing => RefusalCode::Unauthenticated,
            Self::Wrong => RefusalCode::BadCredentials,
            Self::Expired => RefusalCode::ExpiredCredentials,
            Self::Forbidden => RefusalCode::Forbidden,
            Self::Protected => RefusalCode::Protected,
        }
    }

    /// Returns the reason that `code` states, if it states one.
    #[must_use]
    pub fn from_refusal_code(code: RefusalCode) -> Option<Self> {
        Self::ALL.into_iter().find(|denial| denial.refusal_code() == code)
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a request wants to do, as far as permissions are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Checks that the process is alive.
    CheckLiveness,
    /// Connects as a client: handshake, ping, wait for changes of the view; reads the view of the cluster.
    Connect,
    /// Acts as a member: handshake as a node, replication, copies, gossip.
    Join,
    /// Reads a key.
    Read(&'a [u8]),
    /// Asks what nodes hold of keys.
    Locate(&'a [Key]),
    /// Writes, deletes or computes the value of a key.
    Write(&'a [u8]),
    /// Ends the entries of a target.
    Purge {
        /// The entries to end.
        target: &'a PurgeTarget,
        /// Later writes are judged for a while, too.
        is_held: bool,
    },
    /// Follows the changes of all keys: their hashes, which a dictionary finds.
    Follow,
    /// Reads versions of keys, as repair does.
    Inspect,
    /// Reads metrics and statistics.
    Monitor,
    /// Lists keys: those that the grant is for.
    List,
    /// Operates the node.
    Administer,
}

impl<'a> Operation<'a> {
    /// Returns what `request` wants to do.
    #[must_use]
    pub fn of(request: &'a Request) -> Self {
        match request {
            Request::Hello(hello) if hello.node.is_some() => Self::Join,
            Request::Hello(_) | Request::Ping | Request::Watch { .. } => Self::Connect,
            Request::Get { key } => Self::Read(key.as_bytes()),
            Request::Put { key, .. }
            | Request::Delete { key, .. }
            | Request::Lease { key, .. }
            | Request::Release { key, .. } => Self::Write(key.as_bytes()),
            // A role that writes also reads.
            Request::Conditional(write) => Self::Write(write.key.as_bytes()),
            Request::Purge { target, hold_ms, .. } => Self::Purge { target, is_held: *hold_ms > 0 },
            Request::Locate { keys, .. } => Self::Locate(keys),
            Request::Follow { .. } | Request::Listen { .. } => Self::Follow,
            Request::Digests { .. } | Request::BucketVersions(_) | Request::KeyVersions(_) => {
                Self::Inspect
            }
            Request::Goodbye
            | Request::Replicate(_)
            | Request::Gossip(_)
            | Request::Fetch(_)
            | Request::Adopt(_)
            | Request::Offer(_)
            | Request::Copy { .. } => Self::Join,
        }
    }
}

/// The permissions of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    role: Role,
    /// `None`: all keys.
    prefixes: Option<Box<[Prefix]>>,
}

impl Grant {
    /// The grant of callers who may do nothing.
    pub const NONE: Self = Self { role: Role::None, prefixes: None };

    /// Grants `role` on all keys.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self { role, prefixes: None }
    }

    /// Grants `role` on the keys in `prefixes`; on all keys if there are none.
    #[must_use]
    pub fn scoped(role: Role, prefixes: Vec<Prefix>) -> Self {
        Self { role, prefixes: (!prefixes.is_empty()).then(|| prefixes.into()) }
    }

    /// Returns the role.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Returns whether the grant is limited to some keys.
    #[must_use]
    pub const fn is_scoped(&self) -> bool {
        self.prefixes.is_some()
    }

    /// Returns whether the caller may do `operation`.
    ///
    /// # Errors
    /// [`Denial::Missing`] for a caller without any permission, [`Denial::Forbidden`] for others.
    #[inline]
    pub fn permits(&self, operation: Operation<'_>) -> Result<(), Denial> {
        let role = self.role;
        let is_permitted = match operation {
            Operation::CheckLiveness => true,
            Operation::Connect => role.includes(Role::Read) || role.includes(Role::Monitor),
            Operation::Join => role.includes(Role::Node),
            Operation::Read(key) => role.includes(Role::Read) && self.covers(key),
            Operation::Locate(keys) => keys.iter().all(|key| self.may_locate(key.as_bytes())),
            Operation::Write(key) => role.includes(Role::Write) && self.covers(key),
            Operation::Purge { target, is_held } => {
                role.includes(Role::Write) && self.covers_target(target, is_held)
            }
            Operation::Follow => role.includes(Role::Read) && !self.is_scoped(),
            Operation::Inspect => {
                role.includes(Role::Node) || (role.includes(Role::Admin) && !self.is_scoped())
            }
            Operation::Monitor => role.includes(Role::Monitor),
            Operation::List => role.includes(Role::Admin),
            Operation::Administer => role.includes(Role::Admin) && !self.is_scoped(),
        };
        match is_permitted {
            true => Ok(()),
            false if role == Role::None => Err(Denial::Missing),
            false => Err(Denial::Forbidden),
        }
    }

    /// Returns whether the caller may send `message`. Only a node may speak in the name of a node.
    ///
    /// # Errors
    /// As [`permits`](Self::permits) does.
    pub fn permits_message(&self, message: &RequestMessage) -> Result<(), Denial> {
        self.permits(Operation::of(&message.request))?;
        match message.envelope.from {
            Some(_) => self.permits(Operation::Join),
            None => Ok(()),
        }
    }

    /// Whether the caller may know what nodes hold of a key: a reader of the key, or whoever may purge the target
    /// of a purge.
    fn may_locate(&self, key: &[u8]) -> bool {
        let operation = match PurgeTarget::of_key(key) {
            Some((ref target, _)) => {
                return self.permits(Operation::Purge { target, is_held: false }).is_ok();
            }
            None if is_reserved(key) => Operation::Join,
            None => Operation::Read(key),
        };
        self.permits(operation).is_ok()
    }

    /// Whether a purge ends entries of covered keys alone. Entries with a tag may have any key, and what is
    /// held up too.
    fn covers_target(&self, target: &PurgeTarget, is_held: bool) -> bool {
        match (&self.prefixes, target) {
            (None, _) => true,
            (
                Some(prefixes),
                PurgeTarget::Namespace(of) | PurgeTarget::Function { namespace: of, .. },
            ) => {
                let is_covered =
                    |prefix: &Prefix| matches!(prefix, Prefix::Memo(own) if **own == **of);
                !is_held && prefixes.iter().any(is_covered)
            }
            (Some(_), PurgeTarget::Everything | PurgeTarget::Tag(_)) => false,
        }
    }

    /// Returns whether the grant is for `key`, whatever it permits.
    #[must_use]
    pub fn covers(&self, key: &[u8]) -> bool {
        match &self.prefixes {
            None => true,
            Some(prefixes) => prefixes.iter().any(|prefix| prefix.covers(key)),
        }
    }
}

#[cfg(test)]
mod tests;
