//! Starts that meet with something: halves that begin alone, and a fault at every moment of a
//! start.

use super::{Area, Fault, PlannedFault, START_US, Targets};
use crate::{clock::SECOND_US, random::Random};

/// Of a thousand runs so many begin as two halves.
const HALVES_PERMILLE: u64 = 600;

/// Of a thousand starts so many copy from nodes that take their time, so that they are cut in the
/// middle.
const SLOW_PERMILLE: u64 = 500;

/// Faults of a start begin up to this long after it, in microseconds: the whole start takes less.
const DURING_US: u64 = 2 * SECOND_US;

/// Draws the faults until `until_us`: starts one after the other, and what they meet with.
pub(super) fn draw(random: &mut Random, targets: &Targets, until_us: u64) -> Vec<PlannedFault> {
    let mut planned = Vec::new();
    if targets.nodes.len() > 1 && random.chance(HALVES_PERMILLE) {
        planned.push(halves(random, targets, until_us));
    }
    let mut starts: Vec<(u64, u32)> =
        (0..targets.nodes.len() as u32).map(|node| (0, node)).collect();
    let last_us = until_us - START_US;
    for node in &targets.later {
        let at_us = random.between(3 * SECOND_US, last_us);
        planned.push(PlannedFault { at_us, until_us: at_us, fault: Fault::Join(*node) });
        starts.push((at_us, *node));
    }
    for _ in 0..random.between(1, 8) {
        let node = random.below(targets.nodes.len() as u64) as u32;
        let at_us = random.between(3 * SECOND_US, last_us);
        let ends_us = (at_us + length_us(random)).min(last_us);
        let (quiet, memory) = (random.chance(400), random.chance(300));
        planned.push(PlannedFault {
            at_us,
            until_us: ends_us,
            fault: Fault::Crash { node, quiet, memory },
        });
        starts.push((ends_us, node));
    }
    for (start_us, node) in starts {
        if random.chance(SLOW_PERMILLE) {
            let fault = Fault::Slow {
                node: other(random, targets, node),
                us: random.between(1_000, 400_000),
            };
            let ends_us = (start_us + 10 * SECOND_US).min(until_us);
            planned.push(PlannedFault { at_us: start_us, until_us: ends_us, fault });
        }
        for _ in 0..random.below(3) {
            let at_us = start_us + random.between(1, DURING_US);
            let fault = met_with(random, targets, node);
            let needs_us = if matches!(fault, Fault::Crash { .. }) { START_US } else { 0 };
            let ends_us = (at_us + length_us(random)).min(until_us - needs_us);
            if at_us < ends_us {
                planned.push(PlannedFault { at_us, until_us: ends_us, fault });
            }
        }
    }
    planned.sort_by_key(|fault| (fault.at_us, fault.until_us));
    apart(planned)
}

/// Partitions the cluster into two halves, for a moment or for longer than the retention.
fn halves(random: &mut Random, targets: &Targets, until_us: u64) -> PlannedFault {
    let mut hosts = targets.everybody();
    random.shuffle(&mut hosts);
    let to = hosts.split_off(random.index(hosts.len() - 1) + 1);
    let until_us = random.between(SECOND_US / 10, until_us);
    let area = Area { from: hosts, to, one_way: false };
    PlannedFault { at_us: 0, until_us, fault: Fault::Partition(area) }
}

/// Draws a fault of `node` or of the nodes from which it copies.
fn met_with(random: &mut Random, targets: &Targets, node: u32) -> Fault {
    let other = other(random, targets, node);
    let all = || targets.everybody().into_iter().filter(|host| *host != node).collect::<Vec<_>>();
    let cut = |to: Vec<u32>, one_way| Fault::Partition(Area { from: vec![node], to, one_way });
    match random.below(10) {
        0..3 => Fault::Freeze(other),
        3 => Fault::Freeze(node),
        4 => cut(vec![other], false),
        5 => cut(all(), false),
        6 => cut(vec![other], true),
        7 => Fault::Crash { node: other, quiet: random.chance(500), memory: random.chance(300) },
        8 => Fault::Crash { node, quiet: random.chance(500), memory: false },
        _ => {
            let area = Area { from: vec![node], to: all(), one_way: false };
            let loss_permille = *random.pick(&[0, 50, 300]);
            let delay_us = if loss_permille == 0 { random.below(150_000) } else { 0 };
            let jitter_us = random.below(5_000);
            Fault::Impairment { area, loss_permille, delay_us, jitter_us }
        }
    }
}

fn other(random: &mut Random, targets: &Targets, node: u32) -> u32 {
    let others = (0..targets.nodes.len() as u32).filter(|other| *other != node);
    let others: Vec<u32> = others.collect();
    if others.is_empty() { node } else { *random.pick(&others) }
}

/// Short ones are where races are, long ones where bounds are.
fn length_us(random: &mut Random) -> u64 {
    match random.below(3) {
        0 => random.between(10_000, 500_000),
        1 => random.between(500_000, 5 * SECOND_US),
        _ => random.between(3 * SECOND_US, 20 * SECOND_US),
    }
}

/// Removes the faults of a process that does not run, or is suspended already.
fn apart(planned: Vec<PlannedFault>) -> Vec<PlannedFault> {
    let process = |fault: &Fault| match fault {
        Fault::Crash { node, .. } | Fault::Freeze(node) | Fault::Join(node) => Some(*node),
        _ => None,
    };
    let mut kept: Vec<PlannedFault> = Vec::new();
    for next in planned {
        let collides = |other: &PlannedFault| {
            let same =
                process(&next.fault).is_some() && process(&next.fault) == process(&other.fault);
            same && next.at_us <= other.until_us
        };
        if !kept.iter().any(collides) {
            kept.push(next);
        }
    }
    kept
}
