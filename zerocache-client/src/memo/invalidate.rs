//! Removal of a call's value.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::BoxFuture;
use super::call_target::CallTarget;
use super::flight;
use super::writing;
use crate::codec::CodecError;
use crate::error::Error;
use crate::{Ack, Written, wait};

/// The removal of a call's value; from [`Call::invalidate`](crate::memo::Call::invalidate).
#[must_use = "futures do nothing unless they are awaited"]
pub struct Invalidate {
    state: State,
    ack: Ack,
}

enum State {
    New(CallTarget),
    Running(BoxFuture<Result<Written, Error>>),
    Done,
}

impl Invalidate {
    pub(super) fn new(call: CallTarget) -> Self {
        Invalidate { state: State::New(call), ack: Ack::default() }
    }

    /// The nodes that must have removed the value before this completes; default the node that is asked.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// Removes the value and blocks the thread meanwhile; works inside and outside of any runtime.
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
        let mut removal = match mem::replace(&mut self.state, State::Done) {
            State::New(call) => {
                let client = call.client();
                let Some(key) = call.key(&client) else {
                    let message = "this call has no key".to_owned();
                    return Poll::Ready(Err(Error::from(CodecError::Encode(message))));
                };
                let group = client.memo_counters().flight_group();
                let writes = flight::invalidate(group, &key);
                let (owned, ack) = (client.clone(), self.ack);
                Box::pin(client.continue_in_background(async move {
                    writing::wait_for_writes(&owned, writes).await;
                    let removed = owned.raw_delete(key.clone()).ack(ack).await;
                    flight::close_after_delete(group, &key);
                    removed
                }))
            }
            State::Running(removal) => removal,
            // Polled again after its end, against the contract of futures.
            State::Done => return Poll::Pending,
        };
        let polled = removal.as_mut().poll(context);
        if polled.is_pending() {
            self.state = State::Running(removal);
        }
        polled
    }
}
