//! Who owns which keys where `--replicas` is set: how even the shares are, what moves, and what a choice costs.
//!
//! `cargo run --release -p zerocache-bench --example placement`
//!
//! Everything is computed by the code with which nodes and clients choose, on the same keys in each line. Exits with
//! 1 if a bar is missed.

#[path = "../benches/common/mod.rs"]
mod common;

use std::{collections::BTreeMap, hint::black_box, process::ExitCode};

use common::{cpu_time, name};
use zerocache_core::{
    cluster::{Placement, PlacementNode, Replicas},
    key::KeyHash,
    version::Incarnation,
};

const KEYS: u64 = 200_000;

/// The keys whose owners are chosen in one round of a measurement, and the rounds, of which the fastest counts.
const ROUND_KEYS: usize = 20_000;
const ROUNDS: usize = 15;

/// The largest share of a node, by the mean of those with its weight, up to so many nodes.
const UNEVEN_MAX: f64 = 1.05;
const UNEVEN_NODES_MAX: usize = 16;

/// What moves may differ from the ideal by this much, in percent of all copies.
const MOVED_MAX: f64 = 2.0;

/// What moves on a restart under the same name is below this, in percent of all copies.
const RESTARTED_MAX: f64 = 1.0;

/// The longest time for the owners of a key, in nanoseconds, by the nodes.
const NS_MAX: [(usize, f64); 2] = [(16, 80.0), (100, 300.0)];

/// A node of a region.
#[derive(Clone, Debug)]
struct Node {
    name: String,
    mebibytes: u64,
    zone: Option<&'static str>,
    process: u64,
}

/// The nodes of a region, and what is measured of them.
#[derive(Clone, Debug)]
struct Region {
    what: &'static str,
    copies: u64,
    nodes: Vec<Node>,
    /// Zones of different sizes have different shares: the bars for shares and moves do not apply.
    has_uneven_zones: bool,
}

impl Region {
    fn new(count: usize, copies: u64) -> Self {
        let node = |n: usize| {
            let name = format!("cache-{n}");
            Node { name, mebibytes: 1_024, zone: None, process: n as u64 + 1 }
        };
        let nodes = (0..count).map(node).collect();
        Self { what: "", copies, nodes, has_uneven_zones: false }
    }

    fn zones(count: usize, copies: u64) -> Self {
        let mut region = Self::new(count, copies);
        for (n, node) in region.nodes.iter_mut().enumerate() {
            node.zone = Some(["a", "b", "c"][n % 3]);
        }
        Self { what: "3 zones", has_uneven_zones: !count.is_multiple_of(3), ..region }
    }

    fn weights(count: usize, copies: u64) -> Self {
        let mut region = Self::new(count, copies);
        for (n, node) in region.nodes.iter_mut().enumerate() {
            node.mebibytes = [1_024, 1_024, 2_048, 4_096][n % 4];
        }
        Self { what: "1:1:2:4", ..region }
    }

    fn placement(&self) -> Placement {
        let nodes = self.nodes.iter().map(|node| PlacementNode {
            node: Incarnation(node.process),
            name: &node.name,
            bytes_max: node.mebibytes << 20,
            zone: node.zone,
        });
        Placement::new(Replicas::from_number(self.copies), nodes)
    }

    /// The owners of every key, as the numbers of the processes.
    fn owners(&self) -> Vec<Vec<u64>> {
        let placement = self.placement();
        (0..KEYS).map(|n| placement.owners(key(n)).iter().map(|owner| owner.0).collect()).collect()
    }

    fn weight(&self) -> f64 {
        self.nodes.iter().map(|node| node.mebibytes as f64).sum()
    }
}

fn key(n: u64) -> KeyHash {
    KeyHash::of(&name(n))
}

/// The shares of the nodes, the least and the largest one, each by what its weight deserves.
fn shares(region: &Region, owners: &[Vec<u64>]) -> (f64, f64) {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for owner in owners.iter().flatten() {
        *counts.entry(*owner).or_default() += 1;
    }
    let all: u64 = counts.values().sum();
    let relative = region.nodes.iter().map(|node| {
        let count = counts.get(&node.process).copied().unwrap_or_default();
        (count as f64 / all as f64) / (node.mebibytes as f64 / region.weight())
    });
    relative.fold((f64::MAX, 0.0), |(least, most), share| (least.min(share), most.max(share)))
}

