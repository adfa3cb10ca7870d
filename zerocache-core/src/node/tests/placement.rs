//! Where values are when not every node keeps everything: after writes, and while owners change.

use alloc::{format, string::String, vec, vec::Vec};

use bytes::Bytes;

use super::{
    network::{Network, address, key},
    prelude::*,
};
use crate::{ttl::Ttl, wire::Ack};

pub(super) const KEYS: usize = 200;

/// A region of nodes 1 to `nodes`, of which `replicas` keep a value.
pub(super) fn region(nodes: u64, replicas: u64) -> Network {
    let mut network = Network::default();
    network.replicas = replicas;
    (1..=nodes).for_each(|n| network.start(n, "a", &[1]));
    network.run(8_000);
    network
}

impl Network {
    pub(super) fn put_long(&mut self, n: u64, name: &str, value: &str, ack: Ack) -> RequestId {
        let value = Bytes::copy_from_slice(value.as_bytes());
        let ttl = Ttl::from_secs(86_400).unwrap();
        self.write(n, name, WriteOp::Put { value, metadata: Bytes::new(), ttl }, ack)
    }

    /// Writes keys `k0`, `k1` and so on at nodes in turn.
    pub(super) fn fill_keys(&mut self, nodes: &[u64], value: &str) {
        for k in 0..KEYS {
            let node = nodes[k % nodes.len()];
            self.put_long(node, &format!("k{k}"), value, Ack::Region);
            self.run(1);
        }
        self.run(1_000);
    }

    /// The nodes that hold a value of a key.
    pub(super) fn holders(&self, name: &str) -> Vec<(u64, String)> {
        let mut holders = Vec::new();
        for node in self.nodes.values() {
            let now = node.local.clocks.adjust(self.now());
            if let Some(entry) = node.replica.store.peek(&key(name), now).hit() {
                let value = String::from_utf8(entry.value.to_vec()).unwrap();
                holders.push((node.local.id().0, value));
            }
        }
        holders.sort_unstable();
        holders
    }

    /// The owners of a key, as a node sees it.
    pub(super) fn owners(&self, n: u64, name: &str) -> Vec<u64> {
        let placement = self.nodes[&address(n)].membership.view.placement();
        let mut owners: Vec<_> = placement.owners(key(name).hash()).iter().map(|id| id.0).collect();
        owners.sort_unstable();
        owners
    }

    /// The first key that is not held by exactly its owners, all with this value.
    pub(super) fn misplaced(&self, n: u64, value: &str) -> Option<String> {
        (0..KEYS).map(|k| format!("k{k}")).find_map(|name| {
            let holders = self.holders(&name);
            let ids: Vec<_> = holders.iter().map(|(id, _)| *id).collect();
            let owners = self.owners(n, &name);
            let is_right = ids == owners && holders.iter().all(|(_, held)| held == value);
            (!is_right).then(|| format!("{name}: owned by {owners:?}, held by {holders:?}"))
        })
    }

