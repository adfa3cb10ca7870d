//! What nodes get from a region in which not every node keeps everything: those that join it, and other regions.

use alloc::{format, vec::Vec};

use super::{
    network::{Network, address, key},
    placement::{KEYS, region},
    prelude::*,
    repair::{set_links, state},
};
use crate::{node::Caller, store::Capacity};

#[test]
fn peers_get_the_versions_alone_of_what_others_keep() {
    let mut network = region(4, 2);
    network.fill_keys(&[1, 2, 3, 4], "v");
    let hash_of = |k: usize| key(&format!("k{k}")).hash();
    let held: Vec<_> =
        (0..KEYS).filter(|k| network.owners(1, &format!("k{k}")).contains(&1)).collect();
    let request = Request::Fetch(held.iter().map(|k| hash_of(*k)).collect());
    let caller = Caller::unauthenticated(Some(address(2).ip()));
    let response = network.call_as(caller, Some(2), request);
    let Some(Response::Items { items, .. }) = response else { panic!("{response:?}") };
    assert_eq!(items.len(), held.len());
    let is_own = |k: &usize| network.owners(1, &format!("k{k}")).contains(&2);
    let values = items.into_iter().map(|item| item.into_stored(network.now().mono).is_value());
    assert_eq!(values.collect::<Vec<_>>(), held.iter().map(is_own).collect::<Vec<_>>());
}

#[test]
fn new_node_that_cannot_hold_its_share_is_ready_and_fetches_it_once() {
    let mut network = region(4, 2);
    network.fill_keys(&[1, 2, 3, 4], "v");
    network.capacity = Some(Capacity { entries_max: 10, bytes_max: 1 << 20 });
    network.start(5, "a", &[1]);
    network.run(15_000);
    assert_eq!(state(&network, 5), NodeState::InSync);
    let share = (0..KEYS).filter(|k| network.owners(1, &format!("k{k}")).contains(&5)).count();
    assert!(share > 10);
    let adopted = network.nodes[&address(5)].repair.handover_counts().adopted;
    assert!(adopted <= 2 * share as u64, "{adopted} for {share}");
}

#[test]
fn region_that_keeps_everything_gets_values_whose_owner_was_away_when_it_heard_of_them() {
    let mut network = region(4, 1);
    network.replicas = 0;
    (5..=6).for_each(|n| network.start(n, "b", &[1]));
    network.run(5_000);
    set_links(&mut network, &[1, 2, 3, 4], &[5, 6], false);
    network.run(5_000);
    network.fill_keys(&[1, 2, 3, 4], "v");
    network.run(5_000);
    // Its values are nowhere else, and the others of its region tell of them.
    network.frozen.insert(address(2));
    set_links(&mut network, &[1, 3, 4], &[5, 6], true);
    network.run(4_000);
    let at_5_and_6 = |network: &Network, k: usize| {
        let holders = network.holders(&format!("k{k}"));
        holders.iter().filter(|(n, _)| *n > 4).count()
    };
    let lacking = (0..KEYS).filter(|k| at_5_and_6(&network, *k) == 0).count();
    assert!((1..KEYS).contains(&lacking), "{lacking} of {KEYS} are lacking");
    network.frozen.clear();
    set_links(&mut network, &[2], &[5, 6], true);
    network.run(20_000);
    for k in 0..KEYS {
        assert_eq!(at_5_and_6(&network, k), 2, "k{k}");
    }
}
