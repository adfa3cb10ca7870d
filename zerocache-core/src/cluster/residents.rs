//! The nodes of a region among which owners are chosen.
//!
//! Nodes and clients judge for themselves who is there, and choose owners by that. A node that is gone keeps its keys
//! for a while: most come back, under the same name, after a restart.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};

use super::{
    placement::{Placement, PlacementNode, Replicas},
    view::MEMBERS_MAX,
};
use crate::{
    time::Instant,
    version::Incarnation,
    wire::{ABSENT_MAX, AbsentNode, NodeInfo, features},
};

/// A node that is gone for this long loses its keys to the others, in milliseconds.
const ABSENT_MS: u64 = 30_000;

/// The nodes of a region by their names.
#[derive(Clone, Debug, Default)]
pub struct Residents {
    by_name: BTreeMap<String, Resident>,
    /// Names that two nodes have which are both there: neither owns keys.
    conflicts: Vec<String>,
    /// Who has the values while nodes change to keeping everything.
    fallback: Placement,
}

#[derive(Clone, Debug)]
struct Resident {
    node: Incarnation,
    bytes_max: u64,
    zone: Option<String>,
    replicas: Replicas,
    /// Since when it is gone.
    absent: Option<Instant>,
}

/// Returns the name under which a node takes part: the one that it states, or else its first address.
#[must_use]
pub fn resident_name(info: &NodeInfo) -> String {
    match (&info.name, info.addresses.first()) {
        (Some(name), _) => name.clone(),
        (None, Some(address)) => address.to_string(),
        (None, None) => String::new(),
    }
}

/// Returns how many nodes are to keep a value, as far as this one is concerned: one of an earlier release keeps all.
fn replicas_of(info: &NodeInfo, features: u64) -> Replicas {
    if features & features::PLACEMENT == 0 { Replicas::All } else { info.replicas }
}

impl Residents {
    /// Returns the names that two nodes have at the same time.
    #[must_use]
    pub fn conflicts(&self) -> &[String] {
        &self.conflicts
    }

    /// Returns who has the values as long as every node is to keep everything and some of them state a number still:
    /// in a change from the one to the other not all have everything yet. Otherwise that of everyone.
    #[must_use]
    pub fn fallback(&self) -> &Placement {
        &self.fallback
    }

    /// Returns the nodes that are gone for a moment.
    #[must_use]
    pub fn absent(&self, now: Instant) -> Vec<AbsentNode> {
        let absent = |(name, resident): (&String, &Resident)| {
            Some(AbsentNode {
                name: name.clone(),
                incarnation: resident.node,
                zone: resident.zone.clone(),
                bytes_max: resident.bytes_max,
                replicas: resident.replicas,
                absent_ms: now.since_ms(resident.absent?),
            })
        };
        self.by_name.iter().filter_map(absent).take(ABSENT_MAX).collect()
    }

    /// Takes in nodes that are gone for a moment, as another one says.
    pub fn learn(&mut self, now: Instant, absent: Vec<AbsentNode>) {
        for node in absent {
            let AbsentNode { name, incarnation, zone, bytes_max, replicas, absent_ms } = node;
            if absent_ms >= ABSENT_MS || self.by_name.len() >= MEMBERS_MAX {
                continue;
            }
            let absent = Some(now.minus_ms(absent_ms));
            let resident = Resident { node: incarnation, bytes_max, zone, replicas, absent };
            self.by_name.entry(name).or_insert(resident);
        }
    }

    /// Takes in who is there at `now`, with the features of each, and returns the placement that follows.
    pub fn update<'a>(
        &mut self,
        now: Instant,
        present: impl Iterator<Item = (&'a NodeInfo, u64)> + Clone,
    ) -> Placement {
        let is_everyone = |(info, of): (&NodeInfo, u64)| replicas_of(info, of) == Replicas::All;
        if self.by_name.is_empty() && present.clone().all(is_everyone) {
            self.conflicts.clear();
            self.fallback = Placement::everyone();
            return Placement::everyone();
        }
        let mut seen = BTreeMap::new();
        self.conflicts.clear();
        for (info, features) in present {
            let name = resident_name(info);
            let resident = Resident {
                node: info.incarnation,
                bytes_max: info.bytes_max,
                zone: info.zone.clone(),
                replicas: replicas_of(info, features),
                absent: None,
            };
            if seen.insert(name.clone(), resident).is_some() && !self.conflicts.contains(&name) {
                self.conflicts.push(name);
            }
        }
        for (name, resident) in &mut self.by_name {
            if !seen.contains_key(name) {
                resident.absent.get_or_insert(now);
            }
        }
        self.by_name.extend(seen);
        self.by_name.retain(|_, resident| {
            resident.absent.is_none_or(|since| now.since_ms(since) < ABSENT_MS)
        });
        let replicas = self.by_name.values().map(|resident| resident.replicas).max();
        let replicas = replicas.unwrap_or_default();
        if replicas == Replicas::All {
            let stated = self.by_name.values().map(|resident| resident.replicas);
            let number = stated.filter(|replicas| *replicas != Replicas::All).max();
            self.fallback = self.placement(number.unwrap_or_default());
            // Those who are gone count no more, once all who are there keep everything.
            self.by_name.clear();
            return Placement::everyone_after(&self.fallback);
        }
        self.fallback = Placement::everyone();
        self.placement(replicas)
    }

    fn placement(&self, replicas: Replicas) -> Placement {
        let owning = self.by_name.iter().filter(|(name, _)| !self.conflicts.contains(name));
        if owning.clone().next().is_none() {
            // All names are in conflict: rather everybody keeps everything than nobody anything.
            return Placement::everyone();
        }
        let nodes = owning.map(|(name, resident)| PlacementNode {
            node: resident.node,
            name,
            bytes_max: resident.bytes_max,
            zone: resident.zone.as_deref(),
        });
        Placement::new(replicas, nodes)
    }
}
