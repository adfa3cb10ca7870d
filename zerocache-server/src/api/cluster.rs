//! `/v1/cluster` and `/v1/stats`: what an operator asks for.

use axum::{Json, extract::State};
use serde::Serialize;
use zerocache_core::node::{NodeSnapshot, RegionSnapshot};
use zerocache_net::discovery::SourceStatus;

use super::{Api, served::ReadCounts};

/// The cluster as this node sees it.
#[derive(Serialize)]
pub(super) struct ClusterBody {
    cluster: String,
    /// This node first.
    nodes: Vec<NodeBody>,
    /// Nearest first.
    regions: Vec<RegionBody>,
    /// How often two living nodes were found to claim one address.
    address_conflicts: u64,
    /// How nodes are looked for, and what is missing.
    discovery: Vec<SourceBody>,
}

#[derive(Serialize)]
struct SourceBody {
    way: &'static str,
    name: String,
    state: &'static str,
    reason: Option<String>,
}

#[derive(Serialize)]
struct NodeBody {
    id: String,
    region: String,
    zone: Option<String>,
    address: Option<String>,
    port: Option<u16>,
    state: &'static str,
    watched: bool,
    since_ms: u64,
    latency_ms: Option<f64>,
    bytes_max: u64,
    behind_ms: Option<u64>,
}

#[derive(Serialize)]
struct RegionBody {
    name: String,
    latency_ms: Option<f64>,
}

impl From<NodeSnapshot> for NodeBody {
    fn from(node: NodeSnapshot) -> Self {
        Self {
            id: node.id.to_string(),
            region: node.region,
            zone: node.zone,
            address: node.address.map(|address| address.ip().to_string()),
            port: node.address.map(|address| address.port()),
            state: match node.state {
                Some(state) => state.as_str(),
                None if node.is_watched => "unreachable",
                None => "known",
            },
            watched: node.is_watched,
            since_ms: node.since_ms,
            latency_ms: millis(node.latency_us),
            bytes_max: node.bytes_max,
            behind_ms: node.behind_ms,
        }
    }
}

impl From<SourceStatus> for SourceBody {
    fn from(source: SourceStatus) -> Self {
        let (state, reason) = (source.state.as_str(), source.state.reason().map(str::to_owned));
        Self { way: source.source.as_str(), name: source.name, state, reason }
    }
}

impl From<RegionSnapshot> for RegionBody {
    fn from(region: RegionSnapshot) -> Self {
        Self { name: region.name, latency_ms: millis(region.latency_us) }
    }
}

fn millis(micros: Option<u64>) -> Option<f64> {
    micros.map(|micros| micros as f64 / 1_000.0)
}

pub(super) async fn get(State(api): State<Api>) -> Json<ClusterBody> {
    let snapshot = api.runtime.snapshot();
    Json(ClusterBody {
        cluster: snapshot.cluster,
        nodes: snapshot.nodes.into_iter().map(NodeBody::from).collect(),
        regions: snapshot.regions.into_iter().map(RegionBody::from).collect(),
        address_conflicts: snapshot.conflicts,
        discovery: api.runtime.sources().into_iter().map(SourceBody::from).collect(),
    })
}

/// What the node holds and what happened.
#[derive(Serialize)]
pub(super) struct StatsBody {
    entries: u64,
    bytes: u64,
    entries_max: Option<u64>,
    bytes_max: u64,
    traces: u64,
    retention_ms: u64,
    hits: u64,
    stale: u64,
    misses: u64,
    too_stale: u64,
    expired: u64,
    evicted: u64,
    puts: u64,
    deletes: u64,
    outdated: u64,
    unkept: u64,
    clock_offset_ms: i64,
    repair_rounds: u64,
    repair_rounds_cut: u64,
    repair_records: u64,
    repair_bytes: u64,
    repair_traces: u64,
    repair_copied: u64,
    repair_outdated: u64,
    repair_given_up: u64,
    connections_accepted: u64,
    connections_refused: u64,
    requests: u64,
    bad_requests: u64,
    bad_messages: u64,
    bodies_too_large: u64,
    bodies_incomplete: u64,
    bodies_over_memory: u64,
    values_unreadable: u64,
    header_timeouts: u64,
    idle_timeouts: u64,
    body_timeouts: u64,
    write_timeouts: u64,
    accept_errors: u64,
    refused_after_pause: u64,
    panics: u64,
    beats_sent: u64,
    beats_echoed: u64,
    echoes_taken: u64,
    datagrams_malformed: u64,
    datagrams_foreign: u64,
    datagrams_forged: u64,
    datagrams_stale: u64,
    datagrams_unsent: u64,
    response_bytes_waiting: usize,
    watchers: usize,
    leases_held: u64,
    leases_waiting: u64,
    leases_granted: u64,
    leases_passed_on: u64,
    leases_voided: u64,
    leases_expired: u64,
    leases_lost: u64,
    leases_found: u64,
    leases_busy: u64,
    followers: u64,
    changes: u64,
    changes_lost: u64,
    refused_addresses: u64,
    refused_gossip: u64,
    refused_stamps: u64,
    refused_shares: u64,
}

