//! A near hit of a memoized call beside `#[concurrent_cached]` with a lifetime of the `cached` crate: the
//! same arguments and values, in one process, in turns.
//!
//! `cargo bench -p zerocache-bench --bench near [-- --rounds N --threads N --keys N --only NAME]` prints nanoseconds
//! of CPU time per call, and the median of the ratios within the rounds. With several threads all of them make
//! the calls at the same time.

mod common;
mod node;

use std::{
    hint::black_box,
    sync::{Arc, Barrier},
    time::Duration,
};

use cached::macros::concurrent_cached;
use common::cpu_time;
use serde::{Deserialize, Serialize};
use zerocache_client::{ZerocacheClient, zerocache};

const CLUSTER: &str = "bench-near";

/// What the rounds go through, unless said otherwise.
const KEYS: u64 = 1_000;

/// Calls of each contender in one round.
const CALLS: usize = 50_000;

const ROUNDS: usize = 61;

/// The bar: our time by that of `cached`.
const RATIO_MAX: f64 = 1.2;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
    active: bool,
    score: f64,
}

impl User {
    fn new(id: u64, name: &str) -> Self {
        Self { id, name: name.to_owned(), active: id.is_multiple_of(2), score: id as f64 }
    }
}

mod near {
    use super::{User, zerocache};

    #[zerocache("london", "1h", near)]
    pub fn number(id: u64, name: &str) -> u64 {
        id + name.len() as u64
    }

    #[zerocache("london", "1h", near)]
    pub fn text(id: u64, name: &str) -> String {
        format!("{name} {id}")
    }

    #[zerocache("london", "1h", near)]
    pub fn user(id: u64, name: &str) -> User {
        User::new(id, name)
    }

    #[zerocache("london", "1h", near)]
    pub fn owned(id: u64, name: String) -> String {
        format!("{name} {id}")
    }

    #[zerocache("london", "1h", near)]
    pub fn single(id: u64) -> u64 {
        id * id
    }

    #[zerocache("london", "1h", near)]
    pub async fn later(id: u64, name: &str) -> String {
        format!("{name} {id}")
    }

    #[zerocache("london", "1h", near)]
    pub async fn later_owned(id: u64, name: String) -> User {
        User::new(id, &name)
    }
}

mod rival {
    use super::{User, concurrent_cached};

    #[concurrent_cached(
        ttl_secs = 3600,
        key = "(u64, String)",
        convert = "{ (id, name.to_owned()) }"
    )]
    pub fn number(id: u64, name: &str) -> u64 {
        id + name.len() as u64
    }

    #[concurrent_cached(
        ttl_secs = 3600,
        key = "(u64, String)",
        convert = "{ (id, name.to_owned()) }"
    )]
    pub fn text(id: u64, name: &str) -> String {
        format!("{name} {id}")
    }

    #[concurrent_cached(
        ttl_secs = 3600,
        key = "(u64, String)",
        convert = "{ (id, name.to_owned()) }"
    )]
    pub fn user(id: u64, name: &str) -> User {
        User::new(id, name)
    }

    #[concurrent_cached(ttl_secs = 3600)]
    pub fn owned(id: u64, name: String) -> String {
        format!("{name} {id}")
    }

    #[concurrent_cached(ttl_secs = 3600)]
    pub fn single(id: u64) -> u64 {
        id * id
    }

    #[concurrent_cached(
        ttl_secs = 3600,
        key = "(u64, String)",
        convert = "{ (id, name.to_owned()) }"
    )]
    pub async fn later(id: u64, name: &str) -> String {
        format!("{name} {id}")
    }

    #[concurrent_cached(ttl_secs = 3600)]
    pub async fn later_owned(id: u64, name: String) -> User {
        User::new(id, &name)
    }
}

/// The arguments of the `n`th call.
struct Arguments(Vec<String>);

impl Arguments {
    fn new(keys: u64) -> Self {
        Self((0..keys).map(|n| format!("a name of thirty letters, {n:>4}")).collect())
    }

    fn of(&self, n: usize) -> (u64, &str) {
        let id = n * 7 % self.0.len();
        (id as u64, &self.0[id])
    }
}

/// Calls of both contenders; each makes `count` calls.
struct Case {
    name: &'static str,
    ours: Box<dyn Fn(usize) + Sync>,
    rival: Box<dyn Fn(usize) + Sync>,
}

