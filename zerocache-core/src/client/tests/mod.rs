//! The machines over nodes that a test plays itself.

mod batch;
mod conditional;
mod feed;
mod hedge;
mod lease;
mod read;
mod starting;
mod write;

use alloc::format;

use bytes::Bytes;

use super::*;
use crate::{
    call::{CallFailure, CallResult},
    route::{
        Tier, TierBounds,
        tests::{address, at, info},
    },
    version::{Incarnation, Version},
    wire::{Ack, NodeInfo, RefusalCode, Response, Status, Written, features},
};

/// A client in oslo that knows nodes 1 and 2 there and 3 in rome, and has tried all.
fn state() -> ClientState {
    state_with(None)
}

fn state_with(hedge: Option<HedgeShare>) -> ClientState {
    let mut state = ClientState::new("oslo", TierBounds::default(), hedge, at(0));
    for (n, region) in [(1, "oslo"), (2, "oslo"), (3, "rome")] {
        let directory = state.directory_mut();
        directory.handshake_completed(info(n, region), address(n), at(0), 100);
        directory.set_features(Incarnation(n), features::ALL, at(0));
    }
    for n in 1..=3 {
        state.directory_mut().candidates_mut().answered(address(n));
    }
    state.discovery_completed();
    assert!(state.update_tried());
    state
}

/// A version with this stamp of node `n`.
fn version(stamp: u64, n: u64) -> Version {
    Version::new(stamp << 16, Incarnation(n))
}

fn found(stamp: u64) -> CallResult {
    Ok(Response::Found {
        value: Bytes::from_static(b"v"),
        metadata: Bytes::new(),
        version: version(stamp, 1),
        remaining_ms: 60_000,
    })
}

const fn missed() -> CallResult {
    Ok(Response::NotFound { warming: false, known: 0 })
}

fn refused(code: RefusalCode) -> CallResult {
    Ok(Response::refused(code, "no"))
}

fn stored(stamp: u64, n: u64) -> CallResult {
    Ok(Response::Written(Written {
        status: Status::Stored,
        replicas: 1,
        replicas_wanted: 1,
        version: Some(version(stamp, n)),
    }))
}

fn answer(id: AttemptId, result: CallResult) -> Event {
    Event::Answer { id, result, elapsed_us: 1_000 }
}

fn read() -> Operation<ReadRules> {
    Operation::new(ReadRules::new(b"key", &ReadOptions::default()), at(0), 2_750)
}

fn put(bytes: u64) -> Operation<WriteRules> {
    Operation::new(WriteRules::new(b"key", Some(bytes), Ack::Local), at(0), 2_750)
}

impl<T: core::fmt::Debug> Reaction<T> {
    /// The request that is to be sent.
    #[track_caller]
    fn sent(self) -> Outgoing {
        match self.action {
            Action::Send { request, .. } => request,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn done(self) -> T {
        match self.action {
            Action::Done(output) => output,
            other => panic!("{other:?}"),
        }
    }

    fn waits(&self) -> bool {
        matches!(self.action, Action::Wait)
    }
}

/// Whether the node is asked at `ms`, after the requests of the test.
fn in_rotation(state: &ClientState, n: u64, ms: u64) -> bool {
    state.directory().in_rotation(Incarnation(n), at(ms))
}
