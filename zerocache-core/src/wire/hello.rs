//! The handshake: who stands at either end, before any entry moves.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
    vec::Vec,
};
use core::net::SocketAddr;

use bytes::Bytes;

use super::{
    datagram::SessionKey,
    field::{DecodeError, Field, Reader, Writer},
};
use crate::{
    name::{self, NAME_BYTES_MAX},
    version::Incarnation,
};

/// The version of the protocol that this release speaks.
pub const PROTOCOL: u64 = 1;

/// Bits of [`Hello::features`]: optional abilities, used between two nodes that both have them.
pub mod features {
    /// Answers the questions of repair and of the copy at the start.
    pub const REPAIR: u64 = 1;
    /// Takes heartbeats as datagrams on the same port number.
    pub const DATAGRAMS: u64 = 1 << 1;
    /// Takes part in the gossip about who exists.
    pub const GOSSIP: u64 = 1 << 2;
    /// Answers when its view changes, to whoever waits for that.
    pub const WATCH: u64 = 1 << 3;
    /// Tells which entries change, to whoever follows.
    pub const FEED: u64 = 1 << 4;
    /// Gives the leave to compute a value to one at a time.
    pub const LEASES: u64 = 1 << 5;

    /// All that this release has.
    pub const ALL: u64 = REPAIR | DATAGRAMS | GOSSIP | WATCH | FEED | LEASES;
}

/// Most addresses that a node announces.
pub const ADDRESSES_MAX: usize = 16;

/// Most members that one handshake tells of.
pub const MEMBERS_MAX: usize = 1024;

/// Room for credentials in a handshake, in bytes.
pub const AUTH_BYTES_MAX: usize = 4096;

/// What a node says of its readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// It serves, but may lack entries: its misses are not final.
    Warming,
    /// It has what its peers have: its misses are final.
    InSync,
    /// It is about to stop: it still answers, and should not be asked.
    Leaving,
}

impl NodeState {
    /// The state's name in JSON and logs.
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

    /// A state that this release does not know counts as warming: the node answers, no more is sure.
    pub(super) const fn from_number(n: u64) -> Self {
        match n {
            2 => Self::InSync,
            3 => Self::Leaving,
            _ => Self::Warming,
        }
    }
}

/// What is known of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Which life of which process.
    pub incarnation: Incarnation,
    /// Where it stands.
    pub region: String,
    /// Where in the region, if it says so.
    pub zone: Option<String>,
    /// Where it can be reached, best first.
    pub addresses: Vec<SocketAddr>,
    /// How ready it is.
    pub state: NodeState,
    /// Its byte budget; a client asks the largest before it believes a miss.
    pub bytes_max: u64,
}

/// Either side's part of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The cluster that it belongs to; another cluster's is refused.
    pub cluster: String,
    /// The protocol version that it speaks.
    pub protocol: u64,
    /// A bit for each optional feature that it has; both sides use what both have.
    pub features: u64,
    /// Credentials: empty until authentication exists.
    pub auth: Bytes,
    /// Its wall clock in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// The node itself; none for a client.
    pub node: Option<NodeInfo>,
    /// Where the caller stands: the region of a client or node.
    pub region: String,
    /// The nodes that it reaches; empty in a request.
    pub members: Vec<NodeInfo>,
    /// How many entries it holds; 0 for a client.
    pub entries: u64,
    /// The key for datagrams from the caller to the sender; only in a response to a node.
    pub session: Option<SessionKey>,
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
    pub(super) const SESSION: u32 = 16;

    pub(super) const INCARNATION: u32 = 1;
    pub(super) const INFO_REGION: u32 = 2;
    pub(super) const ZONE: u32 = 3;
    pub(super) const ADDRESS: u32 = 4;
    pub(super) const STATE: u32 = 5;
    pub(super) const BYTES_MAX: u32 = 6;
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
                _ => {}
            }
            Ok(())
        })?;
        info.incarnation = incarnation.ok_or(DecodeError::Missing(tag::INCARNATION))?;
        info.region = region.ok_or(DecodeError::Missing(tag::INFO_REGION))?;
        Ok(info)
    }
}

impl Hello {
    /// About how many bytes it takes.
    pub(super) fn size_hint(&self) -> usize {
        256 + self.auth.len() + self.members.len() * 96
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
        if let Some(session) = &self.session {
            out.bytes(tag::SESSION, session.as_bytes());
        }
    }

    pub(super) fn read(reader: Reader<'_>) -> Result<Self, DecodeError> {
        let mut cluster = None;
        let mut hello = Self {
            cluster: String::new(),
            protocol: PROTOCOL,
            features: 0,
            auth: Bytes::new(),
            wall_ms: 0,
            node: None,
            region: String::new(),
            members: Vec::new(),
            entries: 0,
            session: None,
        };
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
                tag::SESSION => hello.session = Some(SessionKey::from_bytes(field.array()?)),
                _ => {}
            }
            Ok(())
        })?;
        hello.cluster = cluster.ok_or(DecodeError::Missing(tag::CLUSTER))?;
        Ok(hello)
    }
}

/// A name of a cluster, region or zone.
fn name(field: &Field<'_>) -> Result<String, DecodeError> {
    let text = field.text(NAME_BYTES_MAX)?;
    name::check(text).map_err(|_| field.invalid())?;
    Ok(text.to_owned())
}
