//! Makes what all viewers see: one message a second, while there is one.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval},
};
use zerocache_core::time::Instant;
use zerocache_net::clock;

use super::frame::{self, Point, Reading};
use crate::api::Api;

/// The time between two messages.
const EVERY: Duration = Duration::from_secs(1);
/// The most viewers: each has a connection, and is written to every second.
pub(super) const VIEWERS_MAX: usize = 64;
/// The points of the graphs that are kept: those of 5 minutes.
const POINTS_MAX: usize = 300;
/// A message that is older than this says nothing about now, in milliseconds.
const FRESH_MS: u64 = 2_000;

/// What viewers are sent. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    /// The status as JSON.
    pub(super) status: Arc<str>,
    /// The events as JSON.
    pub(super) events: Arc<str>,
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
    viewers: Arc<AtomicUsize>,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    points: VecDeque<Point>,
    last: Option<Reading>,
}

/// The seat of one viewer; dropping it leaves it to another one.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) frames: watch::Receiver<Frame>,
    pub(super) closing: watch::Receiver<bool>,
    viewers: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            frames: watch::Sender::default(),
            closing: watch::Sender::default(),
            wanted: Notify::new(),
            viewers: Arc::default(),
            history: Mutex::default(),
        }
    }
}

impl Feed {
    /// Takes a seat. None if all are taken, or the node is closing.
    pub(super) fn subscribe(&self) -> Option<Seat> {
        let closing = self.closing.subscribe();
        if *closing.borrow() {
            return None;
        }
        let below = |count: usize| (count < VIEWERS_MAX).then_some(count + 1);
        self.viewers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below).ok()?;
        let mut seat =
            Seat { frames: self.frames.subscribe(), closing, viewers: Arc::clone(&self.viewers) };
        let made = seat.frames.borrow().made;
        if made.is_some_and(|made| clock::mono().since_ms(made) < FRESH_MS) {
            seat.frames.mark_changed();
        }
        self.wanted.notify_one();
        Some(seat)
    }

    /// Returns the points of the last 5 minutes in which somebody watched, as JSON. `session`: the viewer has
    /// logged in.
    pub(super) fn history(&self, session: bool) -> String {
        let history = self.history.lock();
        frame::to_json(&serde_json::json!({ "session": session, "points": &history.points }))
    }

    /// Ends all streams, and begins none from now on.
    pub(super) fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Makes messages while somebody watches. Ends only when dropped.
    pub(super) async fn run(&self, api: &Api) {
        let mut state = api.driver.watch_state();
        loop {
            self.wanted.notified().await;
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while self.viewers.load(Ordering::Relaxed) > 0 {
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
        let (view, reading) = frame::measure(api);
        let now = clock::now();
        let point = {
            let mut history = self.history.lock();
            let point = Point::between(history.last.replace(reading), reading, now);
            if history.points.len() == POINTS_MAX {
                history.points.pop_front();
            }
            let oldest_ms = now.wall_ms.saturating_sub(POINTS_MAX as u64 * 1_000);
            history.points.retain(|point| point.at_ms >= oldest_ms);
            history.points.push_back(point);
            point
        };
        let (events_change, events) = api.driver.recent_events().list();
        let status = frame::to_json(&view.with_point(now, point)).into();
        let events = frame::to_json(&events).into();
        let made = Some(now.mono);
        self.frames.send_replace(Frame { status, events, events_change, made });
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