macro_rules! case {
    ($name:literal, $arguments:ident, $call:ident, |$id:ident, $text:ident| $($args:expr),*) => {
        Case {
            name: $name,
            ours: Box::new({
                let arguments = Arc::clone(&$arguments);
                move |count| for n in 0..count {
                    let ($id, $text) = arguments.of(n);
                    let _ = $text;
                    black_box(near::$call($(black_box($args)),*));
                }
            }),
            rival: Box::new({
                let arguments = Arc::clone(&$arguments);
                move |count| for n in 0..count {
                    let ($id, $text) = arguments.of(n);
                    let _ = $text;
                    black_box(rival::$call($(black_box($args)),*));
                }
            }),
        }
    };
    ($name:literal, $arguments:ident, async $call:ident, |$id:ident, $text:ident| $($args:expr),*) => {
        Case {
            name: $name,
            ours: Box::new({
                let arguments = Arc::clone(&$arguments);
                move |count| block_on(async {
                    for n in 0..count {
                        let ($id, $text) = arguments.of(n);
                        black_box(near::$call($(black_box($args)),*).await);
                    }
                })
            }),
            rival: Box::new({
                let arguments = Arc::clone(&$arguments);
                move |count| block_on(async {
                    for n in 0..count {
                        let ($id, $text) = arguments.of(n);
                        black_box(rival::$call($(black_box($args)),*).await);
                    }
                })
            }),
        }
    };
}

/// Runs a future on this thread's own runtime.
fn block_on(future: impl Future<Output = ()>) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = {
            let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
            built.expect("a runtime")
        };
    }
    RUNTIME.with(|runtime| runtime.block_on(future));
}

fn cases(keys: u64) -> Vec<Case> {
    let arguments = Arc::new(Arguments::new(keys));
    vec![
        case!("fn (u64) -> u64", arguments, single, |id, text| id),
        case!("fn (u64, &str) -> u64", arguments, number, |id, text| id, text),
        case!("fn (u64, &str) -> String", arguments, text, |id, text| id, text),
        case!("fn (u64, &str) -> User", arguments, user, |id, text| id, text),
        case!("fn (u64, String) -> String", arguments, owned, |id, text| id, text.to_owned()),
        case!("async (u64, &str) -> String", arguments, async later, |id, text| id, text),
        case!("async (u64, String) -> User", arguments, async later_owned, |id, text| id, text.to_owned()),
    ]
}

fn main() {
    let option = |name: &str| std::env::args().skip_while(|arg| arg != name).nth(1);
    let rounds = option("--rounds").map_or(ROUNDS, |count| count.parse().expect("a number"));
    let threads = option("--threads").map_or(1, |count| count.parse().expect("a number"));
    let keys = option("--keys").map_or(KEYS, |count| count.parse().expect("a number"));
    let only = option("--only").unwrap_or_default();
    // Anything but `cargo bench` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let node = node::start(CLUSTER);
    let client = node::client(&node, CLUSTER).near_age(Duration::from_secs(3_600));
    let client = client.install().expect("the first client of this process");
    client.wait_ready(Duration::from_secs(10)).expect("the node is there");

    println!("{keys} keys, {threads} threads at once\n");
    println!(
        "{:<30} {:>10} {:>10} {:>8}",
        "ns per near hit, medians", "zerocache", "cached", "ratio"
    );
    let mut reached = true;
    for case in cases(keys).into_iter().filter(|case| case.name.contains(&only)) {
        warm(&client, &case, keys);
        let before = client.memo_stats();
        let (mut ours, mut rival, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let (a, b) = if round % 2 == 0 {
                let a = timed(threads, &case.ours);
                (a, timed(threads, &case.rival))
            } else {
                let b = timed(threads, &case.rival);
                (timed(threads, &case.ours), b)
            };
            ours.push(a);
            rival.push(b);
            ratios.push(a / b);
        }
        let after = client.memo_stats();
        let computed = after.computed - before.computed;
        assert_eq!(computed, 0, "not every call was a hit: {after:?}");
        let calls = (CALLS * rounds * threads) as u64;
        let near = after.near_hits - before.near_hits;
        assert!(near >= calls, "not every call was a near hit: {after:?}");
        let ratio = median(&mut ratios);
        reached &= ratio <= RATIO_MAX;
        println!(
            "{:<30} {:>10.1} {:>10.1} {:>8.2}",
            case.name,
            median(&mut ours),
            median(&mut rival),
            ratio
        );
    }
    println!("at most {RATIO_MAX}: {}", if reached { "reached" } else { "missed" });
}

/// Calls until all keys are near.
fn warm(client: &ZerocacheClient, case: &Case, keys: u64) {
    for _ in 0..200 {
        let before = client.memo_stats().near_hits;
        (case.ours)(keys as usize);
        if client.memo_stats().near_hits - before == keys {
            (case.rival)(keys as usize);
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the keys do not stay near: {:?}", client.memo_stats());
}

/// CPU time of a call.
fn timed(threads: usize, calls: &(dyn Fn(usize) + Sync)) -> f64 {
    let took = || {
        let begin = cpu_time();
        calls(CALLS);
        (cpu_time() - begin).as_nanos() as f64 / CALLS as f64
    };
    if threads == 1 {
        return took();
    }
    let begin = Barrier::new(threads);
    let on_thread = || {
        // What a thread does for the first time is not what is measured.
        calls(CALLS / 10);
        begin.wait();
        took()
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(on_thread)).collect();
        let times = running.into_iter().map(|thread| thread.join().expect("it ends"));
        times.sum::<f64>() / threads as f64
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
