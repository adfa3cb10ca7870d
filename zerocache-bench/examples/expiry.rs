//! Entries that expire together: how long they take memory, what writes wait meanwhile, and what an idle node costs.
//!
//! `cargo run --release -p zerocache-bench --example expiry -- [--entries N]`
//!
//! A node without peers, with the store, the clocks and the lock of the server, in this process. One thread ticks
//! it as its driver does. Another one writes at a fixed rate, before the entries expire and meanwhile.

#[path = "../benches/common/mod.rs"]
mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use clap::Parser;
use common::{cpu_time, lone_node, name, put, resident_bytes};
use parking_lot::{Mutex, MutexGuard};
use zerocache_core::{
    node::{Input, Node},
    store::Capacity,
    version::Version,
};
use zerocache_net::clock;
use zerocache_server::storage::{Mutexes, Storage};

/// The budget for each entry: room for tombstones of all of them is not in it.
const BUDGET_BYTES: u64 = 256;

/// A pause between two writes.
const WRITE_EVERY: Duration = Duration::from_micros(200);

/// For how long writes are measured before the entries expire, and an idle node after.
const BESIDE: Duration = Duration::from_secs(4);

/// The time that the entries live at least: they are stored by then.
const FILL_MS_PER_MILLION: u64 = 6_000;

#[derive(Debug, Parser)]
struct Args {
    /// Entries that expire together
    #[arg(long, default_value_t = 10_000_000)]
    entries: u64,
}

/// A node, its store, and what the ticking thread used.
struct Host {
    node: Mutex<Node<Mutexes>>,
    store: Arc<Storage>,
    ticks: AtomicU64,
    tick_cpu_us: AtomicU64,
    is_over: AtomicBool,
}

fn main() {
    let Args { entries } = Args::parse();
    let bytes_max = (entries * BUDGET_BYTES).max(64 << 20);
    let store = Arc::new(Storage::new(Capacity { entries_max: u64::MAX, bytes_max }));
    let host = Host {
        node: Mutex::new(lone_node::start("bench-expiry", Arc::clone(&store))),
        store,
        ticks: AtomicU64::new(0),
        tick_cpu_us: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    };
    let empty = resident_bytes().expect("/proc");
    let expires = clock::mono().plus_ms(FILL_MS_PER_MILLION * entries.div_ceil(1_000_000));
    for n in 0..entries {
        let now = clock::now();
        let stamp = (now.wall_ms << Version::COUNTER_BITS) + n % (1 << Version::COUNTER_BITS);
        host.store.apply(&put(&name(n), stamp, expires), now);
    }
    let full = resident_bytes().expect("/proc");
    let held = host.store.stats();
    println!("{} entries, {} MiB resident", held.entries, (full - empty) >> 20);
    assert_eq!(held.entries, entries, "too slow: some have expired, or there is no room");
    thread::scope(|scope| {
        scope.spawn(|| tick(&host));
        measure(&host, expires.since(clock::mono()), empty);
        host.is_over.store(true, Relaxed);
    });
}

/// Ticks the node as the driver does.
fn tick(host: &Host) {
    let begin = cpu_time();
    let mut effects = Vec::new();
    while !host.is_over.load(Relaxed) {
        let deadline = host.node.lock().next_deadline();
        let wait = deadline.since(clock::mono());
        if wait.is_zero() {
            let mut node = host.node.lock();
            node.handle(clock::now(), Input::Tick, &mut effects);
            MutexGuard::unlock_fair(node);
            effects.clear();
            host.ticks.fetch_add(1, Relaxed);
            host.tick_cpu_us.store((cpu_time() - begin).as_micros() as u64, Relaxed);
            thread::yield_now();
        } else {
            thread::sleep(wait);
        }
    }
}

fn measure(host: &Host, until_expiry: Duration, empty: u64) {
    println!(
        "{:<26} {:>7} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7}",
        "writes, us of wall time", "count", "p50", "p99", "p99.9", "most", "wall s", "ticks"
    );
    thread::sleep(until_expiry.saturating_sub(BESIDE));
    let begin = clock::elapsed();
    let mut next = 0;
    let mut write_until = |what: &str, is_over: &dyn Fn() -> bool| {
        let (begin, ticks) = (clock::elapsed(), host.ticks.load(Relaxed));
        let mut times = Vec::new();
        while !is_over() {
            next += 1;
            times.push(lone_node::timed_put(&host.node, &name(u64::MAX - next % 1_000)));
            thread::sleep(WRITE_EVERY);
        }
        let wall = (clock::elapsed() - begin).as_secs_f64();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
        println!(
            "{what:<26} {:>7} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {wall:>7.1} {:>7}",
            times.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0),
            host.ticks.load(Relaxed) - ticks,
        );
    };
    let wait = until_expiry.min(BESIDE);
    write_until("before the expiry", &|| clock::elapsed() - begin >= wait);
    let before = host.tick_cpu_us.load(Relaxed);
    // The written ones stay.
    write_until("while they are dropped", &|| host.store.entry_count() <= 1_000);
    let dropped = host.tick_cpu_us.load(Relaxed);
    println!("CPU of the sweep: {:.1} s", (dropped - before) as f64 / 1e6);
    let (begin, begin_ticks) = (clock::elapsed(), host.ticks.load(Relaxed));
    write_until("after them", &|| clock::elapsed() - begin >= BESIDE);
    let idle = host.tick_cpu_us.load(Relaxed) - dropped;
    let ticks = host.ticks.load(Relaxed) - begin_ticks;
    println!("idle: {ticks} ticks, {:.2} % of a core", idle as f64 / 1e4 / BESIDE.as_secs_f64());
    let (stats, resident) = (host.store.stats(), resident_bytes().expect("/proc"));
    println!(
        "after: {} entries, {} tombstones; {} MiB charged, {} MiB resident",
        stats.entries,
        stats.tombstones,
        stats.bytes >> 20,
        resident.saturating_sub(empty) >> 20,
    );
}