/// The copies that are held elsewhere after a change, in percent; `to_old` names a process of `after` as before.
fn moved(before: &[Vec<u64>], after: &[Vec<u64>], to_old: impl Fn(u64) -> u64) -> f64 {
    let is_new = |(old, new): (&Vec<u64>, &Vec<u64>)| {
        new.iter().filter(|owner| !old.contains(&to_old(**owner))).count()
    };
    let copies: usize = after.iter().map(Vec::len).sum();
    100.0 * before.iter().zip(after).map(is_new).sum::<usize>() as f64 / copies as f64
}

/// The CPU time of one choice, in nanoseconds.
fn nanoseconds(placement: &Placement) -> f64 {
    let keys: Vec<_> = (0..ROUND_KEYS as u64).map(key).collect();
    let round = |_| {
        let begin = cpu_time();
        for key in &keys {
            black_box(placement.owners(black_box(*key)));
        }
        (cpu_time() - begin).as_secs_f64() * 1e9 / ROUND_KEYS as f64
    };
    (0..ROUNDS).map(round).fold(f64::MAX, f64::min)
}

/// Measures a region and prints its line. Returns the bars that it misses.
fn measure(region: &Region) -> Vec<String> {
    let (count, owners) = (region.nodes.len(), region.owners());
    let (least, most) = shares(region, &owners);
    // The first node leaves, and the last one joins.
    let (mut left, mut fewer, mut restarted) = (region.clone(), region.clone(), region.clone());
    let gone = left.nodes.remove(0);
    let joined = fewer.nodes.pop().expect("a node");
    restarted.nodes[0].process += 1_000;
    let leave = moved(&owners, &left.owners(), |id| id);
    let join = moved(&fewer.owners(), &owners, |id| id);
    let restart =
        moved(&owners, &restarted.owners(), |id| if id > 1_000 { id - 1_000 } else { id });
    let is_lost = |owners: &&Vec<u64>| owners.iter().all(|owner| *owner == gone.process);
    let lost = 100.0 * owners.iter().filter(is_lost).count() as f64 / KEYS as f64;
    let [ideal_leave, ideal_join] =
        [&gone, &joined].map(|node| 100.0 * node.mebibytes as f64 / region.weight());
    let ns = nanoseconds(&region.placement());
    println!(
        "{count:>5} {:>6} {:<8} {most:>8.3} {least:>6.3} {leave:>7.2} {ideal_leave:>6.2} {join:>7.2} {ideal_join:>6.2} \
         {restart:>8.2} {lost:>6.2} {ns:>6.0}",
        region.copies, region.what
    );
    let mut missed = Vec::new();
    let mut bar = |is_reached: bool, what: String| {
        if !is_reached {
            missed.push(format!("{count} nodes, {} copies {}: {what}", region.copies, region.what));
        }
    };
    // With as many copies as nodes, or a copy in each zone, what a node gets is not up to its draws.
    let is_free = !region.has_uneven_zones && region.copies < left.nodes.len() as u64;
    let is_judged = is_free && (region.what.is_empty() || region.copies == 1);
    if is_judged && count <= UNEVEN_NODES_MAX {
        bar(most <= UNEVEN_MAX, format!("max/mean {most:.3}, at most {UNEVEN_MAX}"));
    }
    if is_judged {
        for (moved, ideal, when) in [(leave, ideal_leave, "leave"), (join, ideal_join, "join")] {
            bar((moved - ideal).abs() <= MOVED_MAX, format!("{moved:.2} % move on {when}"));
        }
    }
    bar(restart < RESTARTED_MAX, format!("{restart:.2} % move on a restart"));
    if let Some((_, most)) = NS_MAX.into_iter().find(|(nodes, _)| *nodes == count)
        && region.what.is_empty()
    {
        bar(ns <= most, format!("{ns:.0} ns for the owners of a key, at most {most}"));
    }
    missed
}

fn main() -> ExitCode {
    println!(
        "{KEYS} keys. Shares by the mean; moved copies in percent, each beside the ideal; keys whose last copy was on \
         the node that left, in percent; CPU time for the owners of a key"
    );
    println!(
        "nodes copies            max/mean    min   leave  ideal    join  ideal  restart   lost     ns"
    );
    let mut regions = Vec::new();
    for count in [3, 8, 16, 32, 100] {
        regions.extend((1..=3).map(|copies| Region::new(count, copies)));
    }
    regions.extend(
        [(9, 1), (9, 2), (9, 3), (8, 2), (16, 2), (100, 2)].map(|(n, c)| Region::zones(n, c)),
    );
    regions.extend([(4, 1), (8, 1), (8, 2), (16, 1), (100, 1)].map(|(n, c)| Region::weights(n, c)));
    let missed: Vec<_> = regions.iter().flat_map(measure).collect();
    missed.iter().for_each(|missed| println!("missed: {missed}"));
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
