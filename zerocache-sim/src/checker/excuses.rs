//! When a node may take another one out: the contract excludes it for pauses up to a second and for
//! little loss, not for everything at once.

use zerocache_core::wire::features;

use crate::{
    clock::SECOND_US,
    faults::{Area, Fault, PlannedFault},
    plan::Plan,
};

/// A pause up to this is no reason.
const PAUSE_US: u64 = SECOND_US;

/// Loss up to this is none, per thousand, where datagrams pass and where they do not.
const LOSS_PERMILLE_DATAGRAMS: u64 = 300;
const LOSS_PERMILLE: u64 = 50;

/// Journeys longer by up to this are none, in microseconds.
const DELAY_US: u64 = 200_000;

/// A fault counts for so long after its end: the silence that it began is judged 2.5 s after the last
/// sign of life, and what waited for it comes first.
const AFTER_US: u64 = 6 * SECOND_US;

/// A process that has just begun is not known well; nor is one that took its place.
const START_US: u64 = 3 * SECOND_US;

/// How much of a reason something is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    None,
    /// None alone, one together with others.
    Some,
    Full,
}

/// Whether a node has a reason to take another one out.
pub(super) fn is_excused(plan: &Plan, host: u32, peer: u32, now_us: u64) -> bool {
    let has_datagrams = |host: u32| {
        let node = plan.nodes.get(host as usize);
        node.is_some_and(|node| node.features & features::DATAGRAMS != 0)
    };
    let datagrams = has_datagrams(host) && has_datagrams(peer);
    let mut some = 0;
    for planned in &plan.faults {
        if now_us < planned.at_us || now_us > planned.until_us + after_us(planned) {
            continue;
        }
        match weight(planned, (host, peer), datagrams) {
            Weight::Full => return true,
            Weight::Some => some += 1,
            Weight::None => {}
        }
    }
    some >= 2
}

/// Whether anything disturbs one of two hosts or the way between them at some time, or has a moment before;
/// that the process of `spared` stands still does not count.
pub(crate) fn is_disturbed(
    plan: &Plan,
    pair: (u32, u32),
    (from_us, until_us): (u64, u64),
    spared: Option<u32>,
) -> bool {
    plan.faults.iter().any(|planned| {
        let stands_still = matches!(planned.fault, Fault::Freeze(host) if Some(host) == spared);
        planned.at_us <= until_us
            && from_us <= planned.until_us + after_us(planned)
            && !stands_still
            && weight(planned, pair, true) != Weight::None
    })
}

/// How long after its end a fault counts.
fn after_us(planned: &PlannedFault) -> u64 {
    let PlannedFault { at_us, until_us, fault } = planned;
    match fault {
        // What a cut held back is sent again only after a while that is about as long.
        Fault::Partition(_) => AFTER_US + (until_us - at_us).min(10 * SECOND_US),
        Fault::Crash { .. } | Fault::Shutdown(_) | Fault::Join(_) => AFTER_US + START_US,
        _ => AFTER_US,
    }
}

fn weight(planned: &PlannedFault, pair: (u32, u32), datagrams: bool) -> Weight {
    let concerns = |host: u32| host == pair.0 || host == pair.1;
    let long = planned.until_us - planned.at_us > PAUSE_US;
    match &planned.fault {
        Fault::Partition(area) if covers(area, pair) => Weight::Full,
        Fault::Impairment { area, loss_permille, delay_us, jitter_us } if covers(area, pair) => {
            let most = if datagrams { LOSS_PERMILLE_DATAGRAMS } else { LOSS_PERMILLE };
            let slow = delay_us + jitter_us > DELAY_US;
            if *loss_permille > most || slow { Weight::Full } else { Weight::Some }
        }
        Fault::Freeze(host) if concerns(*host) && long => Weight::Full,
        Fault::Freeze(host) if concerns(*host) => Weight::Some,
        Fault::Slow { node, us } if concerns(*node) => {
            if *us > DELAY_US {
                Weight::Full
            } else {
                Weight::Some
            }
        }
        Fault::Crash { node, .. } | Fault::Shutdown(node) | Fault::Join(node)
            if concerns(*node) =>
        {
            Weight::Full
        }
        _ => Weight::None,
    }
}

fn covers(area: &Area, (a, b): (u32, u32)) -> bool {
    let one = |from: u32, to: u32| area.from.contains(&from) && area.to.contains(&to);
    one(a, b) || one(b, a)
}
