//! What is to be reported to one listener.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::Change;
use crate::Error;

/// The most changes that wait for a listener: at 64 bytes for each, a quarter of a megabyte.
pub(super) const QUEUED_MAX: usize = 4_096;

/// The queue of one listener.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    changes: VecDeque<Change>,
    /// None before it is known from when on changes are reported.
    begun: Option<Result<(), Error>>,
    waker: Option<Waker>,
}

impl Queue {
    /// Changes are reported from here on. Returns who waits for that.
    pub(super) fn begin(&self) -> Option<Waker> {
        self.decide(Ok(()))
    }

    /// No changes are reported. Returns who waits for them.
    pub(super) fn fail(&self, error: Error) -> Option<Waker> {
        self.decide(Err(error))
    }

    fn decide(&self, outcome: Result<(), Error>) -> Option<Waker> {
        let mut state = self.0.lock();
        if state.begun.is_some() {
            return None;
        }
        state.begun = Some(outcome);
        state.waker.take()
    }

    /// Adds a change, if they are reported. In a queue that is full, a gap stands for all that wait. Returns who is to
    /// be woken.
    pub(super) fn push(&self, change: Change) -> Option<Waker> {
        let mut state = self.0.lock();
        if !matches!(state.begun, Some(Ok(()))) {
            return None;
        }
        if state.changes.len() >= QUEUED_MAX {
            state.changes.clear();
            state.changes.push_back(Change::Gap);
        }
        if change != Change::Gap || state.changes.back() != Some(&Change::Gap) {
            state.changes.push_back(change);
        }
        state.waker.take()
    }

    /// Returns whether changes are reported from some time on, once that is known.
    pub(super) fn poll_begun(&self, context: &Context<'_>) -> Poll<Result<(), Error>> {
        let mut state = self.0.lock();
        match &state.begun {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Takes the next change.
    pub(super) fn poll_next(&self, context: &Context<'_>) -> Poll<Change> {
        let mut state = self.0.lock();
        match state.changes.pop_front() {
            Some(change) => {
                if state.changes.is_empty() {
                    // What a burst has taken.
                    state.changes.shrink_to(QUEUED_MAX / 64);
                }
                Poll::Ready(change)
            }
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
