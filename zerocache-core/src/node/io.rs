//! The inputs and effects of a node.

use alloc::{string::String, vec::Vec};
use core::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::{PersistedState, Write};
use crate::{
    call::CallResult,
    cluster::{AddressSource, DialRefusal},
    limits::Limits,
    store::{EntryOnDisk, StoredItem},
    version::Incarnation,
    wire::{NodeInfo, NodeState, RequestMessage, Response},
};

/// The configuration of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The name of its cluster.
    pub cluster: String,
    /// Its identity and addresses.
    pub info: NodeInfo,
    /// The limits of what it accepts.
    pub limits: Limits,
    /// After this long it is ready even if a local peer has not responded, in milliseconds.
    pub warm_max_ms: u64,
    /// The most bytes that wait for one peer; writes beyond them are abandoned.
    pub outbox_bytes_max: usize,
    /// Followers get changes at most this often, in milliseconds, so that changes are sent in batches: a server has
    /// [`CHANGES_EVERY_MS`](Self::CHANGES_EVERY_MS). With 0 they get each one at once, whether time passes or not.
    pub changes_every_ms: u64,
    /// A node keeps the value of a key of others for a while when it passes on so many reads of it per second, over 4
    /// to 8 s: a server has [`HOT_FORWARDS_PER_S`](Self::HOT_FORWARDS_PER_S). With 0 it keeps what it passes on.
    pub hot_forwards_per_s: u32,
    /// Its optional [`features`](crate::wire::features); `SEALED_DATAGRAMS` follows from `requires_tls`.
    pub features: u64,
    /// Whether it speaks TLS only. Then its datagrams are encrypted too, with peers of which the same holds.
    pub requires_tls: bool,
    /// Whether the data of an earlier process can be read back, if no peer has any.
    pub has_snapshot: bool,
    /// The secret from which the keys of datagrams are derived: random, and known to this process alone.
    pub secret: [u8; 32],
}

impl NodeConfig {
    /// The usual value of `changes_every_ms`.
    pub const CHANGES_EVERY_MS: u64 = 5;

    /// The usual value of `hot_forwards_per_s`.
    pub const HOT_FORWARDS_PER_S: u32 = 5;
}

/// Identifies a request until its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Identifies a connection on which requests come. It may carry one request only, as over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// The bit of connections that carry one request only.
    const SINGLE_USE: u64 = 1 << 63;

    /// Marks a connection that carries one request only, as over HTTP. All of these share one quota.
    #[must_use]
    pub const fn single_use(self) -> Self {
        Self(self.0 | Self::SINGLE_USE)
    }

    /// Whether it carries one request only.
    pub(super) const fn is_single_use(self) -> bool {
        self.0 & Self::SINGLE_USE != 0
    }

    /// The source of the addresses that are named on it.
    pub(super) const fn address_source(self) -> AddressSource {
        if self.is_single_use() { AddressSource::ANONYMOUS } else { AddressSource::Caller(self.0) }
    }
}

/// The sender of a request, as far as the driver has proven who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The address that it calls from, in canonical form; `None` if that is unknown.
    pub ip: Option<IpAddr>,
    /// Whether it may act as a member of the cluster.
    pub is_node: bool,
    /// The incarnation that it has proven to be; `None` where incarnations are not proven.
    pub identity: Option<Incarnation>,
}

impl Caller {
    /// A caller of a cluster without authentication: it may be a member, and its identity is not proven.
    #[must_use]
    pub fn unauthenticated(ip: Option<IpAddr>) -> Self {
        Self { ip: ip.map(|ip| ip.to_canonical()), is_node: true, identity: None }
    }

    /// A caller that is a client, and may not act as a member.
    #[must_use]
    pub fn client(ip: Option<IpAddr>) -> Self {
        Self { is_node: false, ..Self::unauthenticated(ip) }
    }
}

/// Identifies a call to another node until its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// An input of the node.
#[derive(Debug)]
pub enum Input {
    /// A write by a client of an interface that is not the wire protocol.
    Write {
        /// The request to respond to.
        id: RequestId,
        /// The write.
        write: Write,
    },
    /// A message from a client or another node.
    Request {
        /// The request.
        id: RequestId,
        /// The connection on which it came.
        connection: ConnectionId,
        /// Who sent it.
        caller: Caller,
        /// The message.
        message: RequestMessage,
    },
    /// A connection ended: no request comes on it any more, and nobody reads its responses.
    ConnectionClosed(ConnectionId),
    /// A call of this node ended.
    CallCompleted {
        /// The call.
        call: CallId,
        /// Its result.
        result: CallResult,
        /// How long it took, in microseconds.
        elapsed_us: u64,
    },
    /// A datagram arrived.
    Datagram {
        /// The sender.
        from: SocketAddr,
        /// Its content.
        bytes: Bytes,
    },
    /// Discovery found addresses at which nodes may be.
    AddressesProposed {
        /// The addresses.
        addresses: Vec<SocketAddr>,
        /// Whether the configuration names them, as seeds or by a DNS name: a node that starts waits for
        /// those that refuse it. Others were announced on the network, by anybody.
        are_configured: bool,
    },
    /// This node is reachable at these addresses from now on, and no longer at those before.
    AddressesChanged(Vec<SocketAddr>),
    /// Discovery reports that a node is gone; the node is pinged to verify that.
    NodeWithdrawn(Incarnation),
    /// Every discovery method has given its first answer.
    DiscoveryComplete,
    /// The time of [`Node::next_deadline`](super::Node::next_deadline) has come.
    Tick,
    /// Items of an earlier process of this node, after [`Effect::Restore`].
    RestoredItems(Vec<StoredItem>),
    /// All items of the earlier process have been passed in, or none can be used.
    RestoreComplete(Option<PersistedState>),
    /// What [`Effect::Load`] names was put back, or could not be.
    Loaded(RequestId),
    /// The node is to serve no more until [`Input::Undrain`]: it is leaving, but keeps running.
    Drain,
    /// The node is to serve again, after [`Input::Drain`].
    Undrain,
    /// The process is shutting down.
    Shutdown,
}

