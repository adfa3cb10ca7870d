//! What a node knows of the cluster, for people and programs that ask.

use alloc::{string::String, vec::Vec};
use core::net::SocketAddr;

use super::{FeedCounts, LeaseCounts, Node, RefusalCounts, RepairCounts, outbox::Outbox};
use crate::{cluster::Reach, store::Backend, time::Now, version::Incarnation, wire::NodeState};

/// The cluster as one node sees it.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// Every known node, this one first.
    pub nodes: Vec<NodeStatus>,
    /// The other regions, nearest first.
    pub regions: Vec<RegionStatus>,
    /// How often two living nodes were found to claim one address.
    pub conflicts: u64,
    /// What repair did.
    pub repair: RepairCounts,
    /// What became of leases.
    pub leases: LeaseCounts,
    /// What became of the feed of changes.
    pub feed: FeedCounts,
    /// What was not taken from callers.
    pub refused: RefusalCounts,
    /// How long traces are kept at the moment, in milliseconds.
    pub retention_ms: u64,
    /// What is added to the node's own wall clock, in milliseconds.
    pub clock_offset_ms: i64,
}

/// A node as another one sees it.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its life.
    pub id: Incarnation,
    /// Where it stands.
    pub region: String,
    /// Where in the region, if it says so.
    pub zone: Option<String>,
    /// Where it answers.
    pub address: Option<SocketAddr>,
    /// Whether this node talks to it. Of a node of another region it may only be known that it exists.
    pub is_monitored: bool,
    /// Its readiness, none when it does not answer or is not watched.
    pub state: Option<NodeState>,
    /// How long it has been reachable or not, in milliseconds; of one that is not watched, how long ago
    /// a sign of its life was spread at the latest.
    pub since_ms: u64,
    /// Its smoothed round-trip time in microseconds; none for the node itself.
    pub latency_us: Option<u64>,
    /// Its byte budget.
    pub bytes_max: u64,
    /// How long ago it first missed a write, in milliseconds.
    pub behind_ms: Option<u64>,
}

/// A region as a node of another one sees it.
#[derive(Clone, Debug)]
pub struct RegionStatus {
    /// Its name.
    pub name: String,
    /// The least smoothed round-trip time to a node in it, in microseconds.
    pub latency_us: Option<u64>,
}

impl<B: Backend> Node<B> {
    /// What this node knows of the cluster at `now`.
    #[must_use]
    pub fn status(&self, now: Now) -> ClusterStatus {
        let now = self.clocks.adjust(now);
        let own = &self.config.info;
        let mut nodes = Vec::new();
        nodes.push(NodeStatus {
            id: own.incarnation,
            region: own.region.clone(),
            zone: own.zone.clone(),
            address: own.addresses.first().copied(),
            is_monitored: true,
            state: Some(self.state),
            since_ms: now.mono.since_ms(self.started),
            latency_us: None,
            bytes_max: own.bytes_max,
            behind_ms: None,
        });
        nodes.extend(self.view.members().map(|member| NodeStatus {
            id: member.info.incarnation,
            region: member.info.region.clone(),
            zone: member.info.zone.clone(),
            address: Some(member.address),
            is_monitored: true,
            state: (member.reach == Reach::Reachable).then_some(member.info.state),
            since_ms: now.mono.since_ms(member.since),
            latency_us: member.latency.micros(),
            bytes_max: member.info.bytes_max,
            behind_ms: member.missed.since.map(|since| now.mono.since_ms(since)),
        }));
        let others =
            self.known.gossip.others().filter(|info| self.view.member(info.incarnation).is_none());
        nodes.extend(others.map(|info| NodeStatus {
            id: info.incarnation,
            region: info.region.clone(),
            zone: info.zone.clone(),
            address: info.addresses.first().copied(),
            is_monitored: false,
            state: None,
            since_ms: self.known.gossip.age_ms(info.incarnation, now.mono).unwrap_or(0),
            latency_us: None,
            bytes_max: info.bytes_max,
            behind_ms: None,
        }));
        let latencies = self.view.region_latencies(&own.region);
        let regions = self.ranking.regions().iter().map(|name| RegionStatus {
            name: name.clone(),
            latency_us: latencies.get(name).copied().flatten(),
        });
        ClusterStatus {
            cluster: self.config.cluster.clone(),
            nodes,
            regions: regions.collect(),
            conflicts: self.known.conflicts,
            repair: self.repair.counts(),
            leases: self.lease_counts(),
            feed: self.feed_counts(),
            refused: self.refusal_counts(),
            retention_ms: self.store.retention_ms(now),
            clock_offset_ms: self.clocks.offset_ms(),
        }
    }

    /// What was not taken from callers, because they claimed or wanted too much.
    #[must_use]
    pub fn refusal_counts(&self) -> RefusalCounts {
        let addresses = self.refused.addresses + self.view.candidates().refused();
        RefusalCounts { addresses, ..self.refused }
    }

    /// How many records, and how many bytes, wait for each peer; what is under way not counted.
    pub fn queued(&self) -> impl Iterator<Item = (usize, usize)> {
        self.outboxes.values().map(Outbox::held)
    }
}
