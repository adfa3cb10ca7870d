//! The part of a client that does I/O, and the state that its operations share.

use std::{sync::Arc, task::Waker, time::Duration};

use super::{
    config::Config, fast::FastOp, listen::Listeners, local_state::LocalState, stats::Counters,
    telemetry::Published, timings::Timings, uses::Uses,
};
use crate::Error;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::{runtime::Handle, sync::watch};
use zerocache_core::{
    client::{ClientState, Outgoing},
    key::KeyHash,
    route::{Budget, Directory},
    version::{Incarnation, Version},
    wire::{Envelope, Hello, Request, RequestMessage, cluster_id},
};
use zerocache_net::{
    clock,
    transport::{Call, Transport, framed::FastRequest},
};

/// Shared by a client's handles and its background task.
pub(super) struct Engine {
    pub(super) config: Config,
    pub(super) cluster: u64,
    /// The state of all operations.
    pub(super) state: Mutex<ClientState>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) counters: Counters,
    pub(super) timings: Timings,
    /// A number that changes whenever the directory may have.
    pub(super) changes: watch::Sender<u64>,
    /// With the near cache.
    pub(super) local: Arc<LocalState>,
    pub(super) listeners: Arc<Listeners>,
    pub(super) uses: Uses,
    pub(super) runtime: Handle,
    pub(super) published: Published,
}

impl Engine {
    pub(super) fn new(
        config: Config,
        local: Arc<LocalState>,
        transport: Arc<dyn Transport>,
        runtime: Handle,
    ) -> Self {
        let Config { region, zone, bounds, hedge, .. } = &config;
        let mut state = ClientState::new(region, *bounds, *hedge, clock::mono());
        state.directory_mut().set_zone(zone.clone());
        if config.offline {
            state.directory_mut().set_in_process();
        }
        Self {
            cluster: cluster_id(&config.cluster),
            state: Mutex::new(state),
            config,
            transport,
            counters: Counters::default(),
            timings: Timings::default(),
            changes: watch::Sender::default(),
            local,
            listeners: Arc::default(),
            uses: Uses::default(),
            runtime,
            published: Published::default(),
        }
    }

    /// The nodes that the client knows, under the lock of its state.
    pub(super) fn directory(&self) -> MappedMutexGuard<'_, Directory> {
        MutexGuard::map(self.state.lock(), ClientState::directory_mut)
    }

    /// The highest stamp that this client knows of: its writes come after everything that it saw.
    pub(super) fn seen(&self) -> u64 {
        self.state.lock().seen()
    }

    /// Records a version that a node sent.
    pub(super) fn note_seen(&self, version: Version) {
        self.state.lock().note_seen(version);
    }

    /// The node that accepted this client's last write of `key`, if that was a moment ago.
    pub(super) fn own_write_node(&self, key: &[u8]) -> Option<Incarnation> {
        let own = self.state.lock().own_write(KeyHash::of(key), clock::mono());
        own.map(|own| own.node)
    }

    /// Waits until a node in sync is known, preferably a local one.
    pub(super) async fn ready(&self, total_ms: u64) -> Result<(), Error> {
        let budget = Budget::new(clock::mono(), total_ms);
        let mut changes = None;
        while !self.state.lock().is_ready(clock::mono()) {
            if budget.remaining_ms(clock::mono()) == 0 {
                let timed_out = self.directory().nodes().next().is_some();
                // Waiting is no operation that failed.
                return Err(self.why_unreachable(timed_out));
            }
            self.await_change(&mut changes, budget.deadline()).await;
        }
        Ok(())
    }

    /// Sends a request on the fast path, if an open connection to its node has room for it.
    pub(super) fn send_now(
        &self,
        outgoing: &Outgoing,
        op: &FastOp<'_>,
        begun: Duration,
        waker: &Waker,
    ) -> Option<Call> {
        self.transport.try_send_now(&FastRequest {
            node: outgoing.step.node,
            address: outgoing.step.address,
            message: op,
            repeatable: op.is_repeatable(),
            begun,
            timeout_ms: outgoing.timeout_ms,
            waker,
        })
    }

    pub(super) fn message(
        &self,
        request: Request,
        to: Option<Incarnation>,
        timeout_ms: u64,
        seen: u64,
    ) -> RequestMessage {
        let envelope = Envelope {
            cluster: self.cluster,
            from: None,
            to,
            sent_ms: 0,
            timeout_ms,
            seen,
            delay_ms: 0,
        };
        RequestMessage { envelope, request }
    }

    /// Wakes the operations that wait for a node: the directory may have changed.
    pub(super) fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }
}

/// The hello of a client in `region`.
pub(super) fn hello(cluster: &str, region: &str) -> Hello {
    Hello::of_client(cluster, region, clock::now().wall_ms)
}

pub(super) fn micros_since(started: Duration) -> u64 {
    u64::try_from(clock::elapsed().saturating_sub(started).as_micros()).unwrap_or(u64::MAX)
}
