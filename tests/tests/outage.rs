//! Hot values while all nodes are gone, and when they are back.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::Duration,
};

use zerocache_client::{ZerocacheClient, zerocache};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::poll::{StopFlag, pass, timed, until_true};
use zerocache_tests::setup::Setup;

const KEYS: usize = 50;

/// Values are read again after this long, while a node answers.
const AGE: Duration = Duration::from_millis(500);

/// Long enough for each key to be read again several times.
const OUTAGE: Duration = Duration::from_secs(3);

/// Within this time after a node is back, values come from it.
const BACK: Duration = Duration::from_secs(3);

/// The runs of the function for each key, and the slowest call.
struct Origin {
    runs: [AtomicU64; KEYS],
    slowest_ms: AtomicU64,
}

#[zerocache(cache, "10m", skip(cache, origin), near(outage = "5m"))]
fn price(cache: &ZerocacheClient, origin: &Origin, product: usize) -> u64 {
    origin.runs[product].fetch_add(1, SeqCst);
    thread::yield_now();
    product as u64
}

impl Origin {
    fn new() -> Self {
        Self { runs: [const { AtomicU64::new(0) }; KEYS], slowest_ms: AtomicU64::new(0) }
    }

    fn call(&self, cache: &ZerocacheClient) {
        for product in 0..KEYS {
            let (value, time) = timed(|| price(cache, self, product));
            assert_eq!(value, product as u64);
            self.slowest_ms.fetch_max(time.as_millis() as u64, SeqCst);
        }
    }

    /// The most runs of a key.
    fn most(&self) -> u64 {
        self.runs.iter().map(|runs| runs.load(SeqCst)).max().unwrap_or_default()
    }

    /// Calls until all values are near.
    fn warm(&self, cache: &ZerocacheClient) {
        until_true("all values near", || {
            let hits = cache.memo_stats().near_hits;
            self.call(cache);
            cache.memo_stats().near_hits >= hits + KEYS as u64
        });
    }
}

fn client(cluster: &Cluster) -> ZerocacheClient {
    cluster.client_with("oslo", |builder| builder.near_age(AGE))
}

#[test]
fn hot_values_are_served_while_all_nodes_are_dead_and_computed_once_when_they_are_back() {
    let mut cluster = Cluster::start(&["oslo", "oslo", "rome"]);
    let (cache, origin, is_over) = (client(&cluster), Origin::new(), StopFlag::default());
    origin.warm(&cache);
    assert_eq!(origin.most(), 1);
    thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                while !is_over.is_set() {
                    origin.call(&cache);
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        // However this ends, the threads end too.
        let _over = is_over.set_on_drop();
        pass(AGE);
        cluster.nodes.iter_mut().for_each(|node| node.kill());
        pass(OUTAGE);
        let stats = cache.memo_stats();
        assert_eq!(origin.most(), 1, "nothing is computed: {stats:?}");
        assert!(stats.outage_served > KEYS as u64, "{stats:?}");
        // It comes back with nothing.
        let addresses: Vec<_> = cluster.nodes.iter().map(|node| node.address()).collect();
        for (n, region) in ["oslo", "oslo", "rome"].into_iter().enumerate() {
            let seed = addresses[(n + 1) % addresses.len()];
            let mut setup = Setup::new(region).flag("--seed", seed);
            setup.listen = addresses[n];
            cluster[n] = setup.start();
            if n == 0 {
                let (_, time) = timed(|| {
                    until_true("values of nodes", || {
                        let [hits, served] = counts(&cache);
                        origin.call(&cache);
                        let [more_hits, more_served] = counts(&cache);
                        more_hits > hits && more_served == served
                    })
                });
                println!("back after {time:?}");
                assert!(time < BACK, "{time:?}");
            }
        }
        cluster.wait_until_joined();
        pass(3 * AGE);
    });
    origin.warm(&cache);
    let stats = cache.memo_stats();
    println!("slowest call: {} ms; {stats:?}", origin.slowest_ms.load(SeqCst));
    assert!(origin.most() <= 2, "at most once more for each key: {:?}", origin.runs);
}

#[test]
fn hot_values_are_served_while_all_nodes_are_frozen() {
    let mut cluster = Cluster::start(&["oslo", "oslo"]);
    let (cache, origin) = (client(&cluster), Origin::new());
    origin.warm(&cache);
    cluster.nodes.iter_mut().for_each(|node| node.freeze());
    pass(AGE);
    until_true("values of the near cache", || {
        let served = cache.memo_stats().outage_served;
        origin.call(&cache);
        cache.memo_stats().outage_served >= served + KEYS as u64
    });
    assert_eq!(origin.most(), 1, "nothing is computed");
    cluster.nodes.iter_mut().for_each(|node| node.resume());
    // They have what they had.
    origin.warm(&cache);
    assert_eq!(origin.most(), 1, "{:?}", cache.memo_stats());
}

/// Hits of nodes and the near cache, and values that were served without them.
fn counts(cache: &ZerocacheClient) -> [u64; 2] {
    let stats = cache.memo_stats();
    [stats.hits, stats.outage_served]
}