pub(super) async fn stats(State(api): State<Api>) -> Json<StatsBody> {
    let (storage, reads) = (api.runtime.storage(), ReadCounts::of(&api));
    let (datagrams, datagrams_unsent) = api.runtime.datagram_counts();
    let (stats, capacity, http) = (storage.stats(), storage.capacity(), &api.counters);
    let snapshot = api.runtime.snapshot();
    let (repair, leases, feed) = (&snapshot.repair, &snapshot.leases, &snapshot.feed);
    Json(StatsBody {
        entries: stats.entries,
        bytes: stats.bytes,
        entries_max: Some(capacity.entries_max).filter(|most| *most != u64::MAX),
        bytes_max: capacity.bytes_max,
        traces: stats.tombstones,
        retention_ms: snapshot.retention_ms,
        hits: reads.hits,
        stale: reads.stale,
        misses: reads.misses,
        too_stale: reads.too_stale,
        expired: stats.counts.expired,
        evicted: stats.counts.evicted,
        puts: stats.counts.puts,
        deletes: stats.counts.deletes,
        outdated: stats.counts.rejected_old,
        unkept: stats.counts.rejected_too_large,
        clock_offset_ms: snapshot.clock_offset_ms,
        repair_rounds: repair.rounds,
        repair_rounds_cut: repair.rounds_cut,
        repair_records: repair.records,
        repair_bytes: repair.bytes,
        repair_traces: repair.traces,
        repair_copied: repair.copied,
        repair_outdated: repair.outdated,
        repair_given_up: repair.given_up,
        connections_accepted: http.accepted.get(),
        connections_refused: http.refused_over_cap.get(),
        requests: http.requests.get(),
        bad_requests: http.bad_requests.get(),
        bad_messages: http.bad_messages.get(),
        bodies_too_large: http.bodies_too_large.get(),
        bodies_incomplete: http.bodies_incomplete.get(),
        bodies_over_memory: http.bodies_over_memory.get(),
        values_unreadable: http.values_unreadable.get(),
        header_timeouts: http.header_timeouts.get(),
        idle_timeouts: http.idle_timeouts.get(),
        body_timeouts: http.body_timeouts.get(),
        write_timeouts: http.write_timeouts.get(),
        accept_errors: http.accept_errors.get(),
        refused_after_pause: http.refused_after_pause.get(),
        panics: http.panics.get(),
        beats_sent: datagrams.beats,
        beats_echoed: datagrams.echoed,
        echoes_taken: datagrams.echoes,
        datagrams_malformed: datagrams.malformed,
        datagrams_foreign: datagrams.foreign,
        datagrams_forged: datagrams.forged,
        datagrams_stale: datagrams.stale,
        datagrams_unsent,
        response_bytes_waiting: api.frames.as_ref().map_or(0, |frames| frames.waiting_bytes()),
        watchers: api.runtime.watchers(),
        leases_held: leases.held,
        leases_waiting: leases.waiting,
        leases_granted: leases.granted,
        leases_passed_on: leases.passed_on,
        leases_voided: leases.voided,
        leases_expired: leases.expired,
        leases_lost: leases.lost,
        leases_found: leases.found,
        leases_busy: leases.busy,
        followers: feed.followers,
        changes: feed.changes,
        changes_lost: feed.lost,
        refused_addresses: snapshot.refused.addresses,
        refused_gossip: snapshot.refused.gossip,
        refused_stamps: snapshot.refused.stamps,
        refused_shares: snapshot.refused.shares,
    })
}
