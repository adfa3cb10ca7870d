//! What a node is given, and what it wants done.

use alloc::{string::String, vec::Vec};
use core::net::SocketAddr;

use bytes::Bytes;

use super::{PersistedState, Write};
use crate::{
    call::CallResult,
    cluster::AddressSource,
    limits::Limits,
    store::StoredItem,
    version::Incarnation,
    wire::{NodeInfo, NodeState, RequestMessage, Response},
};

/// What a node is told about itself.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster that it belongs to.
    pub cluster: String,
    /// Who it is and where it can be reached.
    pub info: NodeInfo,
    /// What it accepts.
    pub limits: Limits,
    /// After this long it is ready even if a local peer has not answered, in milliseconds.
    pub warm_max_ms: u64,
    /// Bytes that may wait for one peer; beyond them writes for it are given up.
    pub outbox_bytes_max: usize,
    /// The optional abilities that it offers, as [`features`](crate::wire::features) has them.
    pub features: u64,
    /// Whether what it knew in an earlier life can be read back, when no peer has anything.
    pub has_snapshot: bool,
    /// What the keys of datagrams are made from: random, and known to this process alone.
    pub secret: [u8; 32],
}

/// Names a request until its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a connection on which requests come. It may carry one request only, as over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// The bit of those that carry one request only.
    const SINGLE: u64 = 1 << 63;

    /// The same for a connection that carries one request only, as over HTTP: all of these count as one
    /// where connections have shares.
    #[must_use]
    pub const fn single_use(self) -> Self {
        Self(self.0 | Self::SINGLE)
    }

    /// Whether it carries one request only.
    pub(super) const fn is_single_use(self) -> bool {
        self.0 & Self::SINGLE != 0
    }

    /// Who names addresses on it.
    pub(super) const fn teller(self) -> AddressSource {
        if self.is_single_use() { AddressSource::ANONYMOUS } else { AddressSource::Caller(self.0) }
    }
}

/// Names a call to another node until its answer.
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
        /// Whom to answer.
        id: RequestId,
        /// On what it came.
        connection: ConnectionId,
        /// What was asked.
        message: RequestMessage,
    },
    /// A connection has ended: nothing comes on it any more, and nobody reads what is answered.
    ConnectionClosed(ConnectionId),
    /// The end of a call that this node made.
    CallCompleted {
        /// Which call.
        call: CallId,
        /// What came back.
        result: CallResult,
        /// How long it took, in microseconds.
        elapsed_us: u64,
    },
    /// A datagram came.
    Datagram {
        /// From where.
        from: SocketAddr,
        /// What it holds.
        bytes: Bytes,
    },
    /// Addresses at which nodes may stand.
    AddressesProposed(Vec<SocketAddr>),
    /// This node can be reached at these addresses from now on, and no longer at those of before.
    AddressesChanged(Vec<SocketAddr>),
    /// Discovery says that a node is gone; it is asked before that is believed.
    NodeWithdrawn(Incarnation),
    /// Every way of discovery has given its first answer.
    DiscoveryComplete,
    /// The moment of [`Node::next_deadline`](super::Node::next_deadline) has come.
    Tick,
    /// Something that this node knew in an earlier life, after [`Effect::Restore`].
    RestoredItems(Vec<StoredItem>),
    /// All of that has come, or there was nothing that can be used.
    RestoreComplete(Option<PersistedState>),
    /// The process is about to stop.
    Shutdown,
}

/// What a node wants done.
#[derive(Debug)]
pub enum Effect {
    /// Answers a request.
    Respond {
        /// Which one.
        id: RequestId,
        /// With what.
        response: Response,
    },
    /// Calls another node; its end comes back as [`Input::CallCompleted`].
    Call {
        /// Which call.
        call: CallId,
        /// Where to.
        to: SocketAddr,
        /// What to ask; the sender fills in the time of sending.
        message: RequestMessage,
        /// How long to wait, in milliseconds.
        timeout_ms: u64,
    },
    /// Sends a datagram, which may be lost.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// What it holds.
        bytes: Bytes,
    },
    /// The node's own readiness changed.
    State(NodeState),
    /// Nobody has anything: what the node knew in an earlier life is to be read back.
    Restore,
    /// Something that an operator may want to know.
    Event(Event),
}

/// What happened, for logs and counters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A member answers, for the first time or again.
    MemberUp(NodeInfo, SocketAddr),
    /// A member has been silent for too long.
    MemberDown(NodeInfo, SocketAddr),
    /// A member said that it leaves.
    MemberLeaving(NodeInfo),
    /// A member is no longer remembered.
    MemberForgotten(NodeInfo),
    /// A node of another cluster stands at this address.
    OtherCluster {
        /// Where.
        address: SocketAddr,
        /// What it said.
        text: String,
    },
    /// Two nodes that are both alive claim this address.
    AddressConflict {
        /// Which one.
        address: SocketAddr,
        /// One of the two; another one answered there shortly before.
        node: Incarnation,
    },
    /// A peer refused writes: stamped too far ahead of its clock, or too old for it to judge.
    WritesRefused {
        /// Which peer.
        peer: Incarnation,
        /// How many.
        count: usize,
    },
    /// The node put its clock right.
    ClockMoved {
        /// By how much, in milliseconds.
        by_ms: i64,
        /// How many entries got other versions, because they were stamped by a clock that was wrong by more
        /// than others accept; none if it went on with the versions that it had given.
        redated: Option<usize>,
    },
    /// This node's clock and that of a member differ by more than a day. Neither moves, nothing is compared
    /// between the two, and no miss here is final until one of them starts anew.
    ClockApart {
        /// Which member.
        peer: Incarnation,
        /// How far its clock is ahead of this one, in milliseconds.
        ahead_ms: i64,
    },
    /// The node had missed too much, and asked a peer about all that it had.
    FullResync {
        /// Which peer.
        peer: Incarnation,
        /// How many entries it gave up since it started.
        entries_dropped: u64,
    },
    /// The copy at the start has come to its end.
    CopyComplete {
        /// From whom.
        source: Incarnation,
        /// How many entries.
        entries: u64,
    },
    /// Writes for a peer were given up.
    WritesDropped {
        /// Which peer.
        peer: Incarnation,
        /// How many.
        count: usize,
    },
}
