//! Which nodes of a region keep the value of a key.
//!
//! Every node of a region knows the version of every write. With `replicas = N` only N of them keep its value:
//! the *owners* of the key. The others are its *witnesses*. With `replicas = all` every node is an owner.
//!
//! Owners are chosen by weighted rendezvous hashing of the key's hash and the names of the nodes: each node draws a
//! number for the key, and the best draws win. So a node that joins or leaves moves its own keys only. All
//! arithmetic is on integers, so that every node and every client chooses alike, on any machine.

use alloc::vec::Vec;
use core::num::NonZeroU8;

use super::draw::{mix, negative_log2};
use crate::{key::KeyHash, version::Incarnation};

/// The most owners that a key may have in a region, if it is not all nodes.
pub const REPLICAS_MAX: usize = 8;

/// The most nodes that are ranked for a key: its owners, and those that would be the next ones.
const RANKED_MAX: usize = REPLICAS_MAX + 2;

/// The most zones that are distinguished; all further ones count as one.
const ZONES_MAX: usize = 16;

/// The weights of two nodes differ by this factor at most.
const WEIGHT_RATIO_MAX: u64 = 16;

/// How many nodes of each region keep a value. The larger one wins where nodes disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Replicas {
    /// So many nodes, at most [`REPLICAS_MAX`].
    Count(NonZeroU8),
    /// Every node.
    #[default]
    All,
}

impl Replicas {
    /// Returns the number as it is sent: 0 for all.
    #[must_use]
    pub const fn to_number(self) -> u64 {
        match self {
            Self::Count(count) => count.get() as u64,
            Self::All => 0,
        }
    }

    /// Returns the replicas that were sent as `number`. More than [`REPLICAS_MAX`] are all.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        if number > REPLICAS_MAX as u64 {
            return Self::All;
        }
        match NonZeroU8::new(number as u8) {
            Some(count) => Self::Count(count),
            None => Self::All,
        }
    }
}

/// A node among which owners are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacementNode<'a> {
    /// The node.
    pub node: Incarnation,
    /// Its name, which it has again after a restart.
    pub name: &'a str,
    /// Its byte budget: its share of the keys is proportional to it.
    pub bytes_max: u64,
    /// Its zone: the owners of a key are in different ones as far as possible.
    pub zone: Option<&'a str>,
}

/// The placement of a region: who owns which key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The number of owners; `None` for all nodes.
    replicas: Option<usize>,
    nodes: Vec<Candidate>,
    is_weighted: bool,
    has_zones: bool,
    id: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    node: Incarnation,
    seed: u64,
    /// 2³⁴ divided by the weight.
    inverse_weight: u64,
    zone: u8,
}

/// Nodes in the order of their draws for a key, the best one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    nodes: [Incarnation; RANKED_MAX],
    count: usize,
}

impl core::ops::Deref for Owners {
    type Target = [Incarnation];

    fn deref(&self) -> &[Incarnation] {
        &self.nodes[..self.count]
    }
}

impl Placement {
    /// Returns the placement of a region in which every node keeps everything.
    #[must_use]
    pub fn everyone() -> Self {
        Self::default()
    }

    /// Returns the placement of a region in which every node is to keep everything, and has got `before`, so that not
    /// all have everything yet.
    #[must_use]
    pub fn everyone_after(before: &Self) -> Self {
        let id = match before.id {
            0 => 0,
            id => xxhash_rust::xxh3::xxh3_64(&id.to_le_bytes()).max(1),
        };
        Self { id, ..Self::default() }
    }

