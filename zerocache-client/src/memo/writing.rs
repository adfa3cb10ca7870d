//! Writes of computed values.
//!
//! A write uses connections and timers of the client's own runtime, which completes it: it takes as long as
//! writes may take, also if the caller that computed goes away, or its thread is blocked.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Shared, join_all};
use tokio::runtime::Handle;

use super::BoxFuture;
use super::flight::{self, Invalidation, Leader, UnsharedComputation};
use super::lease::LeaseGrant;
use crate::client::{ComputedPut, Write};
use crate::counters::count;
use crate::error::Error;
use crate::{Status, Written, ZerocacheClient};

/// The outcome of a write; `None` if it was not sent, because the key was replaced before.
pub(super) type WriteOutcome = Option<Result<Written, Error>>;

/// A pending write that several callers can wait for.
pub(crate) type SharedWrite = Shared<OnClientRuntime<WriteOutcome>>;

/// The largest difference of the nodes' clocks; contract section 3.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(1);

/// Work that is polled inside of the client's own runtime, wherever its caller is.
pub(crate) struct OnClientRuntime<T> {
    pub(super) runtime: Handle,
    pub(super) work: BoxFuture<T>,
}

impl<T> Future for OnClientRuntime<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Self { runtime, work } = &mut *self;
        let _entered = runtime.enter();
        work.as_mut().poll(context)
    }
}

/// A write as its caller polls it. The caller's first poll compresses the value and sends it; the client's
/// runtime completes the write.
struct CallerWrite {
    runtime: Handle,
    write: SharedWrite,
    is_spawned: bool,
}

impl Future for CallerWrite {
    type Output = WriteOutcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<WriteOutcome> {
        let polled = self.write.poll_unpin(context);
        if polled.is_pending() && !self.is_spawned {
            // Others depend on the pending write: a caller that is not polled, or goes away, must not
            // delay it.
            self.is_spawned = true;
            self.runtime.spawn(self.write.clone());
        }
        polled
    }
}

/// The conditions under which a value is stored.
pub(super) struct WriteContext {
    pub(super) invalidation: Invalidation,
    /// Held until the value is stored, so that nobody computes in between.
    pub(super) leader: Option<Leader>,
    /// A lease. A value that is written with it loses against a delete, whichever comes first.
    pub(super) grant: Option<LeaseGrant>,
    /// The value is stored as a shape entry.
    pub(super) is_shape_entry: bool,
}

/// A computed value that has been published, and is left to be written.
pub(super) struct ReadyWrite {
    pub(super) put: ComputedPut,
    pub(super) context: WriteContext,
    /// The place of an unshared computation in the table, until the write is there.
    pub(super) unshared: Option<UnsharedComputation>,
    /// Followers have the value of another leader, which is newer.
    pub(super) is_superseded: bool,
}

/// Stores a computed value, unless the key was invalidated since the computation began.
pub(super) fn store(
    client: &ZerocacheClient,
    key: &Bytes,
    put: Write,
    context: WriteContext,
) -> Option<BoxFuture<WriteOutcome>> {
    let WriteContext { invalidation, leader, grant, is_shape_entry } = context;
    let owned = client.clone();
    let Some(runtime) = client.runtime() else {
        return Some(Box::pin(
            async move { Some(count_outcome(&owned, put.await, is_shape_entry)) },
        ));
    };
    let on_runtime = |work| OnClientRuntime { runtime: runtime.clone(), work }.shared();
    let write = match grant {
        _ if invalidation.is_set() => return None,
        Some(grant) => {
            let (put, spent) = grant.write(put);
            on_runtime(Box::pin(async move {
                let written = count_outcome(&owned, put.await, is_shape_entry);
                spent.complete(&written);
                drop(leader);
                Some(written)
            }))
        }
        None => {
            let group = client.memo_counters().flight_group();
            flight::begin_write(group, key, &invalidation, |pending, sent| {
                on_runtime(Box::pin(async move {
                    wait_for_writes(&owned, sent).await;
                    // Nothing of this write was sent yet.
                    let outcome = if pending.invalidation().is_set() {
                        None
                    } else {
                        Some(count_outcome(&owned, put.await, is_shape_entry))
                    };
                    drop((pending, leader));
                    outcome
                }))
            })?
        }
    };
    Some(Box::pin(CallerWrite { runtime, write, is_spawned: false }))
}

pub(super) fn count_outcome(
    client: &ZerocacheClient,
    written: Result<Written, Error>,
    is_shape_entry: bool,
) -> Result<Written, Error> {
    let counters = client.memo_counters();
    match &written {
        Ok(Written { status: Status::Stored | Status::Superseded, .. }) => {
            count(&counters.stored);
            if is_shape_entry {
                count(&counters.shape_entries_stored);
            }
        }
        Ok(Written { status, .. }) => {
            count(&counters.write_errors);
            tracing::debug!(status = status.as_str(), "a memoized value was not stored");
        }
        Err(error) => {
            counters.count_error(&counters.write_errors, error);
            tracing::debug!(%error, "cannot store a memoized value");
        }
    }
    written
}

/// Waits until pending writes have completed: what this client writes afterwards is newer, on every node.
pub(super) async fn wait_for_writes(client: &ZerocacheClient, writes: Vec<SharedWrite>) {
    let mut is_unknown = false;
    for written in join_all(writes).await.into_iter().flatten().flatten() {
        if let Some(version) = written.version {
            client.note_seen(version);
        }
        is_unknown |= written.status == Status::Unknown;
    }
    if is_unknown {
        // A node may have stored the value with a version of its own clock, which nobody knows.
        client.sleep(CLOCK_DIFFERENCE_MAX).await;
    }
}