/// An action that a node requests.
#[derive(Debug)]
pub enum Effect {
    /// Responds to a request.
    Respond {
        /// The request.
        id: RequestId,
        /// The response.
        response: Response,
    },
    /// Calls another node; [`Input::CallCompleted`] reports the end.
    Call {
        /// The call.
        call: CallId,
        /// The receiver.
        to: SocketAddr,
        /// The message; the transport fills in the time of sending.
        message: RequestMessage,
        /// The timeout, in milliseconds.
        timeout_ms: u64,
    },
    /// Puts values back that are on disk ([`Store::restore`](crate::store::Store::restore));
    /// [`Input::Loaded`] reports the end. Without a disk in the store there are none.
    Load {
        /// The request that needs them.
        id: RequestId,
        /// The entries; each may have changed meanwhile.
        entries: Vec<EntryOnDisk>,
    },
    /// Sends a datagram, which may be lost.
    Datagram {
        /// The receiver.
        to: SocketAddr,
        /// Its content.
        bytes: Bytes,
    },
    /// The node's readiness changed.
    State(NodeState),
    /// Reads back the data of an earlier process: no other node has any.
    Restore,
    /// Reports something to operators.
    Event(Event),
}

/// An event for logs and counters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A member is reachable, for the first time or again.
    MemberUp(NodeInfo, SocketAddr),
    /// A member is unreachable: it has been silent for too long.
    MemberDown(NodeInfo, SocketAddr),
    /// A member is shutting down.
    MemberLeaving(NodeInfo),
    /// A member was removed.
    MemberForgotten(NodeInfo),
    /// A node of another cluster is at this address.
    OtherCluster {
        /// The address.
        address: SocketAddr,
        /// Its message.
        text: String,
    },
    /// The node at this address refuses this node, or one of the two cannot be verified.
    PeerRefused {
        /// The address.
        address: SocketAddr,
        /// The reason.
        code: DialRefusal,
        /// The message of the other node; may be empty.
        text: String,
    },
    /// This node has offered what it holds to the owners of the keys, as a placement with this number says.
    Placed {
        /// The number; 0 if every node keeps everything.
        placement: u64,
    },
    /// Two nodes of this region have this name, under which neither owns keys.
    NameConflict {
        /// The name.
        name: String,
    },
    /// Two live nodes claim this address.
    AddressConflict {
        /// The address.
        address: SocketAddr,
        /// One of the two; another one responded there shortly before.
        node: Incarnation,
    },
    /// A peer refused writes: stamped too far ahead of its clock, or too old to be judged.
    WritesRefused {
        /// The peer.
        peer: Incarnation,
        /// The number of writes.
        count: usize,
    },
    /// The node corrected its clock.
    ClockMoved {
        /// The correction, in milliseconds.
        by_ms: i64,
        /// The number of entries that got other versions, because they were stamped by a clock that was wrong
        /// by more than others accept; `None` if the versions stayed.
        restamped: Option<usize>,
    },
    /// This node's clock and that of a member differ by more than a day. Neither moves, the two do not repair
    /// each other, and no miss here is authoritative until one of them is restarted.
    ClockApart {
        /// The member.
        peer: Incarnation,
        /// How far its clock is ahead of this one, in milliseconds.
        ahead_ms: i64,
    },
    /// The node had missed too much, and compared everything with a peer.
    FullResync {
        /// The peer.
        peer: Incarnation,
        /// The number of entries that it dropped since it started.
        entries_dropped: u64,
    },
    /// A copy is complete.
    CopyComplete {
        /// The source.
        source: Incarnation,
        /// The number of entries.
        entries: u64,
    },
    /// A member of an earlier release does not judge entries by purges: it passes them on, and serves what they
    /// ended.
    PurgesIgnored(NodeInfo),
    /// Writes for a peer were abandoned.
    WritesAbandoned {
        /// The peer.
        peer: Incarnation,
        /// The number of writes.
        count: usize,
    },
}
