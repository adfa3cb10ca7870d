//! Rotation, tiers and budget.

use alloc::{collections::BTreeSet, format, string::String, vec::Vec};
use core::net::SocketAddr;

use super::*;
use crate::{
    time::Instant,
    version::Incarnation,
    wire::{NodeInfo, NodeState, features},
};

pub(crate) fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

pub(crate) fn address(n: u64) -> SocketAddr {
    format!("127.0.0.{n}:6789").parse().unwrap()
}

/// Any key: where every node keeps everything, it makes no difference.
const KEY: crate::key::KeyHash = crate::key::KeyHash(7);

pub(crate) fn info(n: u64, region: &str) -> NodeInfo {
    NodeInfo {
        incarnation: Incarnation(n),
        region: region.into(),
        zone: None,
        addresses: [address(n)].into(),
        state: NodeState::InSync,
        bytes_max: 1_000,
        name: None,
        replicas: crate::cluster::Replicas::All,
    }
}

/// The plans and first steps of operations that begin one after the other.
trait Operations {
    fn next_plan(&mut self, now: Instant, preferred: Option<Incarnation>) -> Plan;
    fn next_write_plan(&mut self, now: Instant) -> Plan;
    fn next_step(&mut self, now: Instant, preferred: Option<Incarnation>) -> Option<Step>;
}

impl Operations for Directory {
    fn next_plan(&mut self, now: Instant, preferred: Option<Incarnation>) -> Plan {
        let ticket = self.take_ticket(false);
        self.plan((ticket, KEY), preferred, now)
    }

    fn next_write_plan(&mut self, now: Instant) -> Plan {
        let ticket = self.take_ticket(true);
        self.plan((ticket, KEY), None, now)
    }

    fn next_step(&mut self, now: Instant, preferred: Option<Incarnation>) -> Option<Step> {
        let ticket = self.take_ticket(false);
        let step = self.first_step((ticket, KEY), preferred, now)?;
        self.request_sent(step.node, now);
        Some(step)
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
        directory.handshake_completed(info(n, region), address(n), at(0), micros);
    }
    directory
}

fn ids(plan: &Plan) -> Vec<u64> {
    plan.steps.iter().map(|step| step.node.0).collect()
}

#[test]
fn local_nodes_rotate_and_regions_follow_by_latency() {
    let mut directory = directory();
    let plans: Vec<_> = (0..4).map(|_| ids(&directory.next_plan(at(1), None))).collect();
    assert_eq!(plans, [[1, 2, 4, 5], [2, 3, 4, 5], [3, 1, 4, 5], [1, 2, 4, 5]]);
}

#[test]
fn nodes_of_the_own_zone_take_turns_before_the_others_of_the_region() {
    let mut directory = Directory::new("oslo");
    directory.set_zone(Some("b".into()));
    for (n, region, zone) in
        [(1, "oslo", "a"), (2, "oslo", "b"), (3, "oslo", "b"), (4, "rome", "b"), (5, "oslo", "c")]
    {
        let info = NodeInfo { zone: Some(zone.into()), ..info(n, region) };
        directory.handshake_completed(info, address(n), at(0), 100);
        directory.set_features(Incarnation(n), features::FEED, at(0));
    }
    let (mut first, mut plans) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let ticket = directory.take_ticket(false);
        first.push(directory.first_step((ticket, KEY), None, at(1)).unwrap().node.0);
        plans.push(ids(&directory.plan((ticket, KEY), None, at(1))));
    }
    assert_eq!(first, [2, 3, 2, 3]);
    assert_eq!(plans, [[2, 3, 4], [3, 2, 4], [2, 3, 4], [3, 2, 4]]);
    let (followed, _) = directory.next_feed_node(at(1)).unwrap();
    assert!([2, 3].contains(&followed.0));
    // Another zone serves when one node of the own is left, and when none is.
    directory.request_failed(Incarnation(2), at(1));
    let plans: Vec<_> = (0..2).map(|_| ids(&directory.next_plan(at(1), None))).collect();
    assert_eq!(plans, [[3, 1, 4], [3, 5, 4]]);
    directory.request_failed(Incarnation(3), at(1));
    let ticket = directory.take_ticket(false);
    let step = directory.first_step((ticket, KEY), None, at(1)).unwrap();
    assert!([1, 5].contains(&step.node.0));
    // Nothing changes for a client without a zone.
    directory.set_zone(None);
    for (n, zone) in [(2, "b"), (3, "b")] {
        let info = NodeInfo { zone: Some(zone.into()), ..info(n, "oslo") };
        directory.handshake_completed(info, address(n), at(2), 100);
    }
    let nodes: Vec<_> = (0..4).map(|_| ids(&directory.next_plan(at(3), None))[0]).collect();
    assert_eq!(nodes.iter().collect::<alloc::collections::BTreeSet<_>>().len(), 4, "{nodes:?}");
}

