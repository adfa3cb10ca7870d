//! A node that joins a region in which not every node keeps everything.

use alloc::{format, vec::Vec};

use super::{
    network::{address, key},
    placement::{KEYS, region},
    prelude::*,
    repair::state,
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
