//! Corrections of clocks, and what was stamped meanwhile.

use super::{
    network::{Network, address},
    prelude::*,
    repair::{set_links, version},
    starts::{all_have, held, named, put_all},
};
use crate::{
    node::clocks::Clocks,
    wire::{Ack, Status},
};

#[test]
fn versions_of_others_stay_when_a_clock_that_was_behind_is_corrected() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    for n in [2, 3] {
        network.ahead_ms.insert(address(n), 20_000);
    }
    set_links(&mut network, &[1], &[2, 3], false);
    for n in [1, 2, 3] {
        network.start(n, "a", &[1, 2, 3]);
    }
    network.run(5_000);
    set_links(&mut network, &[1], &[2, 3], true);
    let offset_ms = |network: &Network| network.nodes[&address(1)].local.clocks.offset_ms();
    let (names, mut before) = (named("meanwhile", 300), 0);
    let mut versions = Vec::new();
    for name in &names {
        put_all(&mut network, 2, core::slice::from_ref(name), 10);
        versions.push(version(&network, 2, name));
        network.run(10);
        before += usize::from(offset_ms(&network) == 0 && held(&network, 1, &names) > 0);
    }
    network.run(10_000);
    assert!(before > 0, "none arrived before the clock was corrected");
    assert!(offset_ms(&network) > 19_000);
    assert!(all_have(&network, &names));
    for (name, written) in names.iter().zip(versions) {
        assert_eq!(version(&network, 1, name), written, "{name}");
    }
}

#[test]
fn data_of_an_older_lineage_moves_with_the_clock_of_the_node_that_got_it() {
    let mut network = Network::default();
    network.retention_ms = Some(60_000);
    let names = named("first", 50);
    set_links(&mut network, &[1, 2], &[3, 4], false);
    set_links(&mut network, &[1], &[2], false);
    network.start(1, "a", &[1, 2, 3, 4]);
    network.run(2_000);
    put_all(&mut network, 1, &names, 10);
    network.run(6_000);
    network.start(2, "a", &[1, 2, 3, 4]);
    network.run(4_000);
    // Neither has missed so much that it copies.
    network.set_link(1, 2, true);
    network.run(3_000);
    assert_eq!(held(&network, 2, &names), 50);
    network.nodes.remove(&address(1));
    for n in [3, 4] {
        network.ahead_ms.insert(address(n), 3_600_000);
        network.start(n, "a", &[1, 2, 3, 4]);
    }
    network.run(5_000);
    set_links(&mut network, &[1, 2], &[3, 4], true);
    network.run(30_000);
    assert!(network.nodes[&address(2)].local.clocks.offset_ms() > 3_590_000);
    assert!(all_have(&network, &names));
}

#[test]
fn clocks_have_the_same_time_within_a_quarter_of_the_retention() {
    let clocks = Clocks::new(Instant::from_millis(0), 40_000);
    let now = Now::new(0, 1_000_000);
    assert!(clocks.is_present(now, 1_010));
    assert!(!clocks.is_present(now, 1_012));
}

#[test]
fn write_that_waits_while_its_clock_is_corrected_is_answered_with_the_version_it_got() {
    for ahead in [&[1, 2][..], &[3, 4, 5]] {
        let mut network = Network::default();
        for n in ahead {
            network.ahead_ms.insert(address(*n), 3_600_000);
        }
        set_links(&mut network, &[1, 2], &[3, 4, 5], false);
        for n in [1, 2, 3, 4, 5] {
            network.start(n, "a", &[1, 2, 3, 4, 5]);
        }
        network.run(5_000);
        set_links(&mut network, &[1, 2], &[3, 4, 5], true);
        network.frozen.insert(address(2));
        let before = network.nodes[&address(1)].local.clocks.offset_ms();
        let has_moved =
            |network: &Network| network.nodes[&address(1)].local.clocks.offset_ms() != before;
        let mut writes = Vec::new();
        while !has_moved(&network) {
            let name = alloc::format!("{}", writes.len());
            writes.push((network.put(1, &name, "v", Ack::Region), name));
            network.run(50);
        }
        assert!(writes.iter().filter(|(id, _)| network.written(*id).is_none()).count() > 5);
        network.frozen.clear();
        network.run(1_000);
        for (id, name) in writes {
            let written = network.written(id).unwrap();
            assert_eq!(written.status, Status::Stored, "{name}");
            assert_eq!(written.version, version(&network, 1, &name), "{name}");
        }
    }
}
