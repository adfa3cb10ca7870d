//! The cluster as a node sees it, for people and programs that ask.

use alloc::{string::String, vec::Vec};
use core::net::SocketAddr;

use super::{FeedCounts, HandoverCounts, LeaseCounts, Node, RefusalCounts, RepairCounts};
use crate::{
    cluster::{DialRefusal, HeartbeatCounts, Reachability, resident_name},
    store::Backend,
    time::Now,
    version::Incarnation,
    wire::NodeState,
};

/// The most addresses in [`ClusterStatus::refused_by`].
pub const REFUSED_MAX: usize = 64;

/// The cluster as one node sees it.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// Every known node, this one first.
    pub nodes: Vec<NodeStatus>,
    /// The other regions, nearest first.
    pub regions: Vec<RegionStatus>,
    /// The addresses whose nodes refuse this one, as far as discovery or other nodes name them; at most
    /// `REFUSED_MAX`.
    pub refused_by: Vec<RefusedPeer>,
    /// How often two live nodes were found to claim one address.
    pub address_conflicts: u64,
    /// The counters of repair.
    pub repair: RepairCounts,
    /// Who keeps which values in this node's region.
    pub placement: PlacementStatus,
    /// The counters of leases.
    pub leases: LeaseCounts,
    /// The counters of the feed.
    pub feed: FeedCounts,
    /// The counters of what was refused.
    pub refused: RefusalCounts,
    /// How long tombstones are kept at the moment, in milliseconds.
    pub tombstone_retention_ms: u64,
    /// The offset of cluster time to the node's own wall clock, in milliseconds.
    pub clock_offset_ms: i64,
    /// Whether the node is leaving because it was drained: it does not stop, and can be undrained.
    pub is_drained: bool,
}

/// A node as another one sees it.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its incarnation.
    pub id: Incarnation,
    /// The name under which it owns keys: the one that it states, or else its first address.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its zone in the region, if it states one.
    pub zone: Option<String>,
    /// The address at which it responds.
    pub address: Option<SocketAddr>,
    /// Whether this node monitors it. Of a node of another region it may only be known that it exists.
    pub is_monitored: bool,
    /// Its readiness; `None` if it is unreachable or not monitored.
    pub state: Option<NodeState>,
    /// How long it has been reachable or unreachable, in milliseconds. Of one that is not monitored, the age
    /// of the last sign of life that gossip spread.
    pub since_ms: u64,
    /// Its smoothed round-trip time in microseconds; `None` for the node itself.
    pub latency_us: Option<u64>,
    /// Its byte budget.
    pub bytes_max: u64,
    /// How long ago it missed the first write that it still lacks, in milliseconds; `None` while it is leaving.
    pub replication_lag_ms: Option<u64>,
    /// The heartbeats between this node and that one; `None` for the node itself, and for one that it does
    /// not monitor.
    pub heartbeats: Option<HeartbeatCounts>,
}

/// Who keeps which values in a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacementStatus {
    /// How many nodes keep a value; `None` for all.
    pub replicas: Option<usize>,
    /// The number of the placement: the same at all nodes that choose owners alike, 0 where all keep everything.
    pub id: u64,
    /// Whether this node has offered all that it holds to the owners.
    pub is_complete: bool,
    /// The values that this node holds until the owners of their keys have them, as far as they came with writes.
    pub guests: u64,
    /// The values of keys of others that this node has for a while because many reads of them were passed on.
    pub hot_guests: u64,
    /// The names that two nodes have at the same time: neither owns keys.
    pub conflicts: Vec<String>,
    /// The names of nodes that are gone and own keys still: they may be back in a moment.
    pub absent: Vec<String>,
    /// Requests that this node passed on to owners.
    pub forwarded: u64,
    /// The counters of the handover.
    pub handover: HandoverCounts,
}

