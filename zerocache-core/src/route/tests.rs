//! Rotation, ladder and budget.

use alloc::{collections::BTreeSet, format, string::String, vec::Vec};
use core::net::SocketAddr;

use super::*;
use crate::{
    time::Instant,
    version::Incarnation,
    wire::{NodeInfo, NodeState, features},
};

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn address(n: u64) -> SocketAddr {
    format!("127.0.0.{n}:6789").parse().unwrap()
}

fn info(n: u64, region: &str) -> NodeInfo {
    NodeInfo {
        incarnation: Incarnation(n),
        region: region.into(),
        zone: None,
        addresses: [address(n)].into(),
        state: NodeState::InSync,
        bytes_max: 1_000,
    }
}

/// Nodes 1 to 3 in oslo, 4 in rome (2 ms), 5 in lima (9 ms), 6 in tokyo (50 ms).
fn directory() -> Directory {
    let mut directory = Directory::new("oslo");
    for (n, region, micros) in [
        (1, "oslo", 100),
        (2, "oslo", 100),
        (3, "oslo", 100),
        (4, "rome", 2_000),
        (5, "lima", 9_000),
        (6, "tokyo", 50_000),
    ] {
        directory.shook_hands(info(n, region), address(n), at(0), micros);
    }
    directory
}

fn ids(plan: &Plan) -> Vec<u64> {
    plan.steps.iter().map(|step| step.node.0).collect()
}

#[test]
fn local_nodes_take_turns_and_regions_follow_by_latency() {
    let mut directory = directory();
    let plans: Vec<_> = (0..4).map(|_| ids(&directory.plan(at(1), None))).collect();
    assert_eq!(plans, [[1, 2, 4, 5], [2, 3, 4, 5], [3, 1, 4, 5], [1, 2, 4, 5]]);
}

#[test]
fn a_node_in_sync_is_followed_until_it_fails() {
    let mut directory = directory();
    directory.has_features(Incarnation(2), features::FEED);
    let (node, _) = directory.next_followed(at(1)).unwrap();
    assert_eq!(node, Incarnation(2));
    // It owes an answer for a while: others are asked meanwhile, and it is followed as before.
    directory.sent(node, at(1));
    assert!(!directory.takes_turns(node, at(200)) && directory.can_be_followed(node));
    directory.probed(node, NodeState::Warming, 1, at(300), 100);
    assert!(directory.takes_turns(node, at(300)) && !directory.can_be_followed(node));
    directory.probed(node, NodeState::InSync, 1, at(400), 100);
    assert!(directory.can_be_followed(node));
    directory.gave_no_answer(node, at(500));
    assert!(!directory.can_be_followed(node));
    assert!(!directory.can_be_followed(Incarnation(7)), "nobody knows it");
}

#[test]
fn a_failed_node_is_skipped_and_never_a_constant_first_choice() {
    let mut directory = directory();
    directory.failed(Incarnation(2), at(1));
    let firsts: Vec<_> = (0..6).map(|_| ids(&directory.plan(at(2), None))[0]).collect();
    assert_eq!(firsts, [1, 3, 1, 3, 1, 3]);
    directory.probed(Incarnation(2), NodeState::InSync, 1, at(300), 100);
    let firsts: Vec<_> = (0..3).map(|_| ids(&directory.plan(at(301), None))[0]).collect();
    assert_eq!(firsts.iter().filter(|id| **id == 2).count(), 1);
}

#[test]
fn a_silent_node_is_passed_over_before_its_request_times_out() {
    let mut directory = directory();
    directory.sent(Incarnation(1), at(0));
    assert!((0..3).any(|_| ids(&directory.plan(at(50), None))[0] == 1));
    assert!((0..6).all(|_| !ids(&directory.plan(at(100), None)).contains(&1)));
    directory.answered(Incarnation(1), at(101), None);
    assert!((0..3).any(|_| ids(&directory.plan(at(102), None))[0] == 1));
}

#[test]
fn with_no_local_node_the_nearest_regions_are_asked() {
    let mut directory = directory();
    for n in 1..=4 {
        directory.failed(Incarnation(n), at(1));
    }
    let plan = directory.plan(at(2), None);
    assert_eq!(ids(&plan), [5, 6]);
    assert_eq!(plan.steps[0].tier, Tier::Nearest);
}

