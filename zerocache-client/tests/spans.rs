//! What tracing sees of a computation: the function's name, and nothing of its arguments.

#![cfg(feature = "macros")]

mod support;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use support::{bounded, other};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use zerocache_client::{ZerocacheClient, zerocache};

/// Writes down the spans of computations.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == "zerocache_compute"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        assert_eq!(*span.metadata().level(), Level::DEBUG);
        let mut text = span.metadata().name().to_owned();
        span.record(&mut Fields(&mut text));
        let mut spans = self.0.lock().expect("no panic");
        spans.push(text);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[zerocache(cache, 60, skip(cache))]
async fn traced(cache: &ZerocacheClient, secret: u64) -> u64 {
    tokio::task::yield_now().await;
    secret
}

#[tokio::test]
async fn computation_has_a_span_with_the_functions_name() {
    bounded(async {
        let spans = Spans::default();
        let _here = tracing::subscriber::set_default(spans.clone());
        let cache = other("spans");
        for _ in 0..2 {
            assert_eq!(traced(&cache, 4711).await, 4711);
        }
        let given = cache.get_or_compute("4711", 60, async || Ok::<_, ()>(1));
        assert_eq!(given.await, Ok(1));
        let spans = spans.0.lock().expect("no panic");
        let named = |function| format!("zerocache_compute function=\"{function}\"");
        assert_eq!(*spans, [named("traced"), named("get_or_compute")]);
    })
    .await;
}
