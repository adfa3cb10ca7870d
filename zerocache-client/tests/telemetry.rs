//! What monitoring sees: counts through the `metrics` facade, spans through `tracing`.

#![cfg(feature = "macros")]

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Recorder, SharedString, Unit};
use support::{bounded, builder, current_thread};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use zerocache_client::{ZerocacheClient, zerocache};
use zerocache_server::EmbeddedNode;

/// Keeps what is published, by name and labels.
#[derive(Clone, Default)]
struct Recorded {
    counters: Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>,
    gauges: Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>,
    histograms: Arc<Mutex<BTreeMap<String, Arc<Times>>>>,
}

/// How many times there were.
#[derive(Default)]
struct Times(AtomicU64);

impl metrics::HistogramFn for Times {
    fn record(&self, seconds: f64) {
        assert!((0.0..60.0).contains(&seconds), "{seconds}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn of<T: Default>(map: &Mutex<BTreeMap<String, Arc<T>>>, key: &Key) -> Arc<T> {
    let labels = key.labels().map(|label| format!("{}={}", label.key(), label.value()));
    let name: Vec<_> = [key.name().to_owned()].into_iter().chain(labels).collect();
    Arc::clone(map.lock().expect("nobody panics").entry(name.join(" ")).or_default())
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &metrics::Metadata<'_>) -> Counter {
        Counter::from_arc(of(&self.counters, key))
    }

    fn register_gauge(&self, key: &Key, _: &metrics::Metadata<'_>) -> Gauge {
        Gauge::from_arc(of(&self.gauges, key))
    }

    fn register_histogram(&self, key: &Key, _: &metrics::Metadata<'_>) -> Histogram {
        Histogram::from_arc(of(&self.histograms, key))
    }
}

impl Recorded {
    fn count(&self, name: &str) -> u64 {
        let counters = self.counters.lock().expect("nobody panics");
        counters.get(name).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn gauge(&self, name: &str) -> f64 {
        let gauges = self.gauges.lock().expect("nobody panics");
        gauges.get(name).map_or(0.0, |bits| f64::from_bits(bits.load(Ordering::Relaxed)))
    }

    fn times(&self, name: &str) -> u64 {
        let histograms = self.histograms.lock().expect("nobody panics");
        histograms.get(name).map_or(0, |times| times.0.load(Ordering::Relaxed))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.counters.lock().expect("fine").keys().cloned().collect();
        names.extend(self.gauges.lock().expect("fine").keys().cloned());
        names.extend(self.histograms.lock().expect("fine").keys().cloned());
        names
    }
}

#[zerocache(cache, 60, skip(cache))]
async fn doubled(cache: &ZerocacheClient, n: u64) -> u64 {
    2 * n
}

/// What `tracing` remembers of a place in the source holds for all threads, and is wrong for a thread with a
/// subscriber of its own when another one comes by at the same moment: these tests run one after the other.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn counts_are_published_without_any_key() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    current_thread(counts_are_published());
}

#[expect(clippy::too_many_lines, reason = "one scenario")]
async fn counts_are_published() {
    bounded(async {
        let seen = Recorded::default();
        metrics::set_global_recorder(seen.clone()).expect("no other test of this binary does");
        for _ in 0..2 {
            // Two clients of one region: their counts add up.
            let cache = builder("london").build().expect("is allowed");
            cache.ready(Duration::from_secs(10)).await.expect("a node is ready");
            cache.put("told", "value", 60).await.expect("writes");
            assert!(cache.get("told").await.expect("reads").is_some());
            assert!(cache.get("not told").await.expect("reads").is_none());
            assert_eq!(doubled(&cache, 1).await, 2);
            cache.delete("never").await.expect("deletes");
            cache.put_many([("told", "value")], 60).await.expect("writes");
            cache.get_many(["told", "not told"]).await.expect("reads");
            cache.delete_many(["never"]).await.expect("deletes");
            // What was not published yet is published at the end.
            drop(cache);
        }
        while seen.count("zerocache_reads_total region=london cluster=client-tests outcome=hit") < 5
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(
            seen.count("zerocache_reads_total region=london cluster=client-tests outcome=hit"),
            5
        );
        assert_eq!(
            seen.count("zerocache_reads_total region=london cluster=client-tests outcome=miss"),
            5
        );
        assert_eq!(
            seen.count("zerocache_hits_total region=london cluster=client-tests tier=local"),
            5
        );
        assert_eq!(
            seen.count("zerocache_writes_total region=london cluster=client-tests outcome=stored"),
            9
        );
        assert_eq!(
            seen.count(
                "zerocache_memo_events_total region=london cluster=client-tests event=computed"
            ),
            1
        );
        assert_eq!(
            seen.count("zerocache_memo_events_total region=london cluster=client-tests event=hits"),
            1
        );

        // With the reads and the write of the memoized calls.
        for (kind, count) in [
            ("operation=get outcome=hit", 3),
            ("operation=get outcome=miss", 3),
            ("operation=put outcome=stored", 3),
            ("operation=delete outcome=stored", 2),
            ("operation=get_many outcome=answered", 2),
            ("operation=put_many outcome=answered", 2),
            ("operation=delete_many outcome=answered", 2),
        ] {
            let name =
                format!("zerocache_operation_seconds region=london cluster=client-tests {kind}");
            assert_eq!(seen.times(&name), count, "{kind}");
        }

        let cache = builder("london").build().expect("is allowed");
        cache.ready(Duration::from_secs(10)).await.expect("a node is ready");
        let nodes = "zerocache_nodes region=london cluster=client-tests state=in_rotation";
        let probes = "zerocache_probe_seconds region=london cluster=client-tests tier=local";
        while seen.gauge(nodes) < 1.0 || seen.times(probes) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        clusters_and_regions_are_told_apart(&seen).await;
        let names = seen.names();
        for name in &names {
            assert!(!name.contains("told") && name.starts_with("zerocache_"), "{name}");
        }
        assert!(names.len() < 250, "{names:?}");
    })
    .await;
}

async fn clusters_and_regions_are_told_apart(seen: &Recorded) {
    // Two nodes in london, one of a cluster of its own.
    let config = support::node_config("another");
    let node = tokio::task::spawn_blocking(|| EmbeddedNode::start(config, Duration::from_secs(10)));
    let node = node.await.expect("no panic").expect("a node on a free port");
    let another = |region| {
        let client = ZerocacheClient::builder(region).cluster("another").mdns(false);
        client.seed(node.address().to_string()).build().expect("is allowed")
    };
    let one = builder("london").build().expect("is allowed");
    let (london, oslo) = (another("london"), another("oslo"));
    for (kept, cache) in [&one, &london, &oslo].into_iter().enumerate() {
        let name = format!("near told {kept}");
        cache.put(&name, "value", 60).await.expect("writes");
        let before = cache.near_stats();
        while cache.near_stats().hits == before.hits {
            cache.get(&name).near().await.expect("reads");
        }
    }
    // Each near cache is reported once, whichever of its clients reports it.
    for (cluster, cache) in [("client-tests", &one), ("another", &oslo)] {
        let stats = cache.near_stats();
        let inserted = format!("zerocache_near_events_total cluster={cluster} event=inserted");
        let entries = format!("zerocache_near_entries cluster={cluster}");
        while seen.count(&inserted) < stats.inserts || seen.gauge(&entries) < stats.entries as f64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(seen.count(&inserted), stats.inserts);
        assert_eq!(seen.gauge(&entries), stats.entries as f64);
    }
    assert_eq!((one.near_stats().entries, oslo.near_stats().entries), (1, 2));
    // A node that is gone is out for those who knew it, and for nobody else.
    drop(node);
    let nodes = |region: &str, cluster: &str, state: &str| {
        seen.gauge(&format!("zerocache_nodes region={region} cluster={cluster} state={state}"))
    };
    while ["london", "oslo"].iter().any(|region| nodes(region, "another", "in_rotation") > 0.0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(nodes("london", "client-tests", "in_rotation") > 0.0);
}

/// The fields of one span.
type Fields = BTreeMap<&'static str, String>;

/// Keeps the spans of this crate.
#[derive(Clone, Default)]
struct Spans {
    next: Arc<AtomicU64>,
    spans: Arc<Mutex<BTreeMap<u64, (&'static str, Fields)>>>,
}

struct Into<'a>(&'a mut Fields);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("zerocache_client")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        attributes.record(&mut Into(&mut fields));
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let name = attributes.metadata().name();
        self.spans.lock().expect("nobody panics").insert(id, (name, fields));
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        if let Some((_, fields)) =
            self.spans.lock().expect("nobody panics").get_mut(&span.into_u64())
        {
            values.record(&mut Into(fields));
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn operations_have_spans_with_their_outcomes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let spans = Spans::default();
    tracing::subscriber::with_default(spans.clone(), || {
        current_thread(async {
            bounded(async {
                let cache = builder("oslo").build().expect("is allowed");
                cache.ready(Duration::from_secs(10)).await.expect("a node is ready");
                cache.put("spanned", "value", 60).await.expect("writes");
                assert!(cache.get("spanned").await.expect("reads").is_some());
                assert!(cache.get("not spanned").await.expect("reads").is_none());
                cache.get_many(["spanned", "not spanned"]).await.expect("reads");
            })
            .await;
        });
    });
    let spans = spans.spans.lock().expect("nobody panics");
    let spans: Vec<_> = spans.values().collect();
    let of =
        |name: &'static str| spans.iter().filter(move |span| span.0 == name).map(|span| &span.1);
    let outcomes: Vec<_> = of("zerocache_get").map(|fields| fields["outcome"].as_str()).collect();
    assert_eq!(outcomes, ["hit", "miss"]);
    let hit = of("zerocache_get").next().expect("it is there");
    assert_eq!((hit["region"].as_str(), hit["tier"].as_str()), ("oslo", "nearest-region"));
    let written: Vec<_> = of("zerocache_write").map(|fields| fields["outcome"].as_str()).collect();
    assert_eq!(written, ["stored"]);
    assert_eq!(of("zerocache_get_many").next().expect("it is there")["keys"], "2");
    assert!(
        spans.iter().all(|(_, fields)| fields.values().all(|value| !value.contains("spanned")))
    );
}
