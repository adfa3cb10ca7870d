//! Collects the warnings of this process, and what it logs at INFO.

use std::fmt::Debug;
use std::sync::{Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// All warnings of this process: the client logs from threads of its own.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// All that this process has logged at INFO.
static NEWS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Collector;

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut Fields(&mut text));
        let list = if *event.metadata().level() <= Level::WARN { &WARNINGS } else { &NEWS };
        list.lock().expect("no panic").push(text);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Collects warnings from now on. All tests of one binary share them.
pub fn collect() {
    static COLLECTS: Once = Once::new();
    COLLECTS.call_once(|| {
        tracing::subscriber::set_global_default(Collector).expect("no other subscriber");
    });
}

/// Returns the collected warnings that contain `text`.
pub fn warnings(text: &str) -> Vec<String> {
    lines(&WARNINGS, text)
}

/// Returns what was collected at INFO and contains `text`.
#[allow(dead_code, reason = "not every binary needs it")]
pub fn news(text: &str) -> Vec<String> {
    lines(&NEWS, text)
}

fn lines(list: &Mutex<Vec<String>>, text: &str) -> Vec<String> {
    let list = list.lock().expect("no panic");
    list.iter().filter(|line| line.contains(text)).cloned().collect()
}
