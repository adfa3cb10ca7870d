//! Makes what all viewers see: one message a second, while there is one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{MissedTickBehavior, interval},
};
use zerocache_core::time::Instant;
use zerocache_net::clock;

use super::frame::{self, Point, Reading, View};
use crate::api::{Api, hot_keys::HotKeysBody, stats};

/// The time between two messages.
const EVERY: Duration = Duration::from_secs(1);
/// The most viewers: each has a connection, and is written to every second.
pub(super) const VIEWERS_MAX: usize = 64;
/// The points of the graphs that are kept: those of 5 minutes.
const POINTS_MAX: usize = 300;
/// The most hot keys that are shown.
const HOT_KEYS_MAX: usize = 20;
/// A message that is older than this says nothing about now, in milliseconds.
const FRESH_MS: u64 = 2_000;

/// What viewers are sent. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    /// The status as JSON.
    pub(super) status: Arc<str>,
    /// The events as JSON.
    pub(super) events: Arc<str>,
    /// The keys that are read most as JSON: hashes alone, and with names if the node keeps them.
    pub(super) hot_keys: [Arc<str>; 2],
    /// Another number with other events.
    pub(super) events_change: u64,
    /// When it was made.
    made: Option<Instant>,
}

/// The feed of a node. Shared by reference.
#[derive(Debug)]
pub(super) struct Feed {
    frames: watch::Sender<Frame>,
    closing: watch::Sender<bool>,
    wanted: Notify,
    seats: Arc<Semaphore>,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    points: VecDeque<Point>,
    last: Option<Reading>,
}

impl History {
    /// Adds what was read now. Returns its point.
    fn add(&mut self, reading: Reading) -> Point {
        let point = Point::between(self.last.as_ref(), &reading);
        self.last = Some(reading);
        if self.points.len() == POINTS_MAX {
            self.points.pop_front();
        }
        let oldest_ms = point.at_ms.saturating_sub(POINTS_MAX as u64 * 1_000);
        self.points.retain(|point| point.at_ms >= oldest_ms);
        self.points.push_back(point);
        point
    }
}

/// The seat of one viewer; dropping it leaves it to another one.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) frames: watch::Receiver<Frame>,
    pub(super) closing: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            frames: watch::Sender::default(),
            closing: watch::Sender::default(),
            wanted: Notify::new(),
            seats: Arc::new(Semaphore::new(VIEWERS_MAX)),
            history: Mutex::default(),
        }
    }
}

impl Feed {
    /// Takes a seat. None if all are taken, or the node is closing.
    pub(super) fn subscribe(&self) -> Option<Seat> {
        let permit = Arc::clone(&self.seats).try_acquire_owned().ok()?;
        let (mut frames, closing) = (self.frames.subscribe(), self.closing.subscribe());
        let made = frames.borrow().made;
        if made.is_some_and(|made| clock::mono().since_ms(made) < FRESH_MS) {
            frames.mark_changed();
        }
        self.wanted.notify_one();
        Some(Seat { frames, closing, _permit: permit })
    }

    /// Returns the points of the last 5 minutes in which somebody watched, as JSON. `session`: the viewer has
    /// logged in.
    pub(super) fn history(&self, session: bool) -> String {
        let history = self.history.lock();
        frame::to_json(&serde_json::json!({ "session": session, "points": &history.points }))
    }

    /// Ends all streams, and begins none from now on.
    pub(super) fn close(&self) {
        self.seats.close();
        self.closing.send_replace(true);
    }

    /// Makes messages while somebody watches. Ends only when dropped.
    pub(super) async fn run(&self, api: &Api) {
        let mut state = api.driver.watch_state();
        loop {
            self.wanted.notified().await;
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.frames.receiver_count() > 0 {
                tokio::select! {
                    _ = ticks.tick() => {}
                    // That the node is shutting down is shown at once: there may be no next time.
                    Ok(()) = state.changed() => {}
                }
                self.make(api);
            }
        }
    }

    /// Makes one message.
    fn make(&self, api: &Api) {
        let (sample, now) = (stats::sample(api), clock::now());
        let point = self.history.lock().add(Reading::of(&sample, now));
        let (events_change, events) = api.driver.recent_events().list();
        let status = frame::to_json(&View::new(api, sample, point)).into();
        let events = frame::to_json(&events).into();
        let hot_keys = [false, true].map(|shows_names| {
            frame::to_json(&HotKeysBody::new(api, HOT_KEYS_MAX, shows_names)).into()
        });
        let made = Some(now.mono);
        self.frames.send_replace(Frame { status, events, hot_keys, events_change, made });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_and_given_back() {
        let feed = Feed::default();
        let mut seats: Vec<_> = (0..VIEWERS_MAX).map_while(|_| feed.subscribe()).collect();
        assert_eq!(seats.len(), VIEWERS_MAX);
        assert!(feed.subscribe().is_none());
        drop(seats.pop());
        assert!(feed.subscribe().is_some());
        feed.close();
        seats.clear();
        assert!(feed.subscribe().is_none());
    }
}