    /// Returns the placement of a region of these nodes, which have different names, in any order.
    #[must_use]
    pub fn new<'a>(replicas: Replicas, nodes: impl IntoIterator<Item = PlacementNode<'a>>) -> Self {
        let Replicas::Count(count) = replicas else { return Self::everyone() };
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        nodes.sort_unstable_by_key(|node| node.name);
        let mebibytes = |node: &PlacementNode<'_>| (node.bytes_max >> 20).clamp(1, 1 << 30);
        let most = nodes.iter().map(mebibytes).max().unwrap_or(1);
        let mut zones: Vec<_> = nodes.iter().map(|node| node.zone).collect();
        zones.sort_unstable();
        zones.dedup();
        let mut id = u64::from(count.get());
        let candidates = nodes.iter().map(|node| {
            let weight = mebibytes(node).max(most / WEIGHT_RATIO_MAX);
            let zone = zones.iter().position(|zone| *zone == node.zone).unwrap_or(0);
            let seed = xxhash_rust::xxh3::xxh3_64(node.name.as_bytes());
            let zone_name = node.zone.unwrap_or_default().as_bytes();
            for part in [seed, weight, xxhash_rust::xxh3::xxh3_64(zone_name), node.node.0] {
                id = xxhash_rust::xxh3::xxh3_64_with_seed(&part.to_le_bytes(), id);
            }
            Candidate {
                node: node.node,
                seed,
                inverse_weight: (1 << 34) / weight,
                zone: zone.min(ZONES_MAX - 1) as u8,
            }
        });
        let nodes: Vec<_> = candidates.collect();
        let is_weighted = nodes.iter().any(|n| n.inverse_weight != nodes[0].inverse_weight);
        // 0 is everyone, without a change to it.
        let id = id.max(1);
        let replicas = Some(usize::from(count.get()).min(REPLICAS_MAX));
        Self { replicas, nodes, is_weighted, has_zones: zones.len() > 1, id }
    }

    /// Returns whether every node keeps everything.
    #[must_use]
    pub const fn is_everyone(&self) -> bool {
        self.replicas.is_none()
    }

    /// Returns the number of owners of a key, as far as there are nodes; `None` for all.
    #[must_use]
    pub const fn replicas(&self) -> Option<usize> {
        self.replicas
    }

    /// Returns a number that is the same for all who choose among the same processes by the same rule; 0 if every node
    /// keeps everything, and none states otherwise.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Returns whether a node keeps the value of a key.
    #[must_use]
    pub fn keeps(&self, node: Incarnation, key: KeyHash) -> bool {
        self.replicas.is_none() || self.owners(key).contains(&node)
    }

    /// Returns the owners of a key, best first; none if every node keeps everything.
    #[must_use]
    pub fn owners(&self, key: KeyHash) -> Owners {
        self.ranked(key, self.replicas.unwrap_or(0))
    }

    /// Returns the owners of a key, and after them those that would be the next ones.
    #[must_use]
    pub fn owners_and_next(&self, key: KeyHash) -> Owners {
        self.ranked(key, self.replicas.map_or(0, |replicas| replicas + 2))
    }

    /// Returns the first `count` nodes for a key: the best of each zone, then the best of the rest.
    fn ranked(&self, key: KeyHash, count: usize) -> Owners {
        let count = count.min(RANKED_MAX);
        if !self.has_zones && count <= self.nodes.len() {
            match count {
                1 => return self.first::<1>(key),
                2 => return self.first::<2>(key),
                3 => return self.first::<3>(key),
                _ => {}
            }
        }
        let mut best = Best::new(count);
        if !self.has_zones {
            for (at, node) in self.nodes.iter().enumerate() {
                best.add(self.draw(key, node), at);
            }
            return self.to_owners(best.places());
        }
        let mut of_zones = [(u64::MAX, usize::MAX); ZONES_MAX];
        for (at, node) in self.nodes.iter().enumerate() {
            let draw = (self.draw(key, node), at);
            best.add(draw.0, at);
            let of_zone = &mut of_zones[usize::from(node.zone)];
            *of_zone = draw.min(*of_zone);
        }
        let mut first = Best::new(count);
        for (draw, at) in of_zones.into_iter().filter(|(_, at)| *at < usize::MAX) {
            first.add(draw, at);
        }
        let is_first = |at: &usize| of_zones.iter().any(|(_, of_zone)| of_zone == at);
        let others = best.places().filter(|at| !is_first(at));
        self.to_owners(first.places().chain(others).take(count))
    }

    /// Returns the first `N` of all nodes, without a branch that depends on a draw: these are mispredicted.
    fn first<const N: usize>(&self, key: KeyHash) -> Owners {
        let mut best = [(u64::MAX, Incarnation(0)); N];
        for node in &self.nodes {
            let mut next = (self.draw(key, node), node.node);
            for held in &mut best {
                let is_better = next.0 < held.0;
                let (first, second) = if is_better { (next, *held) } else { (*held, next) };
                (*held, next) = (first, second);
            }
        }
        let mut owners = Owners { nodes: [Incarnation(0); RANKED_MAX], count: N };
        for (owner, (_, node)) in owners.nodes.iter_mut().zip(best) {
            *owner = node;
        }
        owners
    }

    fn to_owners(&self, places: impl Iterator<Item = usize>) -> Owners {
        let mut owners = Owners { nodes: [Incarnation(0); RANKED_MAX], count: 0 };
        for at in places {
            owners.nodes[owners.count] = self.nodes[at].node;
            owners.count += 1;
        }
        owners
    }

    /// Returns the draw of a node for a key; the lowest one wins.
    fn draw(&self, key: KeyHash, node: &Candidate) -> u64 {
        let random = mix(key, node.seed);
        match self.is_weighted {
            true => negative_log2(random) * node.inverse_weight,
            false => !random,
        }
    }
}

