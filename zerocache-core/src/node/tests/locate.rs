//! Requests for the copies of keys, whichever node is asked.

use alloc::{vec, vec::Vec};

use super::{
    network::{Network, WALL_MS, address, key},
    prelude::*,
};
use crate::{
    entry::{Change, Record},
    locate::{CopyState, Judgement, NodeCopies, Reply, Spread, Verdict},
    purge::{PurgeMode, PurgeTarget},
    wire::{Ack, features},
};

/// Asks node `n` and waits for the answer.
fn ask(network: &mut Network, n: u64, spread: Spread) -> (Vec<NodeCopies>, u64) {
    let keys = vec![key("k")];
    let id = network.ask(n, Request::Locate { keys, digest: true, spread });
    let took = network.run_until(10_000, |network| network.answers.contains_key(&id));
    match network.answers.remove(&id) {
        Some(Response::Located(nodes)) => (nodes, took),
        other => panic!("{other:?}"),
    }
}

/// The verdict on each node, by its number.
fn verdicts(nodes: &[NodeCopies]) -> Vec<(u64, Verdict)> {
    let judgement = Judgement::of(nodes, 0);
    nodes.iter().map(|node| node.node.incarnation.0).zip(judgement.verdicts).collect()
}

/// Stores a version in one node alone.
fn store(network: &mut Network, n: u64, (stamp_ms, value, life_ms): (u64, &str, u64)) {
    let now = network.now();
    let change = Change::Put {
        value: Bytes::copy_from_slice(value.as_bytes()),
        metadata: Bytes::new(),
        expires: now.mono.plus_ms(life_ms),
    };
    let version = Version::new((WALL_MS + stamp_ms) << Version::COUNTER_BITS, Incarnation(1));
    let node = network.nodes.get_mut(&address(n)).unwrap();
    node.replica.store.apply(&Record { key: key("k"), version, change }, now);
}

#[test]
fn every_node_gives_the_same_answer() {
    let mut network = Network::six();
    network.put(3, "k", "v", Ack::All);
    network.run(100);
    let (first, _) = ask(&mut network, 1, Spread::Cluster);
    assert_eq!(first.len(), 6);
    assert!(first.iter().all(|node| node.copies[0].state == CopyState::Value));
    assert!(verdicts(&first).iter().all(|(_, verdict)| *verdict == Verdict::Same));
    for n in 2..=6 {
        let (mut nodes, took) = ask(&mut network, n, Spread::Cluster);
        for (node, first) in nodes.iter_mut().zip(&first) {
            node.copies[0].remaining_ms = first.copies[0].remaining_ms;
            node.copies[0].fresh_ms = first.copies[0].fresh_ms;
        }
        assert_eq!(nodes, first, "node {n}");
        assert!(took < 30, "{took} ms");
    }
    let (region, _) = ask(&mut network, 4, Spread::Region);
    let regions: Vec<_> = region.iter().map(|node| node.node.region.as_str()).collect();
    assert_eq!(regions, ["b", "b"]);
    let (own, _) = ask(&mut network, 4, Spread::Node);
    assert_eq!((own.len(), own[0].node.incarnation.0), (1, 4));
}

#[test]
fn damaged_lagging_evicted_and_missing_copies_are_told_apart() {
    let mut network = Network::six();
    let copies = [
        (2, "new", 60_000),
        (2, "new", 60_000),
        (2, "bad", 60_000),
        (1, "old", 60_000),
        (2, "", 0),
    ];
    for (n, copy) in (1..).zip(copies) {
        store(&mut network, n, copy);
    }
    let (nodes, _) = ask(&mut network, 6, Spread::Cluster);
    use Verdict::{Behind, Damaged, Evicted, Missing, Same};
    let expected = [(1, Same), (2, Same), (3, Damaged), (4, Behind), (5, Evicted), (6, Missing)];
    assert_eq!(verdicts(&nodes), expected);
}

