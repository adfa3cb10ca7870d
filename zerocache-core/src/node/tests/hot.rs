//! Keys of other nodes that are read much.

use alloc::{format, string::String, vec::Vec};

use super::{
    network::{Network, address},
    placement::region,
    prelude::*,
};
use crate::wire::Ack;

/// Reads a key at a node so often, 20 times a second.
fn read(network: &mut Network, n: u64, name: &str, times: usize) -> Vec<Option<String>> {
    (0..times).map(|_| network.get(n, name)).collect()
}

fn status(network: &Network, n: u64) -> (u64, u64) {
    let status = network.nodes[&address(n)].status(network.now()).placement;
    (status.hot_guests, status.forwarded)
}

/// A region of four, a key of which `n` is no owner, and its value.
fn with_key(replicas: u64) -> (Network, u64) {
    let mut network = region(4, replicas);
    network.put_long(1, "hot", "v", Ack::Region);
    network.run(3_000);
    let owners = network.owners(1, "hot");
    assert_eq!(network.holders("hot").len() as u64, replicas);
    let n = (1..=4).find(|n| !owners.contains(n)).unwrap();
    (network, n)
}

#[test]
fn node_answers_by_itself_what_is_read_much_and_gives_it_up_later() {
    let (mut network, n) = with_key(2);
    assert!(read(&mut network, n, "hot", 4).iter().all(|found| found.as_deref() == Some("v")));
    assert_eq!(status(&network, n), (0, 4));
    read(&mut network, n, "hot", 50);
    let (hot, forwarded) = status(&network, n);
    assert_eq!(hot, 1);
    assert!(read(&mut network, n, "hot", 20).iter().all(|found| found.as_deref() == Some("v")));
    assert_eq!(status(&network, n), (1, forwarded));
    assert_eq!(network.holders("hot").len(), 3);
    network.run(65_000);
    assert_eq!(status(&network, n), (0, forwarded));
    assert_eq!(network.holders("hot").len(), 2);
    assert_eq!(network.get(n, "hot").as_deref(), Some("v"));
}

#[test]
fn write_delete_or_purge_ends_what_is_kept_because_it_is_read_much() {
    let (mut network, n) = with_key(2);
    read(&mut network, n, "hot", 50);
    assert_eq!(status(&network, n).0, 1);
    network.put_long(1, "hot", "w", Ack::Region);
    network.run(50);
    assert_eq!(network.get(n, "hot").as_deref(), Some("w"));
    read(&mut network, n, "hot", 50);
    network.write(1, "hot", WriteOp::Delete, Ack::Region);
    network.run(50);
    assert_eq!(network.get(n, "hot"), None);
    network.run(70_000);
    assert!(network.holders("hot").is_empty());
    assert_eq!(status(&network, n).0, 0);
}

#[test]
fn last_copy_that_was_kept_because_it_is_read_much_goes_to_the_next_owner() {
    let (mut network, n) = with_key(1);
    let owner = network.owners(1, "hot")[0];
    read(&mut network, n, "hot", 50);
    network.nodes.remove(&address(owner));
    network.run(100_000);
    let next = network.owners(n, "hot");
    assert_ne!(next, [owner]);
    let holders: Vec<_> = network.holders("hot").into_iter().map(|(holder, _)| holder).collect();
    assert_eq!(holders, next);
}

#[test]
fn values_that_are_kept_because_they_are_read_much_have_a_bound() {
    let mut network = region(3, 1);
    let names: Vec<_> = (0..12).map(|k| format!("large {k}")).collect();
    let bytes = network.nodes[&address(1)].local.config.info.bytes_max / 60;
    for name in &names {
        network.put_long(1, name, &"x".repeat(bytes as usize), Ack::Region);
        network.run(1_000);
    }
    network.run(3_000);
    let others = names.iter().filter(|name| network.owners(1, name) != [1]);
    let others: Vec<_> = others.cloned().collect();
    assert!(others.len() > 4);
    for name in others {
        read(&mut network, 1, &name, 50);
    }
    assert_eq!(status(&network, 1).0, 3);
}
