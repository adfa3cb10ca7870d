//! The part of a client that does I/O: asks nodes, tier by tier.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};
use zerocache_core::{
    call::CallFailure,
    key::{Key, KeyHash},
    route::{Attempt, Budget, Directory, Step},
    time::Instant,
    version::{Incarnation, Version},
    wire::{Envelope, Hello, PROTOCOL, RefusalCode, Request, RequestMessage, Response, cluster_id},
};
use zerocache_net::{
    clock,
    transport::{Call, Transport, framed::FastRequest},
};

use super::{
    config::Config,
    face::Face,
    fast::FastOp,
    hedge::Hedge,
    own_writes::{OwnWrite, OwnWrites, REMEMBERED_MS},
    stats::Counters,
    telemetry::Published,
    timings::Timings,
};
use crate::Error;

/// How long after its start a client lets a node of its own region be found before it asks one of
/// another, in milliseconds: mDNS finds a node in 50 to 75 ms, where nobody else asked just before.
const LOCAL_FIRST_MS: u64 = 300;

/// How far a client has come in finding nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Every way of discovery has given its first answer.
    pub(super) settled: bool,
    /// Everything known at that time has been tried.
    pub(super) tried: bool,
    /// A number that changes whenever the directory may have.
    pub(super) changes: u64,
}

/// A request to one node.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) step: Step,
    pub(super) timeout_ms: u64,
    pub(super) started: Duration,
    /// Whether a node that says nothing for a while is silent, and not waiting for others.
    pub(super) expect_soon: bool,
}

/// An answer that a node owes. Dropped before it is settled, the node owes it no more: that nobody
/// waits for it says nothing of the node.
pub(super) struct Owed<'a> {
    engine: &'a Engine,
    node: Incarnation,
    since: Instant,
    is_open: bool,
}

impl Owed<'_> {
    /// The answer, or a failure, is there.
    pub(super) fn settle(&mut self) {
        self.is_open = false;
    }
}

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.engine.directory.lock().answer_abandoned(self.node, self.since);
        }
    }
}

/// Shared by a client's handles and its background task.
pub(super) struct Engine {
    pub(super) config: Config,
    pub(super) cluster: u64,
    pub(super) directory: Mutex<Directory>,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) counters: Counters,
    pub(super) timings: Timings,
    pub(super) progress: watch::Sender<Progress>,
    /// With the near cache.
    pub(super) face: Arc<Face>,
    own_writes: Mutex<OwnWrites>,
    /// The highest stamp of all versions that nodes told.
    seen: AtomicU64,
    /// When the last write was accepted, in milliseconds of the monotonic clock.
    last_write: AtomicU64,
    pub(super) home: Handle,
    started: Instant,
    pub(super) published: Published,
    /// None where reads are not hedged.
    pub(super) hedge: Option<Hedge>,
}

impl Engine {
    pub(super) fn new(
        config: Config,
        face: Arc<Face>,
        transport: Arc<dyn Transport>,
        home: Handle,
    ) -> Self {
        Self {
            cluster: cluster_id(&config.cluster),
            hedge: config.hedge.map(Hedge::new),
            published: Published::default(),
            directory: Mutex::new(Directory::new(config.region.clone())),
            config,
            face,
            transport,
            counters: Counters::default(),
            timings: Timings::default(),
            progress: watch::Sender::default(),
            own_writes: Mutex::default(),
            seen: AtomicU64::new(0),
            last_write: AtomicU64::new(0),
            home,
            started: clock::mono(),
        }
    }

    /// The highest stamp that this client knows of: its writes come after everything that it saw.
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// A node told a version.
    pub(super) fn note_seen(&self, version: Version) {
        if version.stamp() > self.seen() {
            self.seen.fetch_max(version.stamp(), Ordering::Relaxed);
        }
    }

    /// This client's last write of `key`, if that was a moment ago.
    pub(super) fn own_write(&self, key: &[u8], now: Instant) -> Option<OwnWrite> {
        // Who does not write need not look.
        let last = Instant::from_millis(self.last_write.load(Ordering::Relaxed));
        if now.since_ms(last) >= REMEMBERED_MS {
            return None;
        }
        self.own_writes.lock().last(KeyHash::of(key), now)
    }

    /// A node accepted a write of this client.
    pub(super) fn note_own_write(&self, key: &Key, write: OwnWrite, now: Instant) {
        self.last_write.store(now.as_millis(), Ordering::Relaxed);
        self.own_writes.lock().note(key.hash(), write, now);
    }

    /// Waits until a node in sync is known, preferably a local one.
    pub(super) async fn ready(&self, total_ms: u64) -> Result<(), Error> {
        let budget = Budget::new(clock::mono(), total_ms);
        let ready = |progress: &Progress| {
            let (directory, now) = (self.directory.lock(), clock::mono());
            directory.is_ready_locally(now) || (progress.tried && directory.is_ready(now))
        };
        if self.wait_until(budget, ready).await {
            return Ok(());
        }
        let timed_out = self.directory.lock().nodes().next().is_some();
        Err(Error::Unreachable { timed_out })
    }

    /// Waits at the start until a node in sync is known, or all that is known has been tried. For a
    /// moment only a node of the client's own region is good enough.
    pub(super) async fn some_node(&self, budget: Budget) {
        let local = |progress: &Progress| {
            progress.tried || self.directory.lock().is_ready_locally(clock::mono())
        };
        if local(&self.progress.borrow()) {
            return;
        }
        let now = clock::mono();
        let first_ms = LOCAL_FIRST_MS.saturating_sub(now.since_ms(self.started));
        if let Some(first_ms) = budget.clip(now, first_ms)
            && self.wait_until(Budget::new(now, first_ms), local).await
        {
            return;
        }
        let any =
            |progress: &Progress| progress.tried || self.directory.lock().is_ready(clock::mono());
        self.wait_until(budget, any).await;
    }