#[test]
fn frozen_nodes_are_listed_in_time_whoever_is_asked() {
    let mut network = Network::six();
    network.put(1, "k", "v", Ack::All);
    network.run(100);
    // A local one is waited for less long than the contact of another region, whose place another one takes.
    for (asked, frozen) in [(1, 2), (1, 3), (1, 4), (5, 2)] {
        network.frozen.insert(address(frozen));
        let (nodes, took) = ask(&mut network, asked, Spread::Cluster);
        assert!(took <= 1_450, "{took} ms, asked {asked}, frozen {frozen}");
        assert_eq!(nodes.len(), 6);
        for (n, verdict) in verdicts(&nodes) {
            let expected = if n == frozen { Verdict::Unreachable } else { Verdict::Same };
            assert_eq!(verdict, expected, "node {n}, asked {asked}, frozen {frozen}");
        }
        network.frozen.remove(&address(frozen));
        network.run(6_000);
    }
}

#[test]
fn drained_node_says_what_it_holds() {
    let mut network = Network::six();
    network.put(1, "k", "v", Ack::All);
    network.run(100);
    network.input(address(2), Input::Drain);
    network.run(100);
    for asked in [1, 3] {
        let (nodes, _) = ask(&mut network, asked, Spread::Cluster);
        let drained = nodes.iter().find(|node| node.node.incarnation.0 == 2).unwrap();
        assert_eq!(drained.state(), Some(NodeState::Leaving));
        assert_eq!(drained.copies[0].state, CopyState::Value);
    }
}

#[test]
fn node_of_an_earlier_release_is_listed_and_not_asked() {
    let mut network = Network::default();
    network.without = features::LOCATE;
    network.start(2, "a", &[1]);
    network.start(3, "b", &[1]);
    network.without = 0;
    network.start(1, "a", &[]);
    network.start(4, "c", &[1]);
    network.run(3_000);
    let (nodes, took) = ask(&mut network, 1, Spread::Cluster);
    let replies: Vec<_> = nodes.iter().map(|node| (node.node.incarnation.0, node.reply)).collect();
    let expected = [
        (1, Reply::Answered),
        (2, Reply::Unsupported),
        (3, Reply::Unsupported),
        (4, Reply::Answered),
    ];
    assert_eq!(replies, expected);
    assert!(took < 30, "{took} ms");
}

#[test]
fn requests_at_a_time_are_bounded() {
    let mut network = Network::six();
    network.frozen.insert(address(2));
    let ask = || Request::Locate { keys: vec![key("k")], digest: false, spread: Spread::Region };
    let ids: Vec<_> = (0..20).map(|_| network.ask(1, ask())).collect();
    let refused = ids.iter().filter(|id| {
        let answer = network.answers.get(id);
        matches!(answer, Some(Response::Refused(refusal)) if refusal.code == RefusalCode::Overloaded)
    });
    assert_eq!(refused.count(), 4);
    network.run(1_000);
    assert!(ids.iter().all(|id| network.answers.contains_key(id)));
    // A caller is answered before it gives up, and the place is free again.
    let id = network.ask(1, ask());
    network.run(1_000);
    assert!(matches!(network.answers[&id], Response::Located(_)));
}

#[test]
fn purge_is_found_under_its_key_and_its_victims_are_marked() {
    let mut network = Network::six();
    network.put(1, "k", "v", Ack::All);
    network.run(100);
    let target = PurgeTarget::Everything;
    network.ask(
        4,
        Request::Purge {
            target: target.clone(),
            mode: PurgeMode::Hard,
            hold_ms: 0,
            ack: Ack::All,
            replayed: None,
        },
    );
    // Before the sweep.
    network.run(9);
    let keys = vec![target.key(PurgeMode::Hard), key("k")];
    let id = network.ask(4, Request::Locate { keys, digest: false, spread: Spread::Node });
    let Some(Response::Located(nodes)) = network.answers.get(&id) else { panic!("no answer") };
    let [purge, victim] = &nodes[0].copies[..] else { panic!("{nodes:?}") };
    assert_eq!(purge.state, CopyState::Value);
    assert_eq!(victim.state, CopyState::Tombstone);
    assert!(victim.is_purged && purge.has(victim.version.unwrap()));
}
