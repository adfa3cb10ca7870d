//! Reasons for which a node may remove another one from its rotation. The contract excludes
//! removals for pauses up to a second and for light loss, but not for all faults together.

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

/// The time for which a fault counts after its end, in microseconds: the silence that it caused is
/// judged 2.5 s after the last sign of life, and delayed messages come first.
const AFTER_US: u64 = 6 * SECOND_US;

/// A process that has just begun is not known well; nor is one that took its place.
const START_US: u64 = 3 * SECOND_US;

/// The weight of a fault as a reason.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    None,
    /// None alone, one together with others.
    Some,
    Full,
}

/// What passes between a node and another one that it removes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    /// Whether a datagram of the node was ever echoed: the other node may not have given it a key yet.
    pub(crate) datagrams: bool,
    /// Whether a connection stood still moments ago, because a segment was lost again and again.
    pub(crate) has_stalled: bool,
}

/// Returns whether a node has a reason to remove another one from its rotation.
pub(super) fn is_excused(plan: &Plan, (host, peer): (u32, u32), path: Path, now_us: u64) -> bool {
    let Path { datagrams, has_stalled } = path;
    if has_stalled && !datagrams {
        return true;
    }
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

/// Returns whether a fault disturbs one of two hosts or the path between them in an interval, or
/// did shortly before. A freeze of the host `spared` does not count.
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

/// Returns the time for which a fault counts after its end.
fn after_us(planned: &PlannedFault) -> u64 {
    let PlannedFault { at_us, until_us, fault } = planned;
    match fault {
        // Data that a partition held back is sent again only after about as long a time.
        Fault::Partition(_) => AFTER_US + (until_us - at_us).min(10 * SECOND_US),
        Fault::Crash { .. } | Fault::Shutdown(_) | Fault::Drain(_) | Fault::Join(_) => {
            AFTER_US + START_US
        }
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
        Fault::Crash { node, .. }
        | Fault::Shutdown(node)
        | Fault::Drain(node)
        | Fault::Join(node)
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