#[test]
fn a_node_in_sync_is_followed_until_it_fails() {
    let mut directory = directory();
    directory.set_features(Incarnation(2), features::FEED, at(0));
    let (node, _) = directory.next_feed_node(at(1)).unwrap();
    assert_eq!(node, Incarnation(2));
    // It owes an answer for a while: others are asked meanwhile, and it is followed as before.
    directory.request_sent(node, at(1));
    assert!(!directory.in_rotation(node, at(200)) && directory.can_follow(node));
    directory.probe_answered(node, NodeState::Warming, 1, at(300), 100);
    assert!(directory.in_rotation(node, at(300)) && !directory.can_follow(node));
    directory.probe_answered(node, NodeState::InSync, 1, at(400), 100);
    assert!(directory.can_follow(node));
    directory.request_timed_out(node, at(500));
    assert!(!directory.can_follow(node));
    assert!(!directory.can_follow(Incarnation(7)), "nobody knows it");
    // Who listens needs a node that tells more.
    assert!(!directory.has_listen_node(at(500)) && directory.next_listen_node(at(500)).is_none());
    directory.set_features(Incarnation(3), features::FEED | features::LISTEN, at(0));
    assert!(directory.has_listen_node(at(500)) && directory.can_listen(Incarnation(3)));
    assert_eq!(directory.next_listen_node(at(500)).unwrap().0, Incarnation(3));
}

#[test]
fn a_failed_node_is_skipped_and_never_a_constant_first_choice() {
    let mut directory = directory();
    directory.request_failed(Incarnation(2), at(1));
    let firsts: Vec<_> = (0..6).map(|_| ids(&directory.next_plan(at(2), None))[0]).collect();
    assert_eq!(firsts, [1, 3, 1, 3, 1, 3]);
    directory.probe_answered(Incarnation(2), NodeState::InSync, 1, at(300), 100);
    let firsts: Vec<_> = (0..3).map(|_| ids(&directory.next_plan(at(301), None))[0]).collect();
    assert_eq!(firsts.iter().filter(|id| **id == 2).count(), 1);
}

#[test]
fn a_silent_node_is_passed_over_before_its_request_times_out() {
    let mut directory = directory();
    directory.request_sent(Incarnation(1), at(0));
    assert!((0..3).any(|_| ids(&directory.next_plan(at(50), None))[0] == 1));
    assert!((0..6).all(|_| !ids(&directory.next_plan(at(100), None)).contains(&1)));
    directory.record_answer(Incarnation(1), at(101), None);
    assert!((0..3).any(|_| ids(&directory.next_plan(at(102), None))[0] == 1));
}

#[test]
fn with_no_local_node_the_nearest_regions_are_asked() {
    let mut directory = directory();
    for n in 1..=4 {
        directory.request_failed(Incarnation(n), at(1));
    }
    let plan = directory.next_plan(at(2), None);
    assert_eq!(ids(&plan), [5, 6]);
    assert_eq!(plan.steps[0].tier, Tier::Nearest);
}

#[test]
fn when_all_are_out_all_are_tried() {
    let mut directory = directory();
    for n in 1..=6 {
        directory.request_failed(Incarnation(n), at(1));
    }
    assert_eq!(ids(&directory.next_plan(at(2), None)).len(), 4);
}

#[test]
fn leaving_nodes_are_not_asked_and_the_preferred_one_is_first() {
    let mut directory = directory();
    directory.probe_answered(Incarnation(1), NodeState::Leaving, 1, at(1), 100);
    for _ in 0..4 {
        let plan = ids(&directory.next_plan(at(2), Some(Incarnation(3))));
        assert_eq!(plan[..2], [3, 2]);
    }
    assert_ne!(ids(&directory.next_plan(at(2), Some(Incarnation(1))))[0], 1);
}

