//! A computed value on its way into the cache.
//!
//! The write goes over connections and timers of the client's own runtime, which sees to its end: it takes as
//! long as writes may take, also where the caller who computed goes away, or its thread is asleep.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{Shared, join_all};
use tokio::runtime::Handle;

use super::flight::{self, Lead, Void};
use super::lease::Token;
use super::operation::BoxFuture;
use crate::client::Write;
use crate::counters::count;
use crate::error::Error;
use crate::{Status, Written, ZerocacheClient};

/// What became of a write; none if it was not sent, because the key was replaced before.
pub(super) type Outcome = Option<Result<Written, Error>>;

/// A write under way.
pub(crate) type Writing = Shared<AtHome<Outcome>>;

/// The clocks of nodes differ by no more; contract section 3.
const CLOCKS_APART: Duration = Duration::from_secs(1);

/// Work that is polled inside of the client's own runtime, wherever its caller is.
pub(crate) struct AtHome<T> {
    home: Handle,
    work: BoxFuture<T>,
}

impl<T> Future for AtHome<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Self { home, work } = &mut *self;
        let _home = home.enter();
        work.as_mut().poll(context)
    }
}

/// The caller's share in a write. It begins in the caller's poll, which packs the value and sends it; the
/// client sees to the rest.
struct Caller {
    home: Handle,
    writing: Writing,
    is_shared: bool,
}

impl Future for Caller {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let polled = self.writing.poll_unpin(context);
        if polled.is_pending() && !self.is_shared {
            // Others go by what is being written, for no longer than that takes: a caller who stands
            // still, or goes away, must not hold it up.
            self.is_shared = true;
            self.home.spawn(self.writing.clone());
        }
        polled
    }
}

/// What a value is stored with.
pub(super) struct Right {
    pub(super) void: Void,
    /// Kept until it is stored, so that nobody computes in between.
    pub(super) lead: Option<Lead>,
    /// Leave from a node. What is written with it loses against a delete whichever comes first.
    pub(super) token: Option<Token>,
    /// It is stored beside a base entry of another shape.
    pub(super) is_beside: bool,
}

/// Stores what was computed, unless that is void.
pub(super) fn store(
    client: &ZerocacheClient,
    key: &Bytes,
    put: Write,
    right: Right,
) -> Option<BoxFuture<Outcome>> {
    let Right { void, lead, token, is_beside } = right;
    let inside = client.clone();
    let Some(home) = client.runtime() else {
        return Some(Box::pin(async move { Some(counted(&inside, put.await, is_beside)) }));
    };
    let at_home = |work| AtHome { home: home.clone(), work }.shared();
    let writing = match token {
        _ if void.is_set() => return None,
        Some(token) => {
            let (put, spent) = token.write(put);
            at_home(Box::pin(async move {
                let written = counted(&inside, put.await, is_beside);
                spent.written(&written);
                drop(lead);
                Some(written)
            }))
        }
        None => {
            let group = client.memo_counters().flight_group();
            flight::write(group, key, &void, |noted, sent| {
                at_home(Box::pin(async move {
                    ended(&inside, sent).await;
                    // Nothing of it was sent yet.
                    let is_void = noted.void().is_set();
                    let outcome =
                        if is_void { None } else { Some(counted(&inside, put.await, is_beside)) };
                    drop((noted, lead));
                    outcome
                }))
            })?
        }
    };
    Some(Box::pin(Caller { home, writing, is_shared: false }))
}

fn counted(
    client: &ZerocacheClient,
    written: Result<Written, Error>,
    is_beside: bool,
) -> Result<Written, Error> {
    let counters = client.memo_counters();
    match &written {
        Ok(Written { status: Status::Stored | Status::Superseded, .. }) => {
            count(&counters.stored);
            if is_beside {
                count(&counters.stored_beside);
            }
        }
        Ok(Written { status, .. }) => {
            count(&counters.write_errors);
            tracing::debug!(status = status.as_str(), "a memoized value was not stored");
        }
        Err(error) => {
            count(&counters.write_errors);
            tracing::debug!(%error, "storing a memoized value failed");
        }
    }
    written
}

/// Waits until writes have ended: what this client writes next is newer, on whichever node.
pub(super) async fn ended(client: &ZerocacheClient, writes: Vec<Writing>) {
    let mut is_unknown = false;
    for written in join_all(writes).await.into_iter().flatten().flatten() {
        if let Some(version) = written.version {
            client.note_seen(version);
        }
        is_unknown |= written.status == Status::Unknown;
    }
    if is_unknown {
        // A node may have stored it in its time, and nobody knows with which version.
        client.sleep(CLOCKS_APART).await;
    }
}
