//! What happened lately: a bounded list of events, for people who look at the node's page.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::Serialize;
use zerocache_core::time::Now;
use zerocache_net::clock;

/// The time for which an event is kept, in milliseconds.
const KEEP_MS: u64 = 10 * 60 * 1_000;
/// The most events kept: a change of all regions of a large cluster, and the list stays readable.
const EVENTS_MAX: usize = 200;
/// The longest text of an event, in characters.
const TEXT_CHARS_MAX: usize = 300;

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is well again, or as planned.
    Info,
    /// Somebody should look.
    Warn,
    /// Somebody must act.
    Error,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecentEvent {
    /// When it happened last, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How often it happened in a row.
    pub count: u32,
    /// How bad it is.
    pub severity: Severity,
    /// What happened, in plain text. It may include text of a peer.
    pub text: String,
    /// The same moment on the monotonic clock.
    #[serde(skip)]
    mono_ms: u64,
}

/// The events of the last ten minutes, at most 200. Shared by reference.
#[derive(Debug, Default)]
pub struct RecentEvents(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The oldest first.
    events: VecDeque<RecentEvent>,
    changes: u64,
}

impl RecentEvents {
    /// Adds an event that happens now.
    pub fn record(&self, severity: Severity, text: &str) {
        self.0.lock().record(clock::now(), severity, text);
    }

    /// Returns the events, the oldest first, and a number that is another one whenever they are.
    #[must_use]
    pub fn list(&self) -> (u64, Vec<RecentEvent>) {
        let mut inner = self.0.lock();
        inner.forget(clock::now());
        (inner.changes, inner.events.iter().cloned().collect())
    }
}

impl Inner {
    fn record(&mut self, now: Now, severity: Severity, text: &str) {
        self.forget(now);
        self.changes += 1;
        let (at_ms, mono_ms) = (now.wall_ms, now.mono.as_millis());
        let text = plain(text, TEXT_CHARS_MAX);
        if let Some(last) = self.events.back_mut()
            && (last.severity, &last.text) == (severity, &text)
        {
            (last.at_ms, last.mono_ms) = (at_ms, mono_ms);
            last.count = last.count.saturating_add(1);
            return;
        }
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(RecentEvent { at_ms, count: 1, severity, text, mono_ms });
    }

    fn forget(&mut self, now: Now) {
        let now_ms = now.mono.as_millis();
        while let Some(oldest) = self.events.front()
            && now_ms.saturating_sub(oldest.mono_ms) > KEEP_MS
        {
            self.events.pop_front();
            self.changes += 1;
        }
    }
}

/// Returns the first characters of a text of others, without those that control a terminal.
pub(super) fn plain(text: &str, chars_max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use zerocache_core::time::Instant;

    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono: Instant::from_millis(ms), wall_ms: 1_000_000 + ms }
    }

    #[test]
    fn events_are_forgotten_after_ten_minutes() {
        let mut inner = Inner::default();
        inner.record(at(0), Severity::Warn, "a");
        inner.record(at(1_000), Severity::Info, "b");
        let changes = inner.changes;
        inner.forget(at(KEEP_MS));
        assert_eq!((inner.events.len(), inner.changes), (2, changes));
        inner.forget(at(KEEP_MS + 1));
        let texts: Vec<_> = inner.events.iter().map(|event| event.text.as_str()).collect();
        assert_eq!(texts, ["b"]);
        assert_ne!(inner.changes, changes);
    }

    #[test]
    fn list_and_texts_are_bounded() {
        let mut inner = Inner::default();
        for n in 0..EVENTS_MAX + 5 {
            inner.record(at(n as u64), Severity::Info, &n.to_string());
        }
        assert_eq!(inner.events.len(), EVENTS_MAX);
        assert_eq!(inner.events[0].text, "5");
        inner.record(at(1_000), Severity::Error, &"x\n".repeat(TEXT_CHARS_MAX + 1));
        let last = inner.events.back().expect("an event");
        assert_eq!(last.text, "x".repeat(TEXT_CHARS_MAX));
    }

    #[test]
    fn same_event_in_a_row_is_counted() {
        let mut inner = Inner::default();
        inner.record(at(0), Severity::Warn, "a");
        inner.record(at(10), Severity::Warn, "a");
        inner.record(at(20), Severity::Info, "a");
        let counts: Vec<_> = inner.events.iter().map(|event| (event.at_ms, event.count)).collect();
        assert_eq!(counts, [(1_000_010, 2), (1_000_020, 1)]);
    }
}