#[test]
fn when_all_are_out_all_are_tried() {
    let mut directory = directory();
    for n in 1..=6 {
        directory.failed(Incarnation(n), at(1));
    }
    assert_eq!(ids(&directory.plan(at(2), None)).len(), 4);
}

#[test]
fn leaving_nodes_are_not_asked_and_the_preferred_one_is_first() {
    let mut directory = directory();
    directory.probed(Incarnation(1), NodeState::Leaving, 1, at(1), 100);
    for _ in 0..4 {
        let plan = ids(&directory.plan(at(2), Some(Incarnation(3))));
        assert_eq!(plan[..2], [3, 2]);
    }
    assert_ne!(ids(&directory.plan(at(2), Some(Incarnation(1))))[0], 1);
}

#[test]
fn a_preferred_node_of_another_region_is_first_under_its_own_bound() {
    let plan = directory().plan(at(1), Some(Incarnation(6)));
    assert_eq!(ids(&plan), [6, 1, 2, 4, 5]);
    let tiers = [Tier::Nearest, Tier::Local, Tier::NextLocal, Tier::Nearest, Tier::SecondNearest];
    assert!(plan.steps.iter().map(|step| step.tier).eq(tiers));
}

#[test]
fn an_address_belongs_to_whoever_answers_there() {
    let mut directory = directory();
    directory.shook_hands(info(9, "oslo"), address(1), at(5), 100);
    let known: Vec<_> = directory.nodes().map(|node| node.info.incarnation.0).collect();
    assert_eq!(known, [2, 3, 4, 5, 6, 9]);
    assert!(directory.answers_at(address(1)));
    let regions: Vec<&String> = directory.regions().iter().collect();
    assert_eq!(regions, ["rome", "lima", "tokyo"]);
}

#[test]
fn the_ladder_keeps_to_its_bounds_and_the_total() {
    let plan = directory().plan(at(0), None);
    let bounds = TierBounds::default();
    let mut walk = Walk::new(plan.clone(), bounds, Budget::new(at(0), bounds.total_ms));
    let mut now = 0;
    let mut bounds_seen = Vec::new();
    while let Some(attempt) = walk.next_attempt(at(now)) {
        bounds_seen.push(attempt.timeout_ms);
        now += attempt.timeout_ms;
    }
    assert_eq!(bounds_seen, [500, 500, 750, 1_000]);

    let mut short = Walk::new(plan.clone(), bounds, Budget::new(at(0), 700));
    assert_eq!(short.next_attempt(at(0)).map(|a| a.timeout_ms), Some(500));
    assert_eq!(short.next_attempt(at(500)).map(|a| a.timeout_ms), Some(200));
    assert_eq!(short.next_attempt(at(700)), None);

    let mut whole = Walk::new(plan, bounds, Budget::new(at(0), 2_750)).with_whole_budget();
    assert_eq!(whole.next_attempt(at(100)).map(|a| a.timeout_ms), Some(2_650));
}

#[test]
fn a_miss_is_final_unless_the_node_is_warming_or_a_larger_one_is_local() {
    let mut directory = directory();
    let budget = Budget::new(at(0), 2_750);
    let mut walk = Walk::new(directory.plan(at(0), None), TierBounds::default(), budget);
    let first = walk.next_attempt(at(0)).unwrap().step;
    assert!(!walk.missed(&first, true));
    let second = walk.next_attempt(at(1)).unwrap().step;
    assert!(walk.missed(&second, false));

    let larger = NodeInfo { bytes_max: 5_000, ..info(3, "oslo") };
    directory.shook_hands(larger, address(3), at(2), 100);
    while ids(&directory.plan(at(2), None))[0] != 3 {}
    let mut walk = Walk::new(directory.plan(at(3), None), TierBounds::default(), budget);
    let first = walk.next_attempt(at(3)).unwrap().step;
    assert!(!walk.missed(&first, false));
    let larger = walk.next_attempt(at(4)).unwrap().step;
    assert_eq!((first.node.0, larger.node.0), (1, 3));
    assert!(walk.missed(&larger, false));
    assert_eq!(walk.next_attempt(at(5)), None);
}

