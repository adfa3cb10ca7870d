//! The handshake: both sides identify themselves before any other message.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
    vec::Vec,
};
use core::net::SocketAddr;

use bytes::Bytes;

use super::{
    field::{DecodeError, Field, Reader, Writer},
    session::{Session, SessionKey},
};
use crate::{
    cluster::Replicas,
    name::{self, NAME_BYTES_MAX},
    version::Incarnation,
};

/// The protocol version of this release.
pub const PROTOCOL: u64 = 1;

/// Bits of [`Hello::features`]: optional features, used if both sides have them.
pub mod features {
    /// Serves repair and copies at start.
    pub const REPAIR: u64 = 1;
    /// Accepts heartbeats as datagrams on the same port number.
    pub const DATAGRAMS: u64 = 1 << 1;
    /// Takes part in gossip about members.
    pub const GOSSIP: u64 = 1 << 2;
    /// Notifies callers of changes of its view.
    pub const WATCH: u64 = 1 << 3;
    /// Serves a feed of changed keys.
    pub const FEED: u64 = 1 << 4;
    /// Grants leases to compute values.
    pub const LEASES: u64 = 1 << 5;

    /// Accepts encrypted datagrams: format version 2. Offered by nodes that require TLS.
    pub const SEALED_DATAGRAMS: u64 = 1 << 6;

    /// Judges entries by purges.
    pub const PURGES: u64 = 1 << 7;

    /// Says what it and others hold of keys.
    pub const LOCATE: u64 = 1 << 8;

    /// Makes writes on conditions.
    pub const CONDITIONS: u64 = 1 << 9;

    /// Says more of changes to who listens: which are deletes, their whole versions, and the tags of entries.
    pub const LISTEN: u64 = 1 << 10;

    /// Keeps the values that it owns, and the versions of all, where nodes are so configured.
    pub const PLACEMENT: u64 = 1 << 11;

    /// All features of this release, except [`SEALED_DATAGRAMS`], which depends on the configuration.
    pub const ALL: u64 = REPAIR
        | DATAGRAMS
        | GOSSIP
        | WATCH
        | FEED
        | LEASES
        | PURGES
        | LOCATE
        | CONDITIONS
        | LISTEN
        | PLACEMENT;

    /// Each feature with its name.
    pub const NAMES: [(u64, &str); 12] = [
        (REPAIR, "repair"),
        (DATAGRAMS, "datagrams"),
        (GOSSIP, "gossip"),
        (WATCH, "watch"),
        (FEED, "feed"),
        (LEASES, "leases"),
        (SEALED_DATAGRAMS, "sealed-datagrams"),
        (PURGES, "purges"),
        (LOCATE, "locate"),
        (CONDITIONS, "conditions"),
        (LISTEN, "listen"),
        (PLACEMENT, "placement"),
    ];
}

/// The most addresses that a node announces.
pub const ADDRESSES_MAX: usize = 16;

/// The most absent nodes in one handshake.
pub const ABSENT_MAX: usize = 64;

/// The most members in one handshake.
pub const MEMBERS_MAX: usize = 1024;

/// The largest credentials in a handshake, in bytes.
pub const AUTH_BYTES_MAX: usize = 4096;

/// The readiness of a node, as the node states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// The node serves, but may lack entries: its misses are not authoritative.
    Warming,
    /// The node has what its peers have: its misses are authoritative.
    InSync,
    /// The node is about to stop: it still answers, but should not be asked.
    Leaving,
}

impl NodeState {
    /// The name of the state in JSON and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warming => "warming",
            Self::InSync => "in-sync",
            Self::Leaving => "leaving",
        }
    }

    pub(super) const fn to_number(self) -> u64 {
        match self {
            Self::Warming => 1,
            Self::InSync => 2,
            Self::Leaving => 3,
        }
    }

    /// An unknown state counts as warming: only that the node answers is certain.
    pub(super) const fn from_number(n: u64) -> Self {
        match n {
            2 => Self::InSync,
            3 => Self::Leaving,
            _ => Self::Warming,
        }
    }
}

/// The description of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// The incarnation.
    pub incarnation: Incarnation,
    /// The region.
    pub region: String,
    /// The zone within the region, if stated.
    pub zone: Option<String>,
    /// The addresses, best first.
    pub addresses: Vec<SocketAddr>,
    /// The readiness.
    pub state: NodeState,
    /// The byte budget. A client asks the node with the largest one before it accepts a miss.
    pub bytes_max: u64,
    /// The name under which the node comes back after a restart, if it has one.
    pub name: Option<String>,
    /// How many nodes of its region are to keep a value, as the node is configured.
    pub replicas: Replicas,
}

/// The message of either side in a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster of the sender. A node of another cluster refuses.
    pub cluster: String,
    /// The protocol version of the sender.
    pub protocol: u64,
    /// The [features] of the sender.
    pub features: u64,
    /// Credentials; empty until authentication exists.
    pub auth: Bytes,
    /// The wall clock of the sender, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// The sending node; `None` for a client.
    pub node: Option<NodeInfo>,
    /// The region of the sending client or node.
    pub region: String,
    /// The nodes that the sender reaches; empty in a request.
    pub members: Vec<NodeInfo>,
    /// The number of entries that the sender holds; 0 for a client.
    pub entries: u64,
    /// The session of datagrams from the caller to the sender. Only in a response to a node.
    pub session: Option<Session>,
    /// The nodes of the sender's region that are gone for a moment, and own keys still.
    pub absent: Vec<AbsentNode>,
}

