//! What the leader of a key tells its followers.

use std::future::{self, Future};
use std::mem;
use std::time::Duration;

use tokio::sync::watch;
use zerocache_core::time::Instant;
use zerocache_net::clock;

use super::{FlightState, Invalidation, Leader, Progress, UnsharedComputation, shard};
use crate::memo::stored::Payload;

impl Leader {
    /// Creates a leader that reads the cache.
    pub(super) fn new(
        computation: UnsharedComputation,
        number: u64,
        blocking: bool,
        state: watch::Sender<FlightState>,
    ) -> Self {
        let (looking_up, queued, has_published) = (true, false, false);
        let waited = Duration::ZERO;
        Leader { computation, number, blocking, looking_up, queued, has_published, waited, state }
    }

    /// Notes how long the caller waited for other leaders before.
    pub(crate) fn after_wait(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// Returns how long the caller waited for other leaders before.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    /// Publishes progress to the followers, unless another leader has published a final one.
    pub(crate) fn publish(&mut self, progress: Progress) {
        self.set_progress(progress, None);
    }

    /// Publishes a value that is going to be stored, with its fresh time.
    pub(crate) fn publish_fresh(&mut self, payload: Payload, fresh: Duration) {
        let fresh_ms = u64::try_from(fresh.as_millis()).unwrap_or(u64::MAX);
        self.set_progress(Progress::Value(payload), Some(clock::mono().plus_ms(fresh_ms)));
    }

    fn set_progress(&mut self, mut progress: Progress, until: Option<Instant>) {
        let is_final = progress.is_final();
        let is_set = self.state.send_if_modified(|state| {
            let is_open = !state.progress.is_final();
            if is_open {
                // The previous progress, or the rejected one, is dropped outside of the lock: it may hold
                // an error, whose `drop` is the user's code.
                mem::swap(&mut state.progress, &mut progress);
                state.until = until;
            }
            is_open
        });
        self.has_published |= is_set && is_final;
    }

    /// Notes that this leader found nothing in the cache that it could publish: it computes.
    pub(crate) fn lookup_missed(&mut self) {
        if mem::take(&mut self.looking_up) {
            self.state.send_if_modified(|state| {
                state.looking_up -= 1;
                // Nobody waits for this change.
                false
            });
        }
    }

    /// Notes that this leader waits for its turn to run the function.
    pub(crate) fn enter_queue(&mut self) {
        if !mem::replace(&mut self.queued, true) {
            // Followers inside of a run, whose end the leader may need, stop waiting.
            self.state.send_modify(|state| state.queued += 1);
        }
    }

    /// Notes that this leader waits for its turn no longer.
    pub(crate) fn leave_queue(&mut self) {
        if mem::take(&mut self.queued) {
            self.state.send_if_modified(|state| {
                state.queued -= 1;
                // Nobody waits for this change.
                false
            });
        }
    }

    /// Waits until another leader has published a value.
    pub(crate) fn superseded(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut state = self.state.subscribe();
        async move {
            let has_value = |state: &FlightState| matches!(state.progress, Progress::Value(_));
            if state.wait_for(has_value).await.is_err() {
                // This leader is gone too.
                future::pending::<()>().await;
            }
        }
    }

    /// Returns the value that another leader has published, while new callers may use it.
    pub(crate) fn superseding_value(&self) -> Option<Payload> {
        let state = self.state.borrow();
        match &state.progress {
            Progress::Value(payload) if !self.has_published && state.is_open() => {
                Some(payload.clone())
            }
            _ => None,
        }
    }

    /// Returns true if followers have the value of another leader.
    pub(crate) fn is_superseded(&self) -> bool {
        !self.has_published && matches!(self.state.borrow().progress, Progress::Value(_))
    }

    pub(crate) fn invalidation(&self) -> &Invalidation {
        self.computation.invalidation()
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let UnsharedComputation { flight_key, .. } = &self.computation;
        let mut shard = shard(flight_key).lock();
        let has_published = self.has_published;
        let removed = shard.get_mut(flight_key).and_then(|state| {
            // After an invalidation the flight is gone, or another one.
            let flight = state.flight.as_mut().filter(|flight| flight.number == self.number)?;
            flight.leaders -= 1;
            // What this leader published is in the cache now, or nowhere.
            if has_published || flight.leaders == 0 { state.flight.take() } else { None }
        });
        drop(shard);
        self.lookup_missed();
        self.leave_queue();
        if self.blocking {
            self.state.send_if_modified(|state| {
                state.blocking -= 1;
                state.blocking == 0
            });
        }
        // The last sender is dropped after the table's entry: a follower that wakes up can lead.
        drop(removed);
    }
}