#[test]
fn what_could_not_be_sent_takes_no_turn_and_makes_nobody_silent() {
    let mut directory = directory();
    for _ in 0..2 {
        let (step, turn) = directory.begin_read(at(1), None).unwrap();
        assert_eq!(step.node, Incarnation(1));
        directory.not_sent(step.node, turn, at(1));
        let (step, turn) = directory.begin_write(at(1), true).unwrap();
        assert_eq!(step.node, Incarnation(1));
        directory.not_sent(step.node, turn, at(1));
    }
    assert_eq!(ids(&directory.plan(at(500), None))[0], 1);
    assert_eq!(ids(&directory.plan_write(at(500)))[0], 1);
    // What others sent in the same millisecond still counts.
    directory.sent(Incarnation(2), at(600));
    let (step, turn) = directory.begin_read(at(600), None).unwrap();
    assert_eq!(step.node, Incarnation(2));
    directory.given_up(step.node, turn, at(600));
    assert!((0..6).all(|_| !ids(&directory.plan(at(700), None)).contains(&2)));
}

#[test]
fn a_read_that_began_goes_on_with_the_plan_of_its_turn() {
    let mut directory = directory();
    let (step, turn) = directory.begin_read(at(1), None).unwrap();
    assert_eq!(ids(&directory.go_on(turn, at(1))), [1, 2, 4, 5]);
    assert_eq!(step.node, Incarnation(1));
    let (step, _) = directory.begin_read(at(1), Some(Incarnation(4))).unwrap();
    assert_eq!((step.node, step.tier), (Incarnation(4), Tier::Nearest));
}

#[test]
fn the_node_for_a_lease_is_the_same_for_all_who_know_the_same_nodes() {
    let keys: Vec<_> = (0..200).map(|n| crate::key::KeyHash::of(&[n])).collect();
    let mut directory = directory();
    for n in [1, 2, 4, 5] {
        assert_eq!(directory.leasing(keys[0], LeaseRange::Region), None);
        directory.has_features(Incarnation(n), features::ALL & !features::LEASES);
    }
    for n in [1, 2, 4, 5] {
        directory.has_features(Incarnation(n), features::LEASES);
    }
    let chosen = |directory: &Directory, range| -> Vec<_> {
        let step = |key: &crate::key::KeyHash| directory.leasing(*key, range).unwrap();
        keys.iter().map(step).map(|step| (step.node.0, step.tier)).collect()
    };
    let of = |chosen: &[(u64, Tier)], node| chosen.iter().filter(|(id, _)| *id == node).count();
    let region = chosen(&directory, LeaseRange::Region);
    assert!(of(&region, 1) > 60 && of(&region, 2) > 60);
    assert_eq!(of(&region, 1) + of(&region, 2), 200);
    let all = chosen(&directory, LeaseRange::All);
    for (node, tier) in
        [(1, Tier::Local), (2, Tier::Local), (4, Tier::Nearest), (5, Tier::SecondNearest)]
    {
        assert!(of(&all, node) > 25, "{node}");
        assert!(all.iter().all(|(id, given)| *id != node || *given == tier), "{node}");
    }
    // When a node goes, only its keys move.
    directory.failed(Incarnation(4), at(1));
    let after = chosen(&directory, LeaseRange::All);
    assert!(all.iter().zip(&after).all(|(before, after)| before.0 == after.0 || before.0 == 4));
    assert_eq!(of(&after, 4), 0);
    let step = directory.leasing(keys[0], LeaseRange::All).unwrap();
    assert!(directory.is_there(&step));
    directory.failed(step.node, at(1));
    assert!(!directory.is_there(&step));
}

#[test]
fn a_node_that_is_silent_for_a_moment_goes_on_giving_leases_until_it_has_failed() {
    let key = crate::key::KeyHash::of(b"k");
    let mut directory = directory();
    for n in [1, 2] {
        directory.has_features(Incarnation(n), features::LEASES);
    }
    let chosen = directory.leasing(key, LeaseRange::Region).unwrap();
    directory.sent(chosen.node, at(0));
    assert!(!directory.node(chosen.node).unwrap().in_rotation(at(400)));
    assert_eq!(directory.leasing(key, LeaseRange::Region), Some(chosen));
    assert!(directory.is_there(&chosen));
    directory.gave_no_answer(chosen.node, at(500));
    let other = directory.leasing(key, LeaseRange::Region).unwrap();
    assert_ne!(other.node, chosen.node);
    directory.answered(chosen.node, at(600), None);
    assert_eq!(directory.leasing(key, LeaseRange::Region), Some(chosen));
}