/// A node that is gone for a moment, where not every node keeps every value: its keys are its own until it is gone for
/// long. Those who come meanwhile have to know of it, to choose the same owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsentNode {
    /// Its name.
    pub name: String,
    /// Its last process.
    pub incarnation: Incarnation,
    /// Its zone within the region, if stated.
    pub zone: Option<String>,
    /// Its byte budget.
    pub bytes_max: u64,
    /// How many nodes are to keep a value, as it is configured.
    pub replicas: Replicas,
    /// How long it has been gone, in milliseconds.
    pub absent_ms: u64,
}

mod tag {
    pub(super) const CLUSTER: u32 = 1;
    pub(super) const PROTOCOL: u32 = 2;
    pub(super) const FEATURES: u32 = 3;
    pub(super) const AUTH: u32 = 4;
    pub(super) const WALL_MS: u32 = 5;
    pub(super) const NODE: u32 = 6;
    pub(super) const REGION: u32 = 7;
    pub(super) const MEMBER: u32 = 8;
    pub(super) const ENTRIES: u32 = 9;
    pub(super) const ABSENT: u32 = 10;
    pub(super) const SESSION: u32 = 16;
    pub(super) const SEALED_SESSION: u32 = 17;

    pub(super) const INCARNATION: u32 = 1;
    pub(super) const INFO_REGION: u32 = 2;
    pub(super) const ZONE: u32 = 3;
    pub(super) const ADDRESS: u32 = 4;
    pub(super) const STATE: u32 = 5;
    pub(super) const BYTES_MAX: u32 = 6;
    pub(super) const NAME: u32 = 7;
    pub(super) const REPLICAS: u32 = 8;
    pub(super) const ABSENT_MS: u32 = 9;
}

impl NodeInfo {
    pub(crate) fn write(&self, out: &mut Writer<'_>) {
        out.number(tag::INCARNATION, self.incarnation.0);
        out.bytes(tag::INFO_REGION, self.region.as_bytes());
        if let Some(zone) = &self.zone {
            out.bytes(tag::ZONE, zone.as_bytes());
        }
        for address in &self.addresses {
            out.bytes(tag::ADDRESS, address.to_string().as_bytes());
        }
        out.number(tag::STATE, self.state.to_number());
        out.number(tag::BYTES_MAX, self.bytes_max);
        if let Some(name) = &self.name {
            out.bytes(tag::NAME, name.as_bytes());
        }
        if self.replicas != Replicas::All {
            out.number(tag::REPLICAS, self.replicas.to_number());
        }
    }

    pub(crate) fn read(reader: Reader<'_>) -> Result<Self, DecodeError> {
        let (mut incarnation, mut region) = (None, None);
        let mut info = Self {
            incarnation: Incarnation(0),
            region: String::new(),
            zone: None,
            addresses: Vec::new(),
            state: NodeState::Warming,
            bytes_max: 0,
            name: None,
            replicas: Replicas::All,
        };
        reader.each(|field| {
            match field.tag {
                tag::INCARNATION => incarnation = Some(Incarnation(field.number()?)),
                tag::INFO_REGION => region = Some(name(&field)?),
                tag::ZONE => info.zone = Some(name(&field)?),
                tag::ADDRESS if info.addresses.len() < ADDRESSES_MAX => {
                    info.addresses.push(field.text(64)?.parse().map_err(|_| field.invalid())?);
                }
                tag::ADDRESS => return Err(DecodeError::TooMany(field.tag)),
                tag::STATE => info.state = NodeState::from_number(field.number()?),
                tag::BYTES_MAX => info.bytes_max = field.number()?,
                tag::NAME => info.name = Some(name(&field)?),
                tag::REPLICAS => info.replicas = Replicas::from_number(field.number()?),
                _ => {}
            }
            Ok(())
        })?;
        info.incarnation = incarnation.ok_or(DecodeError::Missing(tag::INCARNATION))?;
        info.region = region.ok_or(DecodeError::Missing(tag::INFO_REGION))?;
        Ok(info)
    }
}

impl AbsentNode {
    fn write(&self, out: &mut Writer<'_>) {
        out.number(tag::INCARNATION, self.incarnation.0);
        out.bytes(tag::NAME, self.name.as_bytes());
        if let Some(zone) = &self.zone {
            out.bytes(tag::ZONE, zone.as_bytes());
        }
        out.number(tag::BYTES_MAX, self.bytes_max);
        out.number(tag::REPLICAS, self.replicas.to_number());
        out.number(tag::ABSENT_MS, self.absent_ms);
    }

