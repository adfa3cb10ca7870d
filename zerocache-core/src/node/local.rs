//! What all parts of a node share: who the node is, how ready it is, and its calls to other nodes.

use alloc::{collections::BTreeMap, vec::Vec};
use core::net::SocketAddr;

use super::{
    CallId, Effect, NodeConfig, RefusalCounts, RequestId, clocks::Clocks, readiness::Readiness,
    reads::Identity, repair::RepairCall, replica::Replica,
};
use crate::{
    key::KeyHash,
    store::Backend,
    time::{Instant, Now},
    version::Incarnation,
    wire::{Envelope, NodeState, Request, RequestMessage, features},
};

/// The longest time between two ticks that look at everything, in milliseconds.
pub(super) const TICK_EVERY_MS: u64 = 250;

/// Why a call was made.
#[derive(Debug)]
pub(super) enum CallPurpose {
    /// A handshake with a new address.
    Hello {
        address: SocketAddr,
    },
    /// A handshake with a member, repeated.
    Greet {
        member: Incarnation,
    },
    Ping {
        member: Incarnation,
    },
    Gossip {
        member: Incarnation,
    },
    /// Records from the member's outbox.
    Replicate {
        member: Incarnation,
    },
    Repair {
        member: Incarnation,
        call: RepairCall,
    },
    /// The copies of a member, for a request that waits.
    Locate {
        request: RequestId,
        member: Incarnation,
    },
    /// A request about a key that the member owns.
    Forward {
        request: RequestId,
    },
    /// Items that the member owns, for a request of another region.
    Gather {
        request: RequestId,
        keys: Vec<KeyHash>,
    },
    /// The end of a lease whose holder is gone.
    Release,
    Goodbye,
}

/// The node itself.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) config: NodeConfig,
    pub(super) identity: Identity,
    pub(super) readiness: Readiness,
    pub(super) clocks: Clocks,
    pub(super) refused: RefusalCounts,
    calls: BTreeMap<CallId, CallPurpose>,
    next_call: u64,
    /// When the next tick is due, apart from those of the sweep and of the outboxes.
    wake: Instant,
}

impl Local {
    pub(super) fn new(mut config: NodeConfig, retention_ms: u64, now: Instant) -> Self {
        config.features &= !features::SEALED_DATAGRAMS;
        if config.requires_tls && cfg!(feature = "sealed-datagrams") {
            config.features |= features::SEALED_DATAGRAMS;
        }
        Self {
            identity: Identity::new(&config.cluster, config.info.incarnation),
            readiness: Readiness::new(now),
            clocks: Clocks::new(now, retention_ms),
            refused: RefusalCounts::default(),
            calls: BTreeMap::new(),
            next_call: 0,
            wake: now,
            config,
        }
    }

    /// The node's incarnation.
    pub(super) fn id(&self) -> Incarnation {
        self.config.info.incarnation
    }

    /// The node's region.
    pub(super) fn region(&self) -> &str {
        &self.config.info.region
    }

    /// Whether the node is shutting down.
    pub(super) fn is_leaving(&self) -> bool {
        self.readiness.state() == NodeState::Leaving
    }

    /// Whether this node and one with these features both have one of `features`.
    pub(super) fn shares_features(&self, others: u64, features: u64) -> bool {
        self.config.features & others & features != 0
    }

    /// Makes a call. It ends with [`end_call`](Self::end_call).
    pub(super) fn call(
        &mut self,
        purpose: CallPurpose,
        (address, to): (SocketAddr, Option<Incarnation>),
        request: Request,
        timeout_ms: u64,
        out: &mut Vec<Effect>,
    ) -> CallId {
        self.call_after(purpose, (address, to), (request, 0), timeout_ms, out)
    }

    /// The same for a request on behalf of a caller that has seen versions up to the stamp `seen`.
    pub(super) fn call_after(
        &mut self,
        purpose: CallPurpose,
        (address, to): (SocketAddr, Option<Incarnation>),
        (request, seen): (Request, u64),
        timeout_ms: u64,
        out: &mut Vec<Effect>,
    ) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, purpose);
        let envelope = Envelope {
            cluster: self.identity.cluster_id,
            from: Some(self.id()),
            to,
            timeout_ms,
            seen,
            ..Envelope::default()
        };
        let message = RequestMessage { envelope, request };
        out.push(Effect::Call { call, to: address, message, timeout_ms });
        call
    }

    /// Ends a call; returns why it was made, or `None` if it is unknown.
    pub(super) fn end_call(&mut self, call: CallId) -> Option<CallPurpose> {
        self.calls.remove(&call)
    }

    /// When the next tick is due.
    pub(super) fn wake(&self) -> Instant {
        self.wake
    }

    /// Has the node tick no later than `at`.
    pub(super) fn wake_by(&mut self, at: Option<Instant>) {
        if let Some(at) = at {
            self.wake = self.wake.min(at);
        }
    }

    /// Returns whether a tick is due, and schedules the next one.
    pub(super) fn take_tick(&mut self, now: Instant) -> bool {
        let is_due = self.wake <= now;
        if is_due {
            self.wake = now.plus_ms(TICK_EVERY_MS);
        }
        is_due
    }
}

/// What a part of the node works with while it handles an input.
pub(super) struct Context<'a, B: Backend> {
    pub(super) now: Now,
    pub(super) local: &'a mut Local,
    pub(super) replica: &'a mut Replica<B>,
    pub(super) out: &'a mut Vec<Effect>,
}