/// The lowest draws, in their order.
struct Best {
    draws: [(u64, usize); RANKED_MAX],
    count: usize,
    most: usize,
}

impl Best {
    const fn new(most: usize) -> Self {
        Self { draws: [(u64::MAX, usize::MAX); RANKED_MAX], count: 0, most }
    }

    #[inline]
    fn add(&mut self, draw: u64, at: usize) {
        if self.count == self.most && (self.most == 0 || self.draws[self.most - 1].0 <= draw) {
            return;
        }
        let mut to = self.count.min(self.most - 1);
        while to > 0 && self.draws[to - 1].0 > draw {
            self.draws[to] = self.draws[to - 1];
            to -= 1;
        }
        self.draws[to] = (draw, at);
        self.count = (self.count + 1).min(self.most);
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        self.draws[..self.count].iter().map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::String};

    use super::*;

    const KEYS: u64 = 100_000;

    fn key(n: u64) -> KeyHash {
        KeyHash::of(&n.to_le_bytes())
    }

    /// Nodes `a0`, `a1` and so on with these budgets in MiB and zones.
    struct Nodes(Vec<(String, u64, Option<String>)>);

    impl Nodes {
        fn equal(count: usize) -> Self {
            Self((0..count).map(|n| (format!("a{n}"), 64, None)).collect())
        }

        fn placement(&self, replicas: u8) -> Placement {
            let replicas = Replicas::from_number(u64::from(replicas));
            Placement::new(
                replicas,
                self.0.iter().map(|(name, mebibytes, zone)| PlacementNode {
                    node: Incarnation(xxhash_rust::xxh3::xxh3_64(name.as_bytes())),
                    name,
                    bytes_max: mebibytes << 20,
                    zone: zone.as_deref(),
                }),
            )
        }
    }

    fn shares(placement: &Placement) -> Vec<f64> {
        let mut counts = alloc::vec![0_u64; placement.nodes.len()];
        for n in 0..KEYS {
            for owner in &*placement.owners(key(n)) {
                let at = placement.nodes.iter().position(|node| node.node == *owner).unwrap();
                counts[at] += 1;
            }
        }
        let all: u64 = counts.iter().sum();
        counts.into_iter().map(|count| count as f64 / all as f64).collect()
    }

    #[test]
    fn shares_are_even() {
        for (nodes, replicas) in [(3, 2), (8, 1), (8, 2), (16, 2), (16, 3)] {
            let shares = shares(&Nodes::equal(nodes).placement(replicas));
            let most = shares.iter().fold(0.0_f64, |a, b| a.max(*b));
            assert!(most * (nodes as f64) < 1.05, "{nodes} nodes: {most}");
        }
    }

