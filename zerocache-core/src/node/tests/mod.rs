//! The rules of membership and fan-out, on a virtual network.

mod bounds;
mod claims;
mod clocks;
mod computed;
mod conditions;
mod drain;
mod fanout;
mod feed;
mod forward;
mod gossip;
mod heartbeat;
mod hot;
mod introductions;
mod joining;
mod keys;
mod leases;
mod locate;
mod membership;
mod network;
mod placement;
mod purges;
mod refusals;
mod repair;
mod resyncs;
mod snapshots;
mod starts;

/// What most tests of the node name beside the node itself.
mod prelude {
    pub(super) use alloc::boxed::Box;

    pub(super) use bytes::Bytes;

    pub(super) use super::super::*;
    pub(super) use crate::{
        version::{Version, VersionSource},
        wire::{CONTENT_BYTES_MAX, Envelope, NodeState, Request, RequestMessage},
    };
}