#[test]
fn all_keys_of_one_call_have_one_turn() {
    let mut directory = directory();
    let turn = directory.take_turn(false);
    assert_eq!(ids(&directory.go_on(turn, at(1))), [1, 2, 4, 5]);
    assert_eq!(ids(&directory.go_on(turn.with_first(Some(Incarnation(3))), at(1))), [3, 1, 4, 5]);
    assert_eq!(ids(&directory.plan(at(1), None))[0], 2);
    assert_eq!(ids(&directory.plan_write(at(1)))[0], 1);
    let turn = directory.take_turn(true);
    assert_eq!(ids(&directory.go_on(turn, at(1)))[0], 2);
}

#[test]
fn a_node_owes_nothing_to_those_who_have_gone() {
    let mut directory = directory();
    assert!(directory.sent(Incarnation(1), at(1)));
    assert!(!directory.sent(Incarnation(1), at(2)));
    directory.not_awaited(Incarnation(1), at(2));
    assert!(!directory.takes_turns(Incarnation(1), at(200)));
    directory.not_awaited(Incarnation(1), at(1));
    assert!(directory.takes_turns(Incarnation(1), at(200)));
}

#[test]
fn when_most_local_nodes_gave_no_answer_all_take_turns_again() {
    let mut directory = directory();
    let firsts = |directory: &mut Directory, now| -> BTreeSet<u64> {
        (0..6).map(|_| ids(&directory.plan(at(now), None))[0]).collect()
    };
    directory.gave_no_answer(Incarnation(1), at(500));
    assert_eq!(firsts(&mut directory, 500), [2, 3].into());
    directory.gave_no_answer(Incarnation(2), at(501));
    assert_eq!(firsts(&mut directory, 501), [1, 2, 3].into());
    let begun: BTreeSet<_> = (0..3)
        .map(|_| directory.begin_read(at(502), None).unwrap())
        .map(|(step, _)| step.node.0)
        .collect();
    assert_eq!(begun, [1, 2, 3].into());
    // What was on its way when they went out says nothing new.
    directory.gave_no_answer(Incarnation(1), at(503));
    assert_eq!(firsts(&mut directory, 503), [1, 2, 3].into());
    // They get the requests of a moment, and no more while they owe an answer.
    directory.answered(Incarnation(3), at(504), None);
    assert_eq!(firsts(&mut directory, 602), [3].into());
    directory.answered(Incarnation(1), at(603), None);
    assert_eq!(firsts(&mut directory, 603), [1, 3].into());
}

#[test]
fn a_probe_that_fails_too_ends_the_doubt() {
    let mut directory = directory();
    for n in 1..=3 {
        directory.gave_no_answer(Incarnation(n), at(500));
    }
    assert_eq!(ids(&directory.plan(at(501), None))[..2], [1, 2]);
    assert_eq!(directory.take_probes(at(750)).len(), 6);
    for n in 1..=3 {
        directory.failed(Incarnation(n), at(760));
    }
    assert_eq!(ids(&directory.plan(at(761), None)), [4, 5]);
    assert!(directory.begin_read(at(761), None).is_none());
}

#[test]
fn nodes_that_refuse_are_out_however_many_they_are() {
    let mut directory = directory();
    directory.failed(Incarnation(1), at(1));
    directory.failed(Incarnation(2), at(1));
    for _ in 0..6 {
        assert_eq!(ids(&directory.plan(at(2), None)), [3, 4, 5]);
    }
    directory.gave_no_answer(Incarnation(3), at(3));
    assert_eq!(ids(&directory.plan(at(4), None)), [3, 4, 5]);
}

