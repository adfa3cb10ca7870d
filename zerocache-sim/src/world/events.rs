//! Feeds the events of nodes to the event log, the counters and the checker.

use zerocache_core::{
    node::{Effect, Event},
    version::Incarnation,
    wire::Request,
};

use super::{World, trace};
use crate::checker::Path;

impl World {
    /// Something happened at a node.
    pub(super) fn record_event(&mut self, host: u32, event: &Event) {
        match event {
            Event::MemberUp(info, _) => {
                let peer = self.checker.host_of(info.incarnation);
                trace!(self, "{host} reaches {peer:?}");
            }
            Event::MemberDown(info, _) => {
                let peer = self.checker.host_of(info.incarnation);
                trace!(self, "{host} removes {peer:?}");
                self.counts.removals += 1;
                self.member_removed(host, info.incarnation);
            }
            Event::MemberForgotten(info) => {
                let peer = self.checker.host_of(info.incarnation);
                trace!(self, "{host} forgets {peer:?}");
                self.member_removed(host, info.incarnation);
            }
            Event::WritesAbandoned { count, .. } => {
                self.counts.dropped += *count as u64;
                trace!(self, "{host}: {event:?}");
            }
            Event::WritesRefused { count, .. } => {
                self.counts.refused += *count as u64;
                trace!(self, "{host}: {event:?}");
            }
            Event::ClockMoved { restamped, .. } => {
                self.counts.clocks_moved += 1;
                // Its leases end.
                if let Some(process) = self.nodes[host as usize].as_mut() {
                    process.leasing.expire_all();
                }
                trace!(self, "{host}: {event:?}");
                if restamped.is_some() {
                    if let Some(process) = self.nodes[host as usize].as_mut() {
                        process.writers.push(process.node.writer());
                        process.pending.clear();
                    }
                    if let Some(disk) = self.disks.get_mut(&host) {
                        disk.promises.forget();
                    }
                    self.checker.reset_versions(host);
                    self.observe_registers(host);
                    // Existing entries have other versions now.
                    self.healing = None;
                }
            }
            Event::FullResync { .. } => {
                self.counts.outdated += 1;
                // Entries that only this node had may be discarded.
                self.healing = None;
                trace!(self, "{host}: {event:?}");
                self.observe_discarded(host);
            }
            other => trace!(self, "{host}: {other:?}"),
        }
    }

    /// A node took another one out of its rotation, or forgot it.
    fn member_removed(&mut self, host: u32, removed: Incarnation) {
        let has_ended = !self.nodes.iter().flatten().any(|process| process.incarnation == removed);
        if has_ended && self.checker.host_of(removed).is_some() {
            return;
        }
        let now = self.now_at(host);
        let nodes =
            self.nodes[host as usize].as_ref().map(|process| process.node.status(now).nodes);
        let heartbeats = nodes.iter().flatten().find(|node| node.id == removed);
        let datagrams = heartbeats
            .and_then(|node| node.heartbeats)
            .is_none_or(|heartbeats| heartbeats.acknowledged > 0);
        let peer = self.checker.host_of(removed);
        let has_stalled = peer.is_some_and(|peer| self.has_stalled((host, peer)));
        self.checker.removed(&self.plan, host, removed, Path { datagrams, has_stalled });
    }
}

/// Describes a repair request for the event log.
pub(super) fn repair_request(request: &Request) -> Option<String> {
    match request {
        Request::Digests { window, resolution, .. } => {
            Some(format!("for digests of {window:?}, {resolution:?}"))
        }
        Request::BucketVersions(buckets) => {
            Some(format!("for the versions in {} buckets", buckets.len()))
        }
        Request::KeyVersions(keys) => Some(format!("for the versions of {} keys", keys.len())),
        Request::Fetch(keys) | Request::Adopt(keys) => Some(format!("for {} keys", keys.len())),
        Request::Copy { first_shard, last_shard, range, .. } => {
            Some(format!("for a copy of shards {first_shard} to {last_shard}, {range:?}"))
        }
        _ => None,
    }
}

/// Whether a node has given what it had stamped other versions.
pub(super) fn restamps(effect: &Effect) -> bool {
    matches!(effect, Effect::Event(Event::ClockMoved { restamped: Some(_), .. }))
}
