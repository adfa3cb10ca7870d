//! What monitoring sees of a client: its counts through the `metrics` facade, published once a second.
//!
//! Operations count in atomics and do nothing else. Every metric says the cluster, those of a client its
//! region too: a process may use several. No label has a value for each key; nodes are seen as
//! tiers. Names and meanings are in `docs/operation.md`.

use std::{collections::HashMap, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use parking_lot::Mutex;
use zerocache_core::route::Tier;
use zerocache_net::clock;

use super::{engine::Engine, sharing::Sharing, stats::ClientStats};

/// How often counts are published, in milliseconds.
pub(super) const PUBLISH_MS: u64 = 1_000;

/// The name and the labels of a counter beside cluster and region.
type Labels = (&'static str, &'static str, &'static str);

/// What has been published: counters of several clients of a region and cluster add up.
#[derive(Debug, Default)]
pub(super) struct Published {
    before: Mutex<HashMap<Labels, u64>>,
}

impl Engine {
    /// Publishes what has been counted since the last time.
    pub(super) fn publish(&self) {
        let mut before = self.published.before.lock();
        if before.is_empty() {
            describe();
        }
        let mut add = |name: &'static str, label: &'static str, value: &'static str, now: u64| {
            let known = before.entry((name, label, value)).or_default();
            let more = now.saturating_sub(*known);
            *known = now;
            let (region, cluster) = self.place();
            counter!(name, "region" => region, "cluster" => cluster, label => value)
                .increment(more);
        };
        let stats = self.counters.snapshot();
        reads(&stats, &mut add);
        for tier in Tier::ALL {
            add("zerocache_hits_total", "tier", tier.as_str(), stats.hits.get(tier));
            add("zerocache_errors_total", "tier", tier.as_str(), stats.errors.get(tier));
        }
        for (outcome, count) in [
            ("stored", stats.stored),
            ("superseded", stats.superseded),
            ("refused", stats.refused),
            ("unknown", stats.unknown),
            ("not_met", stats.not_met),
            ("too_large", stats.too_large.saturating_sub(stats.too_large_unsent)),
            ("too_large_unsent", stats.too_large_unsent),
        ] {
            add("zerocache_writes_total", "outcome", outcome, count);
        }
        add("zerocache_failed_total", "outcome", "unreachable", stats.unreachable);
        add("zerocache_failed_total", "outcome", "denied", stats.denied);
        let lost = stats.hedged.saturating_sub(stats.hedge_wins);
        add("zerocache_hedges_total", "outcome", "won", stats.hedge_wins);
        add("zerocache_hedges_total", "outcome", "not_won", lost);
        for (event, count) in self.local.memo.snapshot().iter() {
            add("zerocache_memo_events_total", "event", event, count);
        }
        if let Some(near) = &self.local.near {
            let stats = near.stats(&self.local.memo);
            add("zerocache_near_reads_total", "outcome", "hit", stats.hits);
            add("zerocache_near_reads_total", "outcome", "miss", stats.misses);
            self.publish_near(&near.sharing);
        }
        drop(before);
        self.publish_times();
        self.publish_nodes();
    }

    /// Of what clients share, whichever of them says it.
    fn publish_near(&self, sharing: &Sharing) {
        let (news, cluster) = (sharing.take_news(), &self.config.cluster);
        for (event, count) in [
            ("inserted", news.inserts),
            ("rejected_old", news.rejected_old),
            ("invalidated", news.invalidated),
            ("cleared", news.cleared),
        ] {
            counter!("zerocache_near_events_total", "cluster" => cluster.clone(), "event" => event)
                .increment(count);
        }
        let (entries, bytes) = sharing.size();
        gauge!("zerocache_near_entries", "cluster" => cluster.clone()).set(entries as f64);
        gauge!("zerocache_near_bytes", "cluster" => cluster.clone()).set(bytes as f64);
    }

    fn publish_times(&self) {
        for (operation, outcome, times) in self.timings.take() {
            let (region, cluster) = self.place();
            let histogram = histogram!(
                "zerocache_operation_seconds",
                "region" => region, "cluster" => cluster, "operation" => operation, "outcome" => outcome,
            );
            for (time, count) in times {
                histogram.record_many(time.as_secs_f64(), count);
            }
        }
    }

    fn publish_nodes(&self) {
        let now = clock::mono();
        let (mut turning, mut out) = (0_u32, 0_u32);
        for node in self.directory().nodes() {
            let count = if node.in_rotation(now) { &mut turning } else { &mut out };
            *count += 1;
        }
        for (state, count) in [("in_rotation", turning), ("out", out)] {
            let (region, cluster) = self.place();
            gauge!("zerocache_nodes", "region" => region, "cluster" => cluster, "state" => state)
                .set(f64::from(count));
        }
    }

    /// Region and cluster, the labels of what is of one client.
    fn place(&self) -> (String, String) {
        (self.config.region.clone(), self.config.cluster.clone())
    }

    /// A probe came back after this time: what is measured of the way to nodes without asking
    /// operations.
    pub(super) fn probe_took(&self, is_local: bool, time: Duration) {
        let ((region, cluster), of) = (self.place(), if is_local { "local" } else { "other" });
        histogram!("zerocache_probe_seconds", "region" => region, "cluster" => cluster, "tier" => of)
            .record(time.as_secs_f64());
    }
}

/// Each read once.
fn reads(stats: &ClientStats, add: &mut impl FnMut(&'static str, &'static str, &'static str, u64)) {
    let hits: u64 = stats.hits.total();
    let misses = stats.misses.saturating_sub(stats.stale_misses + stats.unreadable);
    for (outcome, count) in [
        ("hit", hits.saturating_sub(stats.stale_hits)),
        ("stale", stats.stale_hits),
        ("miss", misses),
        ("past_stale", stats.stale_misses),
        ("unreadable", stats.unreadable),
    ] {
        add("zerocache_reads_total", "outcome", outcome, count);
    }
}

fn describe() {
    describe_counter!("zerocache_reads_total", "Reads that nodes answered, by what came of them");
    describe_counter!("zerocache_hits_total", "Reads answered with a value, by tier of the node");
    describe_counter!("zerocache_errors_total", "Requests that failed, by tier of the node");
    describe_counter!("zerocache_writes_total", "Writes and deletes, by what came of them");
    describe_counter!("zerocache_failed_total", "Reads and writes that failed, by why");
    describe_counter!("zerocache_hedges_total", "Second requests of hedged reads");
    describe_counter!("zerocache_memo_events_total", "What memoized calls came to");
    describe_counter!("zerocache_near_reads_total", "Reads that asked the near cache");
    describe_counter!("zerocache_near_events_total", "What became of the near cache's entries");
    describe_gauge!("zerocache_near_entries", "Entries in the near cache");
    describe_gauge!("zerocache_near_bytes", "Bytes that the near cache takes");
    describe_gauge!("zerocache_nodes", "Nodes that are known, by whether they take turns");
    describe_histogram!("zerocache_operation_seconds", "Operations that asked nodes");
    describe_histogram!("zerocache_probe_seconds", "Round trips of probes to nodes");
}
