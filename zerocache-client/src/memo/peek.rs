//! Reads of a call's value that never compute it.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use zerocache_net::clock;

use super::BoxFuture;
use super::call_target::CallTarget;
use super::rule::Policy;
use super::stored::{BaseEntry, StoredEntry};
use crate::error::Error;
use crate::{ZerocacheClient, wait};

/// A read of a call's value, which does not compute it; from [`Call::peek`](crate::memo::Call::peek).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Peek<T> {
    state: State,
    policy: Policy<T>,
}

enum State {
    New(CallTarget),
    /// Reads the call's own key.
    Base {
        client: ZerocacheClient,
        key: Bytes,
        read: BoxFuture<ReadResult>,
    },
    /// Reads the shape entry, because the function cannot decode the base entry.
    ShapeEntry {
        base: Box<BaseEntry>,
        read: BoxFuture<ReadResult>,
    },
    Done,
}

type ReadResult = Result<Option<StoredEntry>, Error>;

fn read(client: &ZerocacheClient, key: &Bytes) -> BoxFuture<ReadResult> {
    let read = client.raw_get(key.clone()).entry();
    Box::pin(async move { Ok(read.await?.map(|entry| StoredEntry::read(entry, clock::mono()))) })
}

impl<T> Future for Peek<T> {
    type Output = Result<Option<T>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match mem::replace(&mut self.state, State::Done) {
                State::New(call) => {
                    let client = call.client();
                    let Some(key) = call.key(&client) else {
                        return Poll::Ready(Ok(None));
                    };
                    let read = read(&client, &key);
                    self.state = State::Base { client, key, read };
                }
                State::Base { client, key, read: mut pending } => {
                    let Poll::Ready(result) = pending.as_mut().poll(context) else {
                        self.state = State::Base { client, key, read: pending };
                        return Poll::Pending;
                    };
                    let Some(entry) = result? else { return Poll::Ready(Ok(None)) };
                    if let Ok(value) = entry.payload.decode(&self.policy) {
                        return Poll::Ready(Ok(Some(value)));
                    }
                    let base = BaseEntry::new(&key, self.policy.shape(), entry);
                    let read = read(&client, &base.shape_key);
                    self.state = State::ShapeEntry { base, read };
                }
                State::ShapeEntry { base, read: mut pending } => {
                    let Poll::Ready(result) = pending.as_mut().poll(context) else {
                        self.state = State::ShapeEntry { base, read: pending };
                        return Poll::Pending;
                    };
                    let own = result?.filter(|entry| base.owns(entry));
                    // An entry that does not decode is a miss, as it is for the call itself.
                    let value = own.and_then(|entry| entry.payload.decode(&self.policy).ok());
                    return Poll::Ready(Ok(value));
                }
                // Polled again after its end, against the contract of futures.
                State::Done => return Poll::Pending,
            }
        }
    }
}

impl<T> Peek<T> {
    pub(super) fn new(call: CallTarget, policy: Policy<T>) -> Self {
        Peek { state: State::New(call), policy }
    }

    /// Reads the value and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    ///
    /// As awaiting it.
    pub fn wait(self) -> Result<Option<T>, Error> {
        wait::block_on(self)
    }
}