    /// Ends after this time; never if there is none.
    pub(super) fn timer(&self, time: Option<Duration>) -> impl Future<Output = ()> + use<> {
        let timer = time.map(|time| {
            // The caller's runtime, if it has one, need not keep time.
            let _home = self.home.enter();
            tokio::time::sleep(time)
        });
        async move {
            match timer {
                Some(timer) => timer.await,
                None => std::future::pending().await,
            }
        }
    }

    async fn wait_until(&self, budget: Budget, done: impl Fn(&Progress) -> bool) -> bool {
        let mut progress = self.progress.subscribe();
        let left = Duration::from_millis(budget.remaining_ms(clock::mono()));
        let waited = {
            // The caller's runtime, if it has one, need not keep time.
            let _home = self.home.enter();
            tokio::time::timeout(left, progress.wait_for(|progress| done(progress)))
        };
        waited.await.is_ok_and(|found| found.is_ok())
    }

    /// A request goes to a node now; one that says nothing for a while is silent if an answer is
    /// expected soon.
    pub(super) fn owed(&self, node: Incarnation, expect_soon: bool, since: Instant) -> Owed<'_> {
        let is_open = expect_soon && self.directory.lock().request_sent(node, since);
        Owed { engine: self, node, since, is_open }
    }

    /// Asks one node and notes what that says of it.
    pub(super) async fn ask(
        &self,
        attempt: &Attempt,
        request: Request,
        expect_soon: bool,
    ) -> Result<Response, CallFailure> {
        let Attempt { step, timeout_ms } = *attempt;
        let started = clock::elapsed();
        let mut owed = self.owed(step.node, expect_soon, clock::instant(started));
        let message = self.message(request, Some(step.node), timeout_ms);
        let timeout = Duration::from_millis(timeout_ms);
        let result = self.transport.call(step.address, message, timeout).await;
        owed.settle();
        self.note(&Asked { step, timeout_ms, started, expect_soon }, result)
    }

    /// Notes what the end of a request says of its node.
    pub(super) fn note(
        &self,
        asked: &Asked,
        result: Result<Response, CallFailure>,
    ) -> Result<Response, CallFailure> {
        let Asked { step, timeout_ms, started, expect_soon } = *asked;
        let now = clock::mono();
        match result {
            Ok(response) => {
                let elapsed_us = expect_soon.then(|| micros_since(started));
                let mut directory = self.directory.lock();
                let is_its = directory.record_response(step.node, &response, now, elapsed_us);
                drop(directory);
                if is_its {
                    return Ok(response);
                }
                self.counters.error(step.tier);
                Err(CallFailure::NotSent)
            }
            Err(failure) => {
                self.counters.error(step.tier);
                // A deadline shorter than the tier's own bound says little about the node.
                let patient = timeout_ms >= self.config.bounds.of(step.tier);
                let is_silent = failure == CallFailure::NoAnswer;
                if !is_silent || patient {
                    let mut directory = self.directory.lock();
                    if is_silent {
                        directory.request_timed_out(step.node, now);
                    } else {
                        directory.request_failed(step.node, now);
                    }
                    drop(directory);
                    tracing::debug!(node = %step.node, address = %step.address, ?failure, "a node fails");
                }
                Err(failure)
            }
        }
    }

    /// Sends a request on the fast path, if an open connection to its node has room for it.
    pub(super) fn send_now(
        &self,
        step: &Step,
        op: &FastOp<'_>,
        (now, timeout_ms): (Instant, u64),
        waker: &Waker,
    ) -> Option<Call> {
        self.transport.try_send_now(&FastRequest {
            node: step.node,
            address: step.address,
            message: op,
            repeatable: op.is_repeatable(),
            now,
            timeout_ms,
            waker,
        })
    }

    pub(super) fn message(
        &self,
        request: Request,
        to: Option<Incarnation>,
        timeout_ms: u64,
    ) -> RequestMessage {
        let envelope = Envelope {
            cluster: self.cluster,
            from: None,
            to,
            sent_ms: 0,
            timeout_ms,
            seen: self.seen(),
            delay_ms: 0,
        };
        RequestMessage { envelope, request }
    }

    /// Tells waiters that the directory may have changed.
    pub(super) fn changed(&self, update: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(|progress| {
            progress.changes = progress.changes.wrapping_add(1);
            update(progress);
        });
    }
}

/// What a client in `region` says of itself.
pub(super) fn hello(cluster: &str, region: &str) -> Hello {
    Hello {
        cluster: cluster.to_owned(),
        protocol: PROTOCOL,
        features: 0,
        entries: 0,
        session: None,
        auth: Bytes::new(),
        wall_ms: clock::now().wall_ms,
        node: None,
        region: region.to_owned(),
        members: Vec::new(),
    }
}

/// Whether the node that was meant no longer stands where it was asked.
pub(super) fn is_elsewhere(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::WrongNode | RefusalCode::WrongCluster)
}

pub(super) fn is_invalid(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::BadKey | RefusalCode::TooLarge | RefusalCode::BadMessage)
}

pub(super) fn micros_since(started: Duration) -> u64 {
    u64::try_from(clock::elapsed().saturating_sub(started).as_micros()).unwrap_or(u64::MAX)
}
