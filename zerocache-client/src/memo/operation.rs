//! What a call can do beside running: look, and invalidate.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::flight;
use super::rule::Policy;
use super::run::Entry;
use super::stored::Form;
use super::writing;
use crate::codec::CodecError;
use crate::error::Error;
use crate::{Ack, Written, wait};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Looks for a call's value; from [`Call::peek`](crate::Call::peek).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Peek<T> {
    pub(crate) find: BoxFuture<Result<Option<Form>, Error>>,
    pub(crate) policy: Policy<T>,
}

impl<T> Future for Peek<T> {
    type Output = Result<Option<T>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let found = ready!(self.find.as_mut().poll(context));
        // What does not decode is a miss, as it is for the call itself.
        Poll::Ready(found.map(|form| form.and_then(|form| form.decode(&self.policy).ok())))
    }
}

impl<T> Peek<T> {
    /// Looks now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    ///
    /// As awaiting it.
    pub fn wait(self) -> Result<Option<T>, Error> {
        wait::block_on(self)
    }
}

/// Removes a call's value; from [`Call::invalidate`](crate::Call::invalidate).
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
                Box::pin(client.through(async move {
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