    pub(super) fn get(&mut self, n: u64, name: &str) -> Option<String> {
        let id = self.ask(n, Request::Get { key: key(name) });
        self.run(50);
        match self.answers.get(&id) {
            Some(Response::Found { value, .. }) => Some(String::from_utf8(value.to_vec()).unwrap()),
            Some(Response::NotFound { .. }) => None,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn is_authoritative(&self, n: u64) -> bool {
        self.nodes[&address(n)].misses_are_authoritative()
    }

    /// Gives a node that has just started a name.
    pub(super) fn name(&mut self, n: u64, name: &str) {
        let node = self.nodes.get_mut(&address(n)).unwrap();
        node.local.config.info.name = Some(name.into());
    }

    pub(super) fn kill(&mut self, n: u64) {
        self.nodes.remove(&address(n));
    }

    /// Waits until every key is held by exactly its owners.
    pub(super) fn run_until_placed(&mut self, n: u64, value: &str, most_ms: u64) -> u64 {
        let start = self.now_ms;
        while let Some(misplaced) = self.misplaced(n, value) {
            assert!(self.now_ms - start < most_ms, "{misplaced}");
            self.run(100);
        }
        self.now_ms - start
    }
}

#[test]
fn owners_keep_values_and_the_others_versions() {
    for replicas in [1, 2, 3] {
        let mut network = region(5, replicas);
        network.fill_keys(&[1, 2, 3, 4, 5], "v");
        network.run(2_000);
        assert_eq!(network.misplaced(1, "v"), None);
        for k in 0..KEYS {
            let hash = key(&format!("k{k}")).hash();
            let versions = network.nodes.values().map(|node| node.replica.store.version(hash));
            let versions: Vec<_> = versions.collect();
            assert!(versions.iter().all(|version| version.is_some() && *version == versions[0]));
        }
        assert!((1..=5).all(|n| network.is_authoritative(n)));
        let held = |n| network.nodes[&address(n)].replica.store.entry_count();
        let counts: Vec<_> = (1..=5).map(held).collect();
        assert_eq!(counts.iter().sum::<u64>(), KEYS as u64 * replicas);
    }
}

#[test]
fn deletes_and_new_values_reach_owners_and_witnesses() {
    let mut network = region(5, 2);
    network.fill_keys(&[1, 2], "old");
    network.fill_keys(&[4, 5], "new");
    assert_eq!(network.misplaced(1, "new"), None);
    for k in 0..KEYS {
        network.write(1 + k as u64 % 5, &format!("k{k}"), WriteOp::Delete, Ack::Region);
        network.run(1);
    }
    network.run(100);
    assert!((0..KEYS).all(|k| network.holders(&format!("k{k}")).is_empty()));
}

#[test]
fn acknowledgements_count_owners() {
    let mut network = region(5, 2);
    for k in 0..20 {
        let name = format!("k{k}");
        let owners = network.owners(1, &name);
        let id = network.put(1, &name, "v", Ack::Region);
        network.run(20);
        let written = network.written(id).unwrap();
        // The accepting node keeps it until the owners have it.
        let replicas = 1 + owners.iter().filter(|owner| **owner != 1).count() as u32;
        assert_eq!((written.replicas, written.replicas_wanted), (replicas, replicas));
    }
}

#[test]
fn lost_node_is_replaced_by_the_next_owner() {
    let mut network = region(5, 2);
    network.fill_keys(&[1, 2, 3, 4, 5], "v");
    network.kill(3);
    // Both copies of no key were there.
    network.run(4_000);
    for k in 0..KEYS {
        assert_eq!(network.get(1 + k as u64 % 2, &format!("k{k}")).as_deref(), Some("v"), "k{k}");
    }
    let ms = network.run_until_placed(1, "v", 60_000);
    assert!(ms < 45_000, "{ms}");
    network.run(3_000);
    assert!([1, 2, 4, 5].iter().all(|n| network.is_authoritative(*n)));
}

#[test]
fn new_node_takes_its_share_and_no_miss_is_authoritative_before() {
    let mut network = region(4, 2);
    network.fill_keys(&[1, 2, 3, 4], "v");
    network.start(5, "a", &[1]);
    // No node takes a value for absent that another one has.
    for _ in 0..100 {
        network.run(100);
        for n in 1..=5 {
            let node = &network.nodes[&address(n)];
            if !node.misses_are_authoritative() {
                continue;
            }
            for k in 0..KEYS {
                let name = key(&format!("k{k}"));
                let keeps = node.membership.view.keeps(node.local.id(), &name);
                let has = node.replica.store.peek(&name, network.now()).hit().is_some();
                assert!(has || !keeps, "node {n} takes k{k} for absent");
            }
        }
    }
    assert_eq!(network.misplaced(1, "v"), None);
    assert!((1..=5).all(|n| network.is_authoritative(n)));
    let counts = network.nodes[&address(5)].repair.handover_counts();
    assert!(counts.adopted > 0, "{counts:?}");
}

#[test]
fn node_that_returns_under_its_name_gets_its_keys_back() {
    let mut network = region(4, 2);
    network.fill_keys(&[1, 2, 3, 4], "v");
    let before: Vec<_> = (0..KEYS).map(|k| network.owners(1, &format!("k{k}"))).collect();
    network.kill(2);
    network.run(5_000);
    // Another process at the same address and with the same name.
    network.start_in("test", 2, 20, "a", &[1]);
    network.run_until_placed(1, "v", 10_000);
    for (k, owners) in before.into_iter().enumerate() {
        let mut after = network.owners(1, &format!("k{k}"));
        after.iter_mut().for_each(|owner| *owner = if *owner == 20 { 2 } else { *owner });
        after.sort_unstable();
        assert_eq!(after, owners, "k{k}");
    }
}

#[test]
fn halves_that_were_apart_agree_again() {
    for replicas in [1, 2] {
        let mut network = region(4, replicas);
        network.fill_keys(&[1, 2, 3, 4], "v");
        let set = |network: &mut Network, is_up| {
            for (a, b) in [(1, 3), (1, 4), (2, 3), (2, 4)] {
                network.set_link(a, b, is_up);
            }
        };
        set(&mut network, false);
        // Each half takes all keys over.
        network.run(40_000);
        network.fill_keys(&[1, 2], "left");
        network.run(500);
        network.fill_keys(&[3, 4], "right");
        network.run(40_000);
        set(&mut network, true);
        network.run_until_placed(1, "right", 60_000);
    }
}

#[test]
fn two_changes_within_one_handover_lose_nothing() {
    let mut network = region(4, 2);
    network.fill_keys(&[1, 2, 3, 4], "v");
    network.start(5, "a", &[1]);
    network.run(2_500);
    network.start(6, "a", &[1]);
    network.run(1_200);
    network.kill(5);
    network.run_until_placed(1, "v", 60_000);
}

#[test]
fn deletes_during_a_handover_stay_deleted() {
    let mut network = region(4, 2);
    network.fill_keys(&[1, 2, 3, 4], "v");
    network.start(5, "a", &[1]);
    for k in 0..KEYS {
        network.write(1 + k as u64 % 4, &format!("k{k}"), WriteOp::Delete, Ack::Local);
        network.run(25);
    }
    network.run(40_000);
    assert!((0..KEYS).all(|k| network.holders(&format!("k{k}")).is_empty()));
}

#[test]
fn one_node_for_all_makes_all_keep_everything() {
    let mut network = region(3, 2);
    network.fill_keys(&[1, 2, 3], "v");
    network.replicas = 0;
    network.start(4, "a", &[1]);
    let all: Vec<_> = (1..=4).map(|n| (n, String::from("v"))).collect();
    let is_everywhere =
        |network: &Network| (0..KEYS).all(|k| network.holders(&format!("k{k}")) == all);
    network.run_until(60_000, is_everywhere);
    network.run_until(10_000, |network| (1..=4).all(|n| network.is_authoritative(n)));
    assert!(network.nodes[&address(1)].membership.view.placement().is_everyone());
    // And back.
    network.kill(4);
    network.run(31_000);
    network.run_until_placed(1, "v", 30_000);
}

#[test]
fn values_are_found_while_nodes_change_to_keeping_everything() {
    let mut network = region(4, 2);
    network.fill_keys(&[1, 2, 3, 4], "v");
    network.kill(4);
    network.run(1_000);
    network.replicas = 0;
    network.start_in("test", 4, 40, "a", &[1]);
    network.name(4, "n4");
    for k in 0..KEYS {
        // Any node that is in sync is asked, and no other one.
        let name = format!("k{k}");
        let n = 1 + k as u64 % 3;
        assert_eq!(network.get(n, &name).as_deref(), Some("v"), "{name} at {n}");
    }
}

#[test]
fn node_that_returns_is_ready_when_it_has_what_it_owns() {
    for replicas in [2, 0] {
        let mut network = region(4, 2);
        network.fill_keys(&[1, 2, 3, 4], "v");
        network.kill(2);
        network.run(3_000);
        network.replicas = replicas;
        network.start_in("test", 2, 20, "a", &[1]);
        network.name(2, "n2");
        let state = |network: &Network| network.nodes[&address(2)].local.readiness.state();
        network.run_until(30_000, |network| state(network) == NodeState::InSync);
        for k in 0..KEYS {
            let name = format!("k{k}");
            let owns = replicas == 0 || network.owners(2, &name).contains(&20);
            let holds = network.holders(&name).iter().any(|(id, _)| *id == 20);
            assert!(holds || !owns, "{name} of {replicas}");
        }
    }
}

#[test]
fn nodes_of_one_name_own_nothing() {
    let mut network = region(3, 1);
    network.kill(3);
    network.run(4_000);
    // The name of node 2. The keys of node 3 are its own for half a minute.
    network.start(3, "a", &[1]);
    network.name(3, "n2");
    network.run(40_000);
    let view = &network.nodes[&address(1)].membership;
    assert_eq!(view.residents().conflicts(), [String::from("n2")]);
    network.fill_keys(&[1, 2, 3], "v");
    let owners: Vec<_> = (0..KEYS).map(|k| network.owners(1, &format!("k{k}"))).collect();
    assert!(owners.iter().all(|owners| *owners == vec![1]), "{owners:?}");
    assert_eq!(network.misplaced(1, "v"), None);
}

#[test]
fn process_that_starts_while_another_node_is_gone_chooses_the_same_owners() {
    let mut network = region(5, 2);
    network.fill_keys(&[1, 2, 3, 4, 5], "v");
    network.frozen.insert(address(4));
    network.run(5_000);
    network.kill(2);
    network.run(3_000);
    network.start_in("test", 2, 20, "a", &[1]);
    network.run(6_000);
    for k in 0..KEYS {
        let name = format!("k{k}");
        assert_eq!(network.owners(2, &name), network.owners(1, &name), "k{k}");
    }
    // And is ready, with what it owns, long before the other one counts as gone for good.
    network.run(4_000);
    assert!([1, 2, 3, 5].iter().all(|n| network.is_authoritative(*n)));
    network.frozen.remove(&address(4));
    network.run_until_placed(1, "v", 20_000);
}

/// Whether a node holds every key.
fn holds_all(network: &Network, n: u64) -> bool {
    let store = &network.nodes[&address(n)].replica.store;
    (0..KEYS).all(|k| store.has_value(key(&format!("k{k}")).hash()))
}

#[test]
fn node_that_was_cut_off_while_all_began_to_keep_everything_gets_it() {
    let mut network = region(4, 2);
    network.fill_keys(&[1, 2, 3, 4], "v");
    (1..4).for_each(|n| network.set_link(n, 4, false));
    network.run(5_000);
    network.replicas = 0;
    network.start(5, "a", &[1]);
    network.set_link(5, 4, false);
    network.run(15_000);
    assert!([1, 2, 3, 5].iter().all(|n| holds_all(&network, *n)));
    [1, 2, 3, 5].iter().for_each(|n| network.set_link(*n, 4, true));
    let start = network.now_ms;
    let is_seen = |network: &Network| {
        let view = &network.nodes[&address(4)].membership.view;
        (1..4).chain([5]).all(|n| view.takes_writes(Incarnation(n)))
    };
    network.run_until(10_000, is_seen);
    while !(1..=5).all(|n| network.is_authoritative(n)) {
        network.run(5);
        assert!(!network.is_authoritative(4) || holds_all(&network, 4));
        assert!(network.now_ms - start < 40_000);
    }
    assert!((1..=5).all(|n| holds_all(&network, n)));
}

#[test]
fn guests_do_not_hold_up_a_change_of_owners() {
    let mut network = region(4, 2);
    network.fill_keys(&[1, 2, 3, 4], "v");
    network.run(3_000);
    network.start(5, "a", &[1]);
    let start = network.now_ms;
    let mut writes = 0;
    let is_placed = |network: &Network| {
        let node = &network.nodes[&address(1)];
        node.repair.placed() == node.membership.view.placement().id()
    };
    network.run_until(5_000, |network| !is_placed(network));
    while !is_placed(&network) {
        network.run(1);
        for _ in 0..3 {
            writes += 1;
            network.put_long(1, &format!("g{}", writes % 300), "x", Ack::Local);
        }
        assert!(network.now_ms - start < 10_000);
    }
}

#[test]
fn owner_that_falls_silent_holds_up_no_other() {
    let mut network = region(5, 2);
    network.run(3_000);
    for j in 0..300 {
        network.put_long(1, &format!("g{j}"), "x", Ack::Local);
    }
    network.run(480);
    [1, 2, 4, 5].iter().for_each(|n| network.set_link(*n, 3, false));
    network.run(10_000);
    // Those that node 3 owns wait for it, or for another owner.
    let of_3 = (0..300).filter(|j| {
        let owners = network.owners(1, &format!("g{j}"));
        owners.contains(&3) && !owners.contains(&1)
    });
    let of_3 = of_3.count() as u64;
    assert!(network.nodes[&address(1)].repair.guests() <= of_3 + 10);
}

#[test]
fn guest_does_not_count_as_kept() {
    let mut network = region(3, 1);
    let name = (0..KEYS).map(|k| format!("k{k}")).find(|name| network.owners(1, name) == [1]);
    let name = name.unwrap();
    network.put_long(2, &name, "v", Ack::Region);
    network.run(20);
    let version = network.nodes[&address(2)].replica.store.version(key(&name).hash()).unwrap();
    for (n, confirmed) in [(1, 1), (2, 0)] {
        assert!(network.holders(&name).iter().any(|(id, _)| *id == n));
        let id = network.ask(n, Request::Offer(vec![(key(&name).hash(), version)]));
        network.run(5);
        let Some(Response::Versions { versions, .. }) = network.answers.get(&id) else { panic!() };
        assert_eq!(versions.len(), confirmed, "node {n}");
    }
}

#[test]
fn other_region_gets_large_values_in_several_messages() {
    let mut network = Network::default();
    network.replicas = 1;
    let bytes_max = 64 << 20;
    network.capacity = Some(crate::store::Capacity { entries_max: 10_000, bytes_max });
    (1..=4).for_each(|n| network.start(n, "a", &[1]));
    network.run(8_000);
    let value = "v".repeat(300 << 10);
    for k in 0..24 {
        network.put_long(1 + k % 4, &format!("k{k}"), &value, Ack::Region);
        network.run(100);
    }
    network.start(5, "b", &[1]);
    network.start(6, "b", &[1]);
    network.largest_response = 0;
    network.run(30_000);
    let held = |k: u64| network.holders(&format!("k{k}")).iter().filter(|(id, _)| *id > 4).count();
    assert!((0..24).all(|k| held(k) == 1));
    assert!(network.largest_response < 2 << 20, "{}", network.largest_response);
}

#[test]
fn owner_in_another_region_gets_a_value_whose_owner_was_not_reached() {
    let mut network = Network::default();
    network.replicas = 1;
    (1..=4).for_each(|n| network.start(n, "a", &[1]));
    (5..=7).for_each(|n| network.start(n, "b", &[1]));
    network.run(8_000);
    // Nothing passes between the regions, nor to node 2 from the others of its region.
    let cut = |network: &mut Network, is_up| {
        (1..=4).for_each(|a| (5..=7).for_each(|b| network.set_link(a, b, is_up)));
    };
    cut(&mut network, false);
    network.run(5_000);
    network.fill_keys(&[2], "v");
    network.run(3_000);
    [1, 3, 4].iter().for_each(|n| network.set_link(2, *n, false));
    cut(&mut network, true);
    (5..=7).for_each(|b| network.set_link(2, b, false));
    network.run(15_000);
    // Every node there knows the version by now, and lacks what node 2 alone has.
    let of_2 = (0..KEYS).map(|k| format!("k{k}")).find(|name| network.holders(name).len() == 1);
    let name = of_2.unwrap();
    let store = &network.nodes[&address(5)].replica.store;
    assert!(store.version(key(&name).hash()).is_some() && !store.has_value(key(&name).hash()));
    [1, 3, 4, 5, 6, 7].iter().for_each(|n| network.set_link(2, *n, true));
    network.run(10_000);
    assert_eq!(network.holders(&name).len(), 2);
}
