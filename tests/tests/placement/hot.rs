//! A key that is read much more than others.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use zerocache_client::{Ack, Status, ZerocacheClient};
use zerocache_core::version::Incarnation;
use zerocache_net::clock;
use zerocache_tests::poll::{StopFlag, time_until, until_true};

use super::region;

const HOT: &str = "on the front page";

const KEYS: usize = 500;

const TTL_S: u64 = 3_600;

/// Longer than a write takes to all nodes of a region.
const EVERYWHERE: Duration = Duration::from_secs(4);

/// How long the hot key is read until its reads have spread, at most; they take about 3 s.
const SPREAD: Duration = Duration::from_secs(60);

/// So many reads of the hot key are looked at together.
const LOOK: u64 = 1_000;

/// The looks after its reads have spread.
const LOOKS: usize = 10;

/// The writes of the hot key that have been acknowledged, and when.
#[derive(Default)]
struct Writes(Mutex<Vec<(Duration, u64)>>);

impl Writes {
    /// The last one that every node has.
    fn known_everywhere(&self) -> u64 {
        let writes = self.0.lock().expect("no panic");
        let old = writes.iter().rev().find(|(at, _)| *at + EVERYWHERE < clock::elapsed());
        old.map_or(0, |(_, written)| *written)
    }

    fn write(&self, client: &ZerocacheClient, generation: u64) {
        let write = client.put(HOT, generation.to_le_bytes().to_vec(), TTL_S).ack(Ack::Region);
        assert_eq!(write.wait().expect("no write fails").status, Status::Stored);
        self.0.lock().expect("no panic").push((clock::elapsed(), generation));
    }
}

/// Reads the hot key every other time, until the flag is set. Counts its reads by the nodes that answered.
fn read(
    client: &ZerocacheClient,
    (stop, writes): (&StopFlag, &Writes),
    reads: &Mutex<BTreeMap<Incarnation, u64>>,
) {
    for n in (0..KEYS).cycle() {
        if stop.is_set() {
            return;
        }
        let least = writes.known_everywhere();
        let found = client.get(HOT).entry().wait().expect("no read fails").expect("a value");
        let generation = u64::from_le_bytes(found.value.as_ref().try_into().expect("8 bytes"));
        assert!(generation >= least, "{generation} from {:?}, {least} before", found.node);
        *reads.lock().expect("no panic").entry(found.node).or_default() += 1;
        client.get(format!("{n}")).wait().expect("no read fails").expect("a value");
    }
}

/// Waits until the hot key has been read often enough for a look.
fn look(reads: &Mutex<BTreeMap<Incarnation, u64>>) -> MutexGuard<'_, BTreeMap<Incarnation, u64>> {
    let reads = || reads.lock().expect("no panic");
    until_true("reads", || reads().values().sum::<u64>() >= LOOK);
    reads()
}

#[test]
fn reads_of_a_hot_key_spread_over_its_region_and_are_as_new_as_any() {
    let cluster = region(8, 2);
    let clients = [cluster.client("oslo"), cluster.client("oslo")];
    let writes = Writes::default();
    writes.write(&clients[0], 0);
    let values = (0..KEYS).map(|n| (format!("{n}"), "v"));
    clients[0].put_many(values, TTL_S).ack(Ack::Region).wait().expect("nodes that answer");

    let (stop, reads) = (StopFlag::default(), Mutex::default());
    let mut generation = 0;
    let spread = std::thread::scope(|threads| {
        let end = stop.set_on_drop();
        for client in &clients {
            threads.spawn(|| read(client, (&stop, &writes), &reads));
        }
        // Whether at least six nodes answered a part of the latest reads, most of them by themselves.
        let mut is_spread = || {
            let seen = std::mem::take(&mut *look(&reads));
            let all: u64 = seen.values().sum();
            let share = seen.values().filter(|count| **count * 20 >= all).count();
            let keep = cluster.nodes.iter().filter(|node| node.stat("hot_guests") > 0).count();
            generation += 1;
            writes.write(&clients[1], generation);
            share >= 6 && keep >= 4
        };
        let spread = time_until(SPREAD, &mut is_spread);
        for _ in 0..LOOKS {
            is_spread();
        }
        drop(end);
        spread
    });
    println!("spread after {:?}", spread.expect("at least six nodes answer"));
}
