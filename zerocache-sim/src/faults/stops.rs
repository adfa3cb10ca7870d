//! Stops of the whole cluster: all nodes end one after the other, and start again in another order with what
//! they saved.

use super::{Fault, PlannedFault, START_US, Targets};
use crate::{clock::SECOND_US, random::Random};

/// The nodes of a cluster end, and start, within this time of each other at most, in microseconds.
const WITHIN_US: u64 = 8 * SECOND_US;

/// All nodes are down for this long at most, in microseconds.
const DOWN_US: u64 = 10 * SECOND_US;

/// A cluster runs for at least this long between two stops: each node has what all others had.
const RUNS_US: u64 = 8 * SECOND_US;

/// Draws the stops between `from_us` and `until_us`; all nodes run again then.
pub(super) fn draw(
    random: &mut Random,
    targets: &Targets,
    (from_us, until_us): (u64, u64),
) -> Vec<PlannedFault> {
    let mut planned = Vec::new();
    let mut at_us = from_us + random.below(RUNS_US);
    loop {
        let within_us = *random.pick(&[1, SECOND_US, WITHIN_US]);
        let ended_us = at_us + within_us;
        let starts_us = ended_us + random.between(1, DOWN_US);
        let all_run_us = starts_us + within_us;
        if all_run_us + START_US > until_us {
            break;
        }
        for node in 0..targets.nodes.len() as u32 {
            planned.push(PlannedFault {
                at_us: at_us + random.below(within_us),
                until_us: starts_us + random.below(within_us),
                fault: Fault::Crash { node, quiet: random.chance(200), memory: true },
            });
        }
        at_us = all_run_us + RUNS_US + random.below(RUNS_US);
    }
    planned.sort_by_key(|fault| (fault.at_us, fault.until_us));
    planned
}