#[test]
fn a_node_that_has_too_much_to_do_is_passed_over_for_a_while() {
    let mut directory = directory();
    let firsts = |directory: &mut Directory, now| -> BTreeSet<u64> {
        (0..6).map(|_| ids(&directory.plan(at(now), None))[0]).collect()
    };
    directory.sent(Incarnation(2), at(10));
    directory.overloaded(Incarnation(2), at(11));
    assert_eq!(firsts(&mut directory, 12), [1, 3].into());
    let begun = |directory: &mut Directory, now| -> BTreeSet<u64> {
        let begun = (0..6).map(|_| directory.begin_read(at(now), None).unwrap().0.node.0);
        begun.collect()
    };
    assert_eq!(begun(&mut directory, 12), [1, 3].into());
    assert!((0..3).all(|_| ids(&directory.plan_write(at(12)))[0] != 2));
    // It is alive: it gives leases, and what only it may know yet is asked of it.
    let node = directory.node(Incarnation(2)).unwrap();
    assert!(!node.in_rotation(at(12)) && node.is_reachable(at(12)) && !node.out);
    assert_eq!(ids(&directory.plan(at(12), Some(Incarnation(2))))[0], 2);
    assert_eq!(directory.begin_read(at(12), Some(Incarnation(2))).unwrap().0.node.0, 2);
    // An answer to what was asked before does not bring it back, and time does.
    for n in 1..=3 {
        directory.answered(Incarnation(n), at(13), Some(100));
    }
    assert_eq!(firsts(&mut directory, 260), [1, 3].into());
    assert_eq!(firsts(&mut directory, 261), [1, 2, 3].into());
}

#[test]
fn when_most_have_too_much_to_do_all_take_turns_again() {
    let mut directory = directory();
    directory.overloaded(Incarnation(1), at(1));
    directory.overloaded(Incarnation(2), at(1));
    let firsts: BTreeSet<_> = (0..6).map(|_| ids(&directory.plan(at(2), None))[0]).collect();
    assert_eq!(firsts, [1, 2, 3].into());
    let begun: BTreeSet<_> =
        (0..6).map(|_| directory.begin_write(at(2), true).unwrap().0.node.0).collect();
    assert_eq!(begun, [1, 2, 3].into());
    // Those that are gone are no help.
    directory.failed(Incarnation(3), at(3));
    directory.failed(Incarnation(2), at(3));
    assert_eq!(ids(&directory.plan(at(4), None)), [1, 4, 5]);
}

/// How large a value the first node of the next write takes, as far as is known.
fn taken(directory: &mut Directory, node: u64, now: u64) -> u64 {
    let steps = (0..3).flat_map(|_| directory.plan_write(at(now)).steps).collect::<Vec<_>>();
    let step = steps.iter().find(|step| step.node.0 == node).unwrap();
    step.value_bytes_max
}

#[test]
fn what_a_node_takes_is_remembered_for_a_while() {
    let mut directory = directory();
    assert_eq!(taken(&mut directory, 1, 1), u64::MAX);
    directory.refused_value(Incarnation(1), 9_000, 8_000, at(10));
    assert_eq!(taken(&mut directory, 1, 11), 8_000);
    assert_eq!(taken(&mut directory, 2, 11), u64::MAX, "each speaks for itself");
    // What it says later counts.
    directory.refused_value(Incarnation(1), 9_000, 8_500, at(20));
    assert_eq!(taken(&mut directory, 1, 21), 8_500);
    directory.take_probes(at(60_019));
    assert_eq!(taken(&mut directory, 1, 60_019), 8_500);
    directory.take_probes(at(60_020));
    assert_eq!(taken(&mut directory, 1, 60_020), u64::MAX, "it may be another limit by now");
    // Of one that does not tell the least of what it refused is known.
    directory.refused_value(Incarnation(2), 9_000, 0, at(60_030));
    directory.refused_value(Incarnation(2), 7_000, 0, at(60_030));
    directory.refused_value(Incarnation(2), 8_000, 0, at(60_030));
    assert_eq!(taken(&mut directory, 2, 60_031), 6_999);
    // Another node at its address has a limit of its own.
    directory.shook_hands(info(9, "oslo"), address(2), at(60_040), 100);
    assert_eq!(taken(&mut directory, 9, 60_041), u64::MAX);
}