    fn read(reader: Reader<'_>) -> Result<Self, DecodeError> {
        let mut node = Self {
            name: String::new(),
            incarnation: Incarnation(0),
            zone: None,
            bytes_max: 0,
            replicas: Replicas::All,
            absent_ms: 0,
        };
        reader.each(|field| {
            match field.tag {
                tag::INCARNATION => node.incarnation = Incarnation(field.number()?),
                // A name, or an address with its port.
                tag::NAME => node.name = field.text(NAME_BYTES_MAX)?.to_owned(),
                tag::ZONE => node.zone = Some(name(&field)?),
                tag::BYTES_MAX => node.bytes_max = field.number()?,
                tag::REPLICAS => node.replicas = Replicas::from_number(field.number()?),
                tag::ABSENT_MS => node.absent_ms = field.number()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(node)
    }
}

impl Hello {
    /// Returns the introduction of a client of `cluster` that stands in `region`.
    #[must_use]
    pub fn of_client(cluster: &str, region: &str, wall_ms: u64) -> Self {
        Self {
            cluster: cluster.to_owned(),
            protocol: PROTOCOL,
            features: 0,
            auth: Bytes::new(),
            wall_ms,
            node: None,
            region: region.to_owned(),
            members: Vec::new(),
            entries: 0,
            session: None,
            absent: Vec::new(),
        }
    }

    /// Estimates the encoded size in bytes.
    pub(super) fn size_hint(&self) -> usize {
        256 + self.auth.len() + (self.members.len() + self.absent.len()) * 96
    }

    pub(super) fn write(&self, out: &mut Writer<'_>) {
        out.bytes(tag::CLUSTER, self.cluster.as_bytes());
        out.number(tag::PROTOCOL, self.protocol);
        out.number(tag::FEATURES, self.features);
        if !self.auth.is_empty() {
            out.bytes(tag::AUTH, &self.auth);
        }
        out.number(tag::WALL_MS, self.wall_ms);
        if let Some(node) = &self.node {
            out.nested(tag::NODE, |out| node.write(out));
        }
        if !self.region.is_empty() {
            out.bytes(tag::REGION, self.region.as_bytes());
        }
        for member in self.members.iter().take(MEMBERS_MAX) {
            out.nested(tag::MEMBER, |out| member.write(out));
        }
        if self.entries > 0 {
            out.number(tag::ENTRIES, self.entries);
        }
        for node in self.absent.iter().take(ABSENT_MAX) {
            out.nested(tag::ABSENT, |out| node.write(out));
        }
        if let Some(session) = &self.session {
            match session.generation {
                None => out.bytes(tag::SESSION, session.key.as_bytes()),
                Some(generation) => {
                    let mut bytes = [0; 36];
                    bytes[..4].copy_from_slice(&generation.to_be_bytes());
                    bytes[4..].copy_from_slice(session.key.as_bytes());
                    out.bytes(tag::SEALED_SESSION, &bytes);
                }
            }
        }
    }

    pub(super) fn read(reader: Reader<'_>) -> Result<Self, DecodeError> {
        let mut cluster = None;
        let mut hello = Self::of_client("", "", 0);
        reader.each(|field| {
            match field.tag {
                tag::CLUSTER => cluster = Some(name(&field)?),
                tag::PROTOCOL => hello.protocol = field.number()?,
                tag::FEATURES => hello.features = field.number()?,
                tag::AUTH => hello.auth = field.bounded(AUTH_BYTES_MAX)?,
                tag::WALL_MS => hello.wall_ms = field.wall_ms()?,
                tag::NODE => hello.node = Some(NodeInfo::read(field.reader())?),
                tag::REGION => hello.region = name(&field)?,
                tag::MEMBER if hello.members.len() < MEMBERS_MAX => {
                    hello.members.push(NodeInfo::read(field.reader())?);
                }
                tag::MEMBER => return Err(DecodeError::TooMany(field.tag)),
                tag::ENTRIES => hello.entries = field.number()?,
                tag::ABSENT if hello.absent.len() < ABSENT_MAX => {
                    hello.absent.push(AbsentNode::read(field.reader())?);
                }
                tag::ABSENT => return Err(DecodeError::TooMany(field.tag)),
                tag::SESSION => {
                    let key = SessionKey::from_bytes(field.array()?);
                    hello.session = Some(Session { key, generation: None });
                }
                tag::SEALED_SESSION => hello.session = Some(sealed_session(field.array()?)),
                _ => {}
            }
            Ok(())
        })?;
        hello.cluster = cluster.ok_or(DecodeError::Missing(tag::CLUSTER))?;
        Ok(hello)
    }
}

/// Reads `generation ‖ key`.
fn sealed_session(bytes: [u8; 36]) -> Session {
    let generation = u32::from_be_bytes(core::array::from_fn(|n| bytes[n]));
    let key = SessionKey::from_bytes(core::array::from_fn(|n| bytes[n + 4]));
    Session { key, generation: Some(generation) }
}

/// Reads the name of a cluster, region or zone.
fn name(field: &Field<'_>) -> Result<String, DecodeError> {
    let text = field.text(NAME_BYTES_MAX)?;
    name::check(text).map_err(|_| field.invalid())?;
    Ok(text.to_owned())
}
