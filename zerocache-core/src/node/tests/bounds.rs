//! Every input makes a node do a bounded amount of work.

use alloc::{collections::BTreeSet, format, string::String, vec::Vec};

use bytes::Bytes;

use super::{
    network::{Network, address, key},
    prelude::*,
};
use crate::{
    entry::{Change, Record},
    key::{KeyHash, SHARDS},
    store::{Capacity, CopyRange},
    wire::{Ack, Bucket},
};

/// More than a node looks at, or drops, for one input.
const ENTRIES: u64 = 30_000;

/// A network of one node with many entries, all of one second of version, that live for a minute.
fn full() -> (Network, Vec<String>) {
    let capacity = Some(Capacity { entries_max: 100_000, bytes_max: 1 << 30 });
    let mut network = Network::default();
    network.capacity = capacity;
    network.start(1, "oslo", &[]);
    network.run(2_000);
    let names: Vec<_> = (0..ENTRIES).map(|n| format!("k{n}")).collect();
    let now = network.now();
    for (n, name) in (0..).zip(&names) {
        let change = Change::Put {
            value: Bytes::from_static(b"v"),
            metadata: Bytes::new(),
            expires: now.mono.plus_ms(60_000),
        };
        let stamp = (now.wall_ms / 1_000 * 1_000) << Version::COUNTER_BITS;
        let version = Version::new(stamp + n, Incarnation(9));
        let record = Record { key: key(name), version, change };
        network.nodes[&address(1)].replica.store.apply(&record, now);
    }
    (network, names)
}

/// Lets a node continue that wants to.
fn tick(network: &mut Network) {
    let now = network.now();
    let node = &network.nodes[&address(1)];
    assert!(node.next_deadline() <= now.mono, "the node does not want to go on");
    network.input(address(1), Input::Tick);
}

#[test]
fn entries_that_expire_together_are_swept_in_slices() {
    let (mut network, names) = full();
    network.now_ms += 61_000;
    let count = |network: &Network| network.nodes[&address(1)].replica.store.entry_count();
    let mut ticks = 0;
    while count(&network) > 0 {
        let before = count(&network);
        // No time passes: the node wants to continue at once.
        tick(&mut network);
        assert!(before - count(&network) <= SWEEP_MAX as u64, "{before} {}", count(&network));
        ticks += 1;
        assert!(ticks <= 2 * ENTRIES / SWEEP_MAX as u64, "no end");
    }
    // A write between two slices waits for one.
    let id = network.put(1, &names[0], "new", Ack::Local);
    assert!(network.written(id).is_some());
}

#[test]
fn version_scans_run_in_slices_between_other_inputs() {
    let (mut network, names) = full();
    let second = network.now().wall_ms / 1_000;
    let buckets: Vec<_> = (0..SHARDS as u8).map(|shard| Bucket { second, shard }).collect();
    let id = network.ask(1, Request::BucketVersions(buckets));
    assert!(!network.answers.contains_key(&id), "the whole store was searched at once");
    let (mut inputs, mut written) = (1, 0);
    while !network.answers.contains_key(&id) {
        let write = network.put(1, "another", "v", Ack::Local);
        written += u64::from(network.written(write).is_some());
        inputs += 1;
        assert!(inputs < 100, "no end");
    }
    let Response::Versions { versions: rows, covered } = &network.answers[&id] else {
        panic!("no rows")
    };
    assert!(inputs >= rows.len() as u64 / 4_096 && inputs >= 4, "{inputs} for {}", rows.len());
    assert_eq!(written, inputs - 1, "a write waited for the search");
    let covered = *covered as usize;
    let found: BTreeSet<KeyHash> = rows.iter().map(|row| row.0).collect();
    let in_shards = |hash: &KeyHash| hash.shard() < covered;
    let expected: BTreeSet<_> =
        names.iter().map(|name| key(name).hash()).filter(in_shards).collect();
    assert!(covered > 0 && expected.is_subset(&found), "of {covered} buckets");
}

#[test]
fn version_scans_are_bounded_and_end_with_their_connection() {
    let (mut network, _) = full();
    let second = network.now().wall_ms / 1_000;
    let mut ask = |connections: &[u64]| {
        let asked = connections.iter().map(|connection| {
            let buckets = (0..SHARDS as u8).map(|shard| Bucket { second, shard }).collect();
            let (id, mut input) = network.request(Request::BucketVersions(buckets));
            if let Input::Request { connection: on, .. } = &mut input {
                *on = ConnectionId(*connection);
            }
            (id, input)
        });
        let (ids, inputs): (Vec<_>, Vec<_>) = asked.unzip();
        network.inputs(address(1), inputs);
        ids
    };
    let (of_one, of_many) = (ask(&[77; 5]), ask(&(100..200).collect::<Vec<_>>()));
    let refused = |network: &Network, ids: &[RequestId]| {
        let answers = ids.iter().filter_map(|id| network.answers.get(id));
        answers.filter(|answer| matches!(answer, Response::Refused(_))).count()
    };
    assert_eq!(refused(&network, &of_one), 3, "two of one connection are looked for");
    assert_eq!(refused(&network, &of_many), 38, "and 64 in all");
    network.input(address(1), Input::ConnectionClosed(ConnectionId(77)));
    assert_eq!(refused(&network, &of_one), 5, "nobody waits for them any more");
}

/// Asks for pages of all shards as a node that starts, each on a connection.
fn copy(network: &mut Network, connections: &[u64]) -> Vec<RequestId> {
    let asked = connections.iter().map(|connection| {
        let last_shard = SHARDS as u8 - 1;
        let request =
            Request::Copy { first_shard: 0, last_shard, range: CopyRange::default(), owned: false };
        let (id, mut input) = network.request(request);
        if let Input::Request { connection: on, message, .. } = &mut input {
            *on = ConnectionId(*connection);
            message.envelope.from = Some(Incarnation(*connection));
        }
        (id, input)
    });
    let (ids, inputs): (Vec<_>, Vec<_>) = asked.unzip();
    network.inputs(address(1), inputs);
    ids
}

#[test]
fn pages_of_a_copy_are_gathered_in_slices_between_other_inputs() {
    let (mut network, _) = full();
    let id = copy(&mut network, &[77])[0];
    let (mut inputs, mut written) = (1, 0);
    while !network.answers.contains_key(&id) {
        let write = network.put(1, "another", "v", Ack::Local);
        written += u64::from(network.written(write).is_some());
        inputs += 1;
        assert!(inputs < 1_000, "no end");
    }
    let Response::Items { items, covered, .. } = &network.answers[&id] else { panic!("no page") };
    // Copying an entry takes as long as looking at 32.
    assert!(inputs >= items.len() as u64 / 128 && items.len() > 2_000, "{inputs} {}", items.len());
    assert_eq!(written, inputs - 1, "a write waited for the page");
    assert!(*covered > 0);
}

#[test]
fn pages_are_bounded_and_end_with_their_connection() {
    let (mut network, _) = full();
    let ids = copy(&mut network, &[77; 6]);
    let refused = |network: &Network| {
        let answers = ids.iter().filter_map(|id| network.answers.get(id));
        answers.filter(|answer| matches!(answer, Response::Refused(_))).count()
    };
    assert_eq!(refused(&network), 2, "four of one connection are gathered");
    network.input(address(1), Input::ConnectionClosed(ConnectionId(77)));
    assert_eq!(refused(&network), 6, "nobody waits for them any more");
}