    #[test]
    fn shares_follow_the_budgets() {
        let nodes = [("a", 64), ("b", 64), ("c", 128), ("d", 256), ("tiny", 1)];
        let nodes = nodes.map(|(name, mebibytes)| (name.into(), mebibytes, None));
        let shares = shares(&Nodes(nodes.into()).placement(1));
        // The smallest counts as a sixteenth of the largest.
        let all = 64.0 + 64.0 + 128.0 + 256.0 + 16.0;
        for (share, mebibytes) in shares.iter().zip([64.0, 64.0, 128.0, 256.0, 16.0]) {
            assert!((share / (mebibytes / all) - 1.0).abs() < 0.05, "{shares:?}");
        }
    }

    #[test]
    fn only_the_keys_of_a_node_move_when_it_leaves() {
        for replicas in [1, 2, 3] {
            let mut nodes = Nodes::equal(8);
            let before = nodes.placement(replicas);
            let gone = Incarnation(xxhash_rust::xxh3::xxh3_64(b"a3"));
            nodes.0.remove(3);
            let after = nodes.placement(replicas);
            assert_ne!(before.id(), after.id());
            for n in 0..10_000 {
                let (old, new) = (before.owners(key(n)), after.owners(key(n)));
                let stay = old.iter().filter(|node| **node != gone);
                assert!(stay.clone().all(|node| new.contains(node)));
                // And in their order: the next one is appended.
                assert!(new.iter().zip(stay).all(|(new, old)| new == old));
            }
        }
    }

    #[test]
    fn owners_are_in_different_zones() {
        let zone = |n: usize| Some(["x", "y", "z"][n % 3].into());
        let nodes = Nodes((0..8).map(|n| (format!("a{n}"), 64, zone(n))).collect());
        for replicas in [1, 2, 3, 4, 8] {
            let placement = nodes.placement(replicas);
            for n in 0..2_000 {
                let owners = placement.owners(key(n));
                assert_eq!(owners.len(), usize::from(replicas));
                let zone_of = |node: &Incarnation| {
                    placement.nodes.iter().find(|other| other.node == *node).unwrap().zone
                };
                let mut zones: Vec<_> = owners.iter().map(zone_of).collect();
                zones.sort_unstable();
                zones.dedup();
                assert_eq!(zones.len(), usize::from(replicas).min(3));
                let mut different: Vec<_> = owners.to_vec();
                different.sort_unstable();
                different.dedup();
                assert_eq!(different.len(), owners.len());
                assert!(placement.owners_and_next(key(n)).starts_with(&owners));
            }
        }
    }

    #[test]
    fn few_nodes_own_everything() {
        let placement = Nodes::equal(2).placement(3);
        assert_eq!(placement.owners(key(1)).len(), 2);
        assert!(Nodes::equal(0).placement(3).owners(key(1)).is_empty());
        assert!(Placement::everyone().keeps(Incarnation(5), key(1)));
    }

    /// Releases that choose differently would not find what the other one stored.
    #[test]
    fn owners_are_pinned() {
        let nodes = [("a", 64, Some("x")), ("b", 128, Some("y")), ("c", 96, None), ("d", 64, None)];
        let nodes = nodes.map(|(name, bytes, zone)| (name.into(), bytes, zone.map(String::from)));
        let names = ["a", "b", "c", "d"];
        let placement = Nodes(nodes.into()).placement(2);
        let owners = |n| {
            let name = |node: &Incarnation| -> &str {
                let of = |name: &&&str| xxhash_rust::xxh3::xxh3_64(name.as_bytes()) == node.0;
                names.iter().find(of).unwrap()
            };
            placement.owners(key(n)).iter().map(name).collect::<Vec<_>>().join("-")
        };
        let pinned = ["c-a", "b-a", "c-a", "a-d", "b-d", "b-c", "c-a", "b-d"];
        assert_eq!((0..8).map(owners).collect::<Vec<_>>(), pinned);
    }
}
