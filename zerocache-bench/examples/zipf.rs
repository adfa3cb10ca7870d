//! Zipf-distributed reads, filled on a miss: time of a hit and hit ratio of the store beside
//! `quick_cache`, in one run and in turns.
//!
//! `cargo run --release -p zerocache-bench --example zipf -- [threads] [rounds]`

#[path = "../benches/common/mod.rs"]
mod common;

use std::{hint::black_box, time::Duration};

use common::{
    Name,
    caches::{Cache, Ours, Quick, lru},
    names, zipf,
};
use zerocache_net::clock;

const CAPACITY: usize = 100_000;
const KEYS: usize = 1_000_000;
const READS: usize = 8_000_000;

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>().expect("a number"));
    let (threads, rounds) = (args.next().unwrap_or(1), args.next().unwrap_or(28));
    let names = names(KEYS as u64);
    let stream = zipf(READS, KEYS);
    let ours = Ours::new(CAPACITY);
    let quick = Quick::new(CAPACITY);
    let lru = lru(CAPACITY);
    fill(&names, &stream, [&ours, &quick, &lru]);

    let is_held = |n: &u32| {
        let name = &names[*n as usize];
        ours.get(name) && quick.peek(name).is_some() && lru.lock().contains(name)
    };
    let held: Vec<u32> = stream.iter().copied().filter(is_held).collect();
    println!("{} reads that hit in all, {threads} thread(s); least and median ns:", held.len());
    let (store, now) = (ours.store(), clock::coarse_now());
    let ways: [(&str, &(dyn Fn(usize) + Sync)); 7] = [
        ("clock", &|_| {
            black_box(clock::coarse_now());
        }),
        ("quick_cache get", &|n| {
            black_box(quick.get(&names[n]));
        }),
        ("lru get", &|n| {
            black_box(Cache::get(&lru, &names[n]));
        }),
        ("read without clock", &|n| {
            black_box(store.read(&names[n], now, |entry| entry.value.len()));
        }),
        ("read", &|n| {
            black_box(store.read(&names[n], clock::coarse_now(), |entry| entry.value.len()));
        }),
        ("read into a buffer", &|n| {
            ours.get(&names[n]);
        }),
        ("read to keep", &|n| {
            black_box(store.read(&names[n], clock::coarse_now(), |entry| entry.to_value()));
        }),
    ];
    let mut times = vec![vec![]; ways.len()];
    let parts: Vec<_> = held.chunks(held.len() / rounds).collect();
    for round in 0..rounds {
        for ((_, way), times) in ways.iter().zip(&mut times) {
            // Each warms the caches of the machine for itself, on reads of another part.
            timed(threads, parts[(round + 1) % rounds], way);
            times.push(timed(threads, parts[round], way));
        }
    }
    for ((name, _), mut times) in ways.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        println!("{name:<20} {:>7.1} {:>7.1}", times[0], times[times.len() / 2]);
    }
}

/// Reads the stream and stores what is missing, in all caches; prints the hit ratios of the second
/// half.
fn fill(names: &[Name], stream: &[u32], caches: [&dyn Cache; 3]) {
    let mut hits = [0u32; 3];
    for (at, &n) in stream.iter().enumerate() {
        if at == stream.len() / 2 {
            hits = [0; 3];
        }
        let name = &names[n as usize];
        for (cache, hits) in caches.iter().zip(&mut hits) {
            if cache.get(name) {
                *hits += 1;
            } else {
                cache.put(name);
            }
        }
    }
    let [ours, quick, lru] = hits.map(|hits| f64::from(hits) * 2.0 / stream.len() as f64);
    println!("hit ratio: store {ours:.4}, quick_cache {quick:.4}, lru {lru:.4}");
}

fn timed(threads: usize, stream: &[u32], f: &(dyn Fn(usize) + Sync)) -> f64 {
    let run = |thread: usize| {
        let (before, after) = stream.split_at(stream.len() / threads * thread);
        let begin = clock::elapsed();
        after.iter().chain(before).for_each(|&n| f(n as usize));
        clock::elapsed() - begin
    };
    let total: Duration = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let run = &run;
                scope.spawn(move || run(thread))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
    });
    total.as_nanos() as f64 / threads as f64 / stream.len() as f64
}