/// An address whose node refuses the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedPeer {
    /// The address.
    pub address: SocketAddr,
    /// The reason.
    pub code: DialRefusal,
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
    /// The cluster as this node sees it.
    pub(super) fn cluster_status(&self, now: Now) -> ClusterStatus {
        let view = &self.membership.view;
        let own = &self.local.config.info;
        let refusals = view.refusals();
        let refusals = refusals.map(|(address, code)| RefusedPeer { address, code });
        let latencies = view.region_latencies(&own.region);
        let regions = view.regions().iter().map(|name| RegionStatus {
            name: name.clone(),
            latency_us: latencies.get(name).copied().flatten(),
        });
        ClusterStatus {
            cluster: self.local.config.cluster.clone(),
            nodes: self.node_statuses(now),
            regions: regions.collect(),
            refused_by: refusals.take(REFUSED_MAX).collect(),
            address_conflicts: self.membership.conflicts(),
            repair: self.repair.counts(),
            placement: self.placement_status(now),
            leases: self.lease_counts(),
            feed: self.feed_counts(),
            refused: self.refusal_counts(),
            tombstone_retention_ms: self.replica.store.retention_ms(now),
            clock_offset_ms: self.local.clocks.offset_ms(),
            is_drained: self.local.readiness.is_drained(),
        }
    }

    /// Every known node, this one first.
    fn node_statuses(&self, now: Now) -> Vec<NodeStatus> {
        let (view, gossip) = (&self.membership.view, self.membership.gossip());
        let own = &self.local.config.info;
        let mut nodes = Vec::new();
        nodes.push(NodeStatus {
            id: own.incarnation,
            name: resident_name(own),
            region: own.region.clone(),
            zone: own.zone.clone(),
            address: own.addresses.first().copied(),
            is_monitored: true,
            state: Some(self.local.readiness.state()),
            since_ms: now.mono.since_ms(self.local.readiness.started),
            latency_us: None,
            bytes_max: own.bytes_max,
            replication_lag_ms: None,
            heartbeats: None,
        });
        nodes.extend(view.members().map(|member| {
            NodeStatus {
                id: member.info.incarnation,
                name: resident_name(&member.info),
                region: member.info.region.clone(),
                zone: member.info.zone.clone(),
                address: Some(member.address),
                is_monitored: true,
                state: (member.reach == Reachability::Reachable).then_some(member.info.state),
                since_ms: now.mono.since_ms(member.since),
                latency_us: member.latency.micros(),
                bytes_max: member.info.bytes_max,
                replication_lag_ms: self
                    .replication
                    .missed_since(member.info.incarnation)
                    .filter(|_| member.info.state != NodeState::Leaving)
                    .map(|since| now.mono.since_ms(since)),
                heartbeats: Some(member.detector.heartbeats),
            }
        }));
        let others = gossip.others().filter(|info| view.member(info.incarnation).is_none());
        nodes.extend(others.map(|info| NodeStatus {
            id: info.incarnation,
            name: resident_name(info),
            region: info.region.clone(),
            zone: info.zone.clone(),
            address: info.addresses.first().copied(),
            is_monitored: false,
            state: None,
            since_ms: gossip.age_ms(info.incarnation, now.mono).unwrap_or(0),
            latency_us: None,
            bytes_max: info.bytes_max,
            replication_lag_ms: None,
            heartbeats: None,
        }));
        nodes
    }

    fn placement_status(&self, now: Now) -> PlacementStatus {
        let absent = self.membership.residents().absent(now.mono);
        let placement = self.membership.view.placement();
        PlacementStatus {
            replicas: placement.replicas(),
            id: placement.id(),
            is_complete: self.repair.placed() == placement.id(),
            guests: self.repair.guests(),
            hot_guests: self.repair.hot_guests(),
            conflicts: self.membership.residents().conflicts().to_vec(),
            absent: absent.into_iter().map(|node| node.name).collect(),
            forwarded: self.forwards.count,
            handover: self.repair.handover_counts(),
        }
    }
}
