//! A near hit of a memoized call beside `#[concurrent_cached]` with a lifetime of the `cached` crate: the
//! same arguments and values, in one process, in turns.
//!
//! `cargo bench -p zerocache-bench --bench near [-- --rounds N --only NAME]` prints nanoseconds per call, and the
//! median of the ratios within the rounds.

use std::{hint::black_box, sync::LazyLock, time::Duration};

use cached::macros::concurrent_cached;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use zerocache_client::{ZerocacheClient, zerocache};
use zerocache_server::{
    EmbeddedNode,
    config::{DiscoverySet, ServerConfig},
};

const CLUSTER: &str = "bench-near";

/// What the rounds go through.
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

/// The node behind all calls; it ends with the process.
static NODE: LazyLock<EmbeddedNode> = LazyLock::new(|| {
    let mut config = ServerConfig::new("london");
    config.cluster = CLUSTER.to_owned();
    config.addresses = vec![[127, 0, 0, 1].into()];
    config.port = 0;
    config.max_bytes = 64 << 20;
    config.discovery = DiscoverySet::NONE;
    EmbeddedNode::start(config, Duration::from_secs(10)).expect("a node on a free port")
});

/// The arguments of the `n`th call.
struct Arguments(Vec<String>);

impl Arguments {
    fn new() -> Self {
        Self((0..KEYS).map(|n| format!("a name of thirty letters, {n:>4}")).collect())
    }

    fn of(&self, n: usize) -> (u64, &str) {
        let id = n as u64 * 7 % KEYS;
        // Below KEYS.
        (id, &self.0[id as usize])
    }
}

/// Calls of both contenders; each makes `count` calls.
struct Case {
    name: &'static str,
    ours: Box<dyn Fn(usize)>,
    rival: Box<dyn Fn(usize)>,
}

macro_rules! case {
    ($name:literal, $arguments:ident, $call:ident, |$id:ident, $text:ident| $($args:expr),*) => {
        Case {
            name: $name,
            ours: Box::new({
                let arguments = std::rc::Rc::clone(&$arguments);
                move |count| for n in 0..count {
                    let ($id, $text) = arguments.of(n);
                    let _ = $text;
                    black_box(near::$call($(black_box($args)),*));
                }
            }),
            rival: Box::new({
                let arguments = std::rc::Rc::clone(&$arguments);
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
                let arguments = std::rc::Rc::clone(&$arguments);
                move |count| runtime().block_on(async {
                    for n in 0..count {
                        let ($id, $text) = arguments.of(n);
                        black_box(near::$call($(black_box($args)),*).await);
                    }
                })
            }),
            rival: Box::new({
                let arguments = std::rc::Rc::clone(&$arguments);
                move |count| runtime().block_on(async {
                    for n in 0..count {
                        let ($id, $text) = arguments.of(n);
                        black_box(rival::$call($(black_box($args)),*).await);
                    }
                })
            }),
        }
    };
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
        built.expect("a runtime")
    });
    &RUNTIME
}

fn cases() -> Vec<Case> {
    let arguments = std::rc::Rc::new(Arguments::new());
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
    let only = option("--only").unwrap_or_default();
    // Anything but `cargo bench` only wants to know that it builds.
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    let client = ZerocacheClient::builder("london").cluster(CLUSTER).mdns(false);
    let client = client.seed(NODE.address()).near_cache(64 << 20, Duration::from_secs(3_600));
    let client = client.install().expect("the first client of this process");
    client.wait_ready(Duration::from_secs(10)).expect("the node is there");

    let call = size_of_val(&near::later(1, ""));
    println!("a call of an async function takes {call} bytes\n");
    println!(
        "{:<30} {:>10} {:>10} {:>8}",
        "ns per near hit, medians", "zerocache", "cached", "ratio"
    );
    let mut reached = true;
    for case in cases().into_iter().filter(|case| case.name.contains(&only)) {
        warm(&client, &case);
        let before = client.memo_stats();
        let (mut ours, mut rival, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let (a, b) = if round % 2 == 0 {
                let a = timed(&case.ours);
                (a, timed(&case.rival))
            } else {
                let b = timed(&case.rival);
                (timed(&case.ours), b)
            };
            ours.push(a);
            rival.push(b);
            ratios.push(a / b);
        }
        let after = client.memo_stats();
        let calls = (CALLS * rounds) as u64;
        let near = after.near_hits - before.near_hits;
        assert_eq!(near, calls, "not every call was a near hit: {after:?}");
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
fn warm(client: &ZerocacheClient, case: &Case) {
    for _ in 0..200 {
        let before = client.memo_stats().near_hits;
        (case.ours)(KEYS as usize);
        if client.memo_stats().near_hits - before == KEYS {
            (case.rival)(KEYS as usize);
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the keys do not stay near: {:?}", client.memo_stats());
}

/// CPU time of this thread, in which both do all that they do: others on the machine count for less.
fn timed(calls: &dyn Fn(usize)) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    };
    let begin = now();
    calls(CALLS);
    (now() - begin).as_nanos() as f64 / CALLS as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