#[test]
fn a_preferred_node_of_another_region_is_first_under_its_own_bound() {
    let plan = directory().next_plan(at(1), Some(Incarnation(6)));
    assert_eq!(ids(&plan), [6, 1, 2, 4, 5]);
    let tiers = [Tier::Nearest, Tier::Local, Tier::NextLocal, Tier::Nearest, Tier::SecondNearest];
    assert!(plan.steps.iter().map(|step| step.tier).eq(tiers));
}

#[test]
fn an_address_belongs_to_the_node_that_answered_there_last() {
    let mut directory = directory();
    directory.handshake_completed(info(9, "oslo"), address(1), at(5), 100);
    let known: Vec<_> = directory.nodes().map(|node| node.info.incarnation.0).collect();
    assert_eq!(known, [2, 3, 4, 5, 6, 9]);
    assert!(directory.answers_at(address(1)));
    let regions: Vec<&String> = directory.regions().iter().collect();
    assert_eq!(regions, ["rome", "lima", "tokyo"]);
}

#[test]
fn attempts_keep_to_the_tier_bounds_and_the_total() {
    let plan = directory().next_plan(at(0), None);
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
fn a_miss_is_authoritative_unless_the_node_is_warming_or_a_larger_one_is_local() {
    let mut directory = directory();
    let budget = Budget::new(at(0), 2_750);
    let mut walk = Walk::new(directory.next_plan(at(0), None), TierBounds::default(), budget);
    let first = walk.next_attempt(at(0)).unwrap().step;
    assert!(!walk.missed(&first, true));
    let second = walk.next_attempt(at(1)).unwrap().step;
    assert!(walk.missed(&second, false));

    let larger = NodeInfo { bytes_max: 5_000, ..info(3, "oslo") };
    directory.handshake_completed(larger, address(3), at(2), 100);
    while ids(&directory.next_plan(at(2), None))[0] != 3 {}
    let mut walk = Walk::new(directory.next_plan(at(3), None), TierBounds::default(), budget);
    let first = walk.next_attempt(at(3)).unwrap().step;
    assert!(!walk.missed(&first, false));
    let larger = walk.next_attempt(at(4)).unwrap().step;
    assert_eq!((first.node.0, larger.node.0), (1, 3));
    assert!(walk.missed(&larger, false));
    assert_eq!(walk.next_attempt(at(5)), None);
}

#[test]
fn a_first_step_is_that_of_the_plan_of_its_ticket() {
    let mut directory = directory();
    let ticket = directory.take_ticket(false);
    let step = directory.first_step((ticket, KEY), None, at(1)).unwrap();
    assert_eq!(step.node, Incarnation(1));
    assert_eq!(ids(&directory.plan((ticket, KEY), None, at(1))), [1, 2, 4, 5]);
    let step = directory.next_step(at(1), Some(Incarnation(4))).unwrap();
    assert_eq!((step.node, step.tier), (Incarnation(4), Tier::Nearest));
}

#[test]
fn clients_that_know_the_same_nodes_choose_the_same_lease_node() {
    let keys: Vec<_> = (0..200).map(|n| crate::key::KeyHash::of(&[n])).collect();
    let mut directory = directory();
    for n in [1, 2, 4, 5] {
        assert_eq!(directory.lease_node(keys[0], LeaseRange::Region), None);
        directory.set_features(Incarnation(n), features::ALL & !features::LEASES, at(0));
    }
    for n in [1, 2, 4, 5] {
        directory.set_features(Incarnation(n), features::LEASES, at(0));
    }
    let chosen = |directory: &Directory, range| -> Vec<_> {
        let step = |key: &crate::key::KeyHash| directory.lease_node(*key, range).unwrap();
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
    directory.request_failed(Incarnation(4), at(1));
    let after = chosen(&directory, LeaseRange::All);
    assert!(all.iter().zip(&after).all(|(before, after)| before.0 == after.0 || before.0 == 4));
    assert_eq!(of(&after, 4), 0);
    let step = directory.lease_node(keys[0], LeaseRange::All).unwrap();
    assert!(directory.is_available(&step));
    directory.request_failed(step.node, at(1));
    assert!(!directory.is_available(&step));
}

#[test]
fn a_silent_node_keeps_its_leases_until_it_has_failed() {
    let key = crate::key::KeyHash::of(b"k");
    let mut directory = directory();
    for n in [1, 2] {
        directory.set_features(Incarnation(n), features::LEASES, at(0));
    }
    let chosen = directory.lease_node(key, LeaseRange::Region).unwrap();
    directory.request_sent(chosen.node, at(0));
    assert!(!directory.node(chosen.node).unwrap().in_rotation(at(400)));
    assert_eq!(directory.lease_node(key, LeaseRange::Region), Some(chosen));
    assert!(directory.is_available(&chosen));
    directory.request_timed_out(chosen.node, at(500));
    let other = directory.lease_node(key, LeaseRange::Region).unwrap();
    assert_ne!(other.node, chosen.node);
    directory.record_answer(chosen.node, at(600), None);
    assert_eq!(directory.lease_node(key, LeaseRange::Region), Some(chosen));
}

#[test]
fn all_keys_of_a_batch_share_a_ticket_and_writes_rotate_apart() {
    let mut directory = directory();
    let ticket = directory.take_ticket(false);
    assert_eq!(ids(&directory.plan((ticket, KEY), None, at(1))), [1, 2, 4, 5]);
    assert_eq!(ids(&directory.plan((ticket, KEY), Some(Incarnation(3)), at(1))), [3, 1, 4, 5]);
    assert_eq!(ids(&directory.next_plan(at(1), None))[0], 2);
    assert_eq!(ids(&directory.next_write_plan(at(1)))[0], 1);
    assert_eq!(ids(&directory.next_write_plan(at(1)))[0], 2);
}

#[test]
fn an_abandoned_request_does_not_make_a_node_silent() {
    let mut directory = directory();
    assert!(directory.request_sent(Incarnation(1), at(1)));
    assert!(!directory.request_sent(Incarnation(1), at(2)));
    directory.answer_abandoned(Incarnation(1), at(2));
    assert!(!directory.in_rotation(Incarnation(1), at(200)));
    directory.answer_abandoned(Incarnation(1), at(1));
    assert!(directory.in_rotation(Incarnation(1), at(200)));
}

#[test]
fn when_most_local_nodes_time_out_all_rejoin_the_rotation() {
    let mut directory = directory();
    let firsts = |directory: &mut Directory, now| -> BTreeSet<u64> {
        (0..6).map(|_| ids(&directory.next_plan(at(now), None))[0]).collect()
    };
    directory.request_timed_out(Incarnation(1), at(500));
    assert_eq!(firsts(&mut directory, 500), [2, 3].into());
    directory.request_timed_out(Incarnation(2), at(501));
    assert_eq!(firsts(&mut directory, 501), [1, 2, 3].into());
    let begun: BTreeSet<_> = (0..3)
        .map(|_| directory.next_step(at(502), None).unwrap().node)
        .map(|node| node.0)
        .collect();
    assert_eq!(begun, [1, 2, 3].into());
    // What was on its way when they went out says nothing new.
    directory.request_timed_out(Incarnation(1), at(503));
    assert_eq!(firsts(&mut directory, 503), [1, 2, 3].into());
    // They get the requests of a moment, and no more while they owe an answer.
    directory.record_answer(Incarnation(3), at(504), None);
    assert_eq!(firsts(&mut directory, 602), [3].into());
    directory.record_answer(Incarnation(1), at(603), None);
    assert_eq!(firsts(&mut directory, 603), [1, 3].into());
}

#[test]
fn a_failed_probe_confirms_a_time_out() {
    let mut directory = directory();
    for n in 1..=3 {
        directory.request_timed_out(Incarnation(n), at(500));
    }
    assert_eq!(ids(&directory.next_plan(at(501), None))[..2], [1, 2]);
    assert_eq!(directory.take_due_probes(at(750)).len(), 6);
    for n in 1..=3 {
        directory.request_failed(Incarnation(n), at(760));
    }
    assert_eq!(ids(&directory.next_plan(at(761), None)), [4, 5]);
    assert!(directory.next_step(at(761), None).is_none());
}

#[test]
fn nodes_that_refuse_connections_stay_out() {
    let mut directory = directory();
    directory.request_failed(Incarnation(1), at(1));
    directory.request_failed(Incarnation(2), at(1));
    for _ in 0..6 {
        assert_eq!(ids(&directory.next_plan(at(2), None)), [3, 4, 5]);
    }
    directory.request_timed_out(Incarnation(3), at(3));
    assert_eq!(ids(&directory.next_plan(at(4), None)), [3, 4, 5]);
}

#[test]
fn an_overloaded_node_is_passed_over_for_a_while() {
    let mut directory = directory();
    let firsts = |directory: &mut Directory, now| -> BTreeSet<u64> {
        (0..6).map(|_| ids(&directory.next_plan(at(now), None))[0]).collect()
    };
    directory.request_sent(Incarnation(2), at(10));
    directory.record_overload(Incarnation(2), at(11));
    assert_eq!(firsts(&mut directory, 12), [1, 3].into());
    let begun = |directory: &mut Directory, now| -> BTreeSet<u64> {
        let begun = (0..6).map(|_| directory.next_step(at(now), None).unwrap().node.0);
        begun.collect()
    };
    assert_eq!(begun(&mut directory, 12), [1, 3].into());
    assert!((0..3).all(|_| ids(&directory.next_write_plan(at(12)))[0] != 2));
    // It is alive: it gives leases, and what only it may know yet is asked of it.
    let node = directory.node(Incarnation(2)).unwrap();
    assert!(!node.in_rotation(at(12)) && node.is_reachable(at(12)) && !node.out);
    assert_eq!(ids(&directory.next_plan(at(12), Some(Incarnation(2))))[0], 2);
    assert_eq!(directory.next_step(at(12), Some(Incarnation(2))).unwrap().node.0, 2);
    // An answer to what was asked before does not bring it back, and time does.
    for n in 1..=3 {
        directory.record_answer(Incarnation(n), at(13), Some(100));
    }
    assert_eq!(firsts(&mut directory, 260), [1, 3].into());
    assert_eq!(firsts(&mut directory, 261), [1, 2, 3].into());
}

#[test]
fn when_most_are_overloaded_all_rejoin_the_rotation() {
    let mut directory = directory();
    directory.record_overload(Incarnation(1), at(1));
    directory.record_overload(Incarnation(2), at(1));
    let firsts: BTreeSet<_> = (0..6).map(|_| ids(&directory.next_plan(at(2), None))[0]).collect();
    assert_eq!(firsts, [1, 2, 3].into());
    let begun: BTreeSet<_> =
        (0..6).map(|_| directory.next_step(at(2), None).unwrap().node.0).collect();
    assert_eq!(begun, [1, 2, 3].into());
    // Those that are gone are no help.
    directory.request_failed(Incarnation(3), at(3));
    directory.request_failed(Incarnation(2), at(3));
    assert_eq!(ids(&directory.next_plan(at(4), None)), [1, 4, 5]);
}

/// How large a value the first node of the next write takes, as far as is known.
fn taken(directory: &mut Directory, node: u64, now: u64) -> u64 {
    let steps = (0..3).flat_map(|_| directory.next_write_plan(at(now)).steps).collect::<Vec<_>>();
    let step = steps.iter().find(|step| step.node.0 == node).unwrap();
    step.value_bytes_max
}

#[test]
fn a_value_limit_is_remembered_for_a_while() {
    let mut directory = directory();
    assert_eq!(taken(&mut directory, 1, 1), u64::MAX);
    directory.record_value_limit(Incarnation(1), 9_000, 8_000, at(10));
    assert_eq!(taken(&mut directory, 1, 11), 8_000);
    assert_eq!(taken(&mut directory, 2, 11), u64::MAX, "each speaks for itself");
    // What it says later counts.
    directory.record_value_limit(Incarnation(1), 9_000, 8_500, at(20));
    assert_eq!(taken(&mut directory, 1, 21), 8_500);
    directory.take_due_probes(at(60_019));
    assert_eq!(taken(&mut directory, 1, 60_019), 8_500);
    directory.take_due_probes(at(60_020));
    assert_eq!(taken(&mut directory, 1, 60_020), u64::MAX, "it may be another limit by now");
    // Of one that does not tell the least of what it refused is known.
    directory.record_value_limit(Incarnation(2), 9_000, 0, at(60_030));
    directory.record_value_limit(Incarnation(2), 7_000, 0, at(60_030));
    directory.record_value_limit(Incarnation(2), 8_000, 0, at(60_030));
    assert_eq!(taken(&mut directory, 2, 60_031), 6_999);
    // Another node at its address has a limit of its own.
    directory.handshake_completed(info(9, "oslo"), address(2), at(60_040), 100);
    assert_eq!(taken(&mut directory, 9, 60_041), u64::MAX);
}
