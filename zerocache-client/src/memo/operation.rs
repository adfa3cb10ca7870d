//! What a call can do beside running: look, and invalidate.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use zerocache_net::clock;

use super::flight;
use super::rule::Policy;
use super::run::Entry;
use super::stored::{Base, Stored};
use super::writing;
use crate::codec::CodecError;
use crate::error::Error;
use crate::{Ack, Written, ZerocacheClient, wait};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Looks for a call's value; from [`Call::peek`](crate::memo::Call::peek).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Peek<T> {
    state: Peeking,
    policy: Policy<T>,
}

enum Peeking {
    New(Entry),
    /// Reads the call's own key.
    Base(Place, BoxFuture<Found>),
    /// Reads what stands beside an entry that cannot be read.
    Beside(Box<Base>, BoxFuture<Found>),
    Over,
}

/// Where a call's value is.
struct Place {
    client: ZerocacheClient,
    key: Bytes,
}

type Found = Result<Option<Stored>, Error>;

/// Reads a key.
fn find(client: &ZerocacheClient, key: &Bytes) -> BoxFuture<Found> {
    let read = client.raw_get(key.clone()).entry();
    Box::pin(async move { Ok(read.await?.map(|entry| Stored::read(entry, clock::mono()))) })
}

impl<T> Future for Peek<T> {
    type Output = Result<Option<T>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match mem::replace(&mut self.state, Peeking::Over) {
                Peeking::New(entry) => {
                    let client = entry.client();
                    let Some(key) = entry.key(&client) else {
                        return Poll::Ready(Ok(None));
                    };
                    let finding = find(&client, &key);
                    self.state = Peeking::Base(Place { client, key }, finding);
                }
                Peeking::Base(place, mut finding) => {
                    let Poll::Ready(found) = finding.as_mut().poll(context) else {
                        self.state = Peeking::Base(place, finding);
                        return Poll::Pending;
                    };
                    let Some(stored) = found? else { return Poll::Ready(Ok(None)) };
                    if let Ok(value) = stored.form.decode(&self.policy) {
                        return Poll::Ready(Ok(Some(value)));
                    }
                    let base = Base::new(&place.key, self.policy.shape(), stored);
                    let finding = find(&place.client, &base.key);
                    self.state = Peeking::Beside(base, finding);
                }
                Peeking::Beside(base, mut finding) => {
                    let Poll::Ready(found) = finding.as_mut().poll(context) else {
                        self.state = Peeking::Beside(base, finding);
                        return Poll::Pending;
                    };
                    let own = found?.filter(|stored| base.owns(stored));
                    // What does not decode is a miss, as it is for the call itself.
                    let value = own.and_then(|stored| stored.form.decode(&self.policy).ok());
                    return Poll::Ready(Ok(value));
                }
                // Polled again after its end, against the contract of futures.
                Peeking::Over => return Poll::Pending,
            }
        }
    }
}

impl<T> Peek<T> {
    pub(super) fn new(entry: Entry, policy: Policy<T>) -> Self {
        Peek { state: Peeking::New(entry), policy }
    }

    /// Looks now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    ///
    /// As awaiting it.
    pub fn wait(self) -> Result<Option<T>, Error> {
        wait::block_on(self)
    }
}

/// Removes a call's value; from [`Call::invalidate`](crate::memo::Call::invalidate).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Invalidate {
    state: State,
    ack: Ack,
}

enum State {
    New(Entry),
    Begun(BoxFuture<Result<Written, Error>>),
    Over,
}

impl Invalidate {
    pub(super) fn new(entry: Entry) -> Self {
        Invalidate { state: State::New(entry), ack: Ack::default() }
    }

    /// Who must have removed it before this is over; default the node that is told.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// Removes now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    ///
    /// As awaiting it.
    pub fn wait(self) -> Result<Written, Error> {
        wait::block_on(self)
    }
}

impl Future for Invalidate {
    type Output = Result<Written, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut removing = match mem::replace(&mut self.state, State::Over) {
            State::New(entry) => {
                let client = entry.client();
                let Some(key) = entry.key(&client) else {
                    let message = "this call has no key".to_owned();
                    return Poll::Ready(Err(Error::from(CodecError::Encode(message))));
                };
                let group = client.memo_counters().flight_group();
                let writes = flight::void(group, &key);
                let (inside, ack) = (client.clone(), self.ack);
                Box::pin(client.continue_in_background(async move {
                    writing::ended(&inside, writes).await;
                    let removed = inside.raw_delete(key.clone()).ack(ack).await;
                    flight::deleted(group, &key);
                    removed
                }))
            }
            State::Begun(removing) => removing,
            // Polled again after its end, against the contract of futures.
            State::Over => return Poll::Pending,
        };
        let polled = removing.as_mut().poll(context);
        if polled.is_pending() {
            self.state = State::Begun(removing);
        }
        polled
    }
}
