//! The store beside `quick_cache`, `moka` and `lru`, in one process and one run.
//!
//! Figures of one thread and of two; with two, each does as many operations, so that the time of an
//! operation stays the same where they do not hinder each other.

mod common;

use std::{hint::black_box, time::Duration};

use common::{Name, caches, caches::Cache, names, zipf};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use zerocache_net::clock;

/// Entries that a cache has room for.
const CAPACITY: usize = 100_000;

/// Keys that are stored, so that every one of them is held: the parts of no cache are equally full.
const HELD: usize = 70_000;

/// A round of operations whose keys are prepared.
const ROUND: usize = 1 << 17;

type Operation = fn(&dyn Cache, &Name);

fn benches(criterion: &mut Criterion) {
    let names = names(10 * CAPACITY as u64);
    let held: Vec<Name> = zipf(ROUND, HELD).into_iter().map(|n| names[n as usize]).collect();
    let (_, absent) = names.split_at(9 * CAPACITY);
    let get: Operation = |cache, name| {
        black_box(cache.get(name));
    };
    let put: Operation = |cache, name| cache.put(name);
    compare(criterion, "hit", &names[..HELD], &held, get);
    compare(criterion, "miss", &names[..HELD], absent, get);
    compare(criterion, "put over", &names[..HELD], &held, put);
    // More keys than fit, in turn: each is new when it comes.
    compare(criterion, "put with eviction", &names[..3 * CAPACITY], &names[..3 * CAPACITY], put);
    // Each is put back and removed again.
    compare(criterion, "put and delete", &names[..HELD], absent, |cache, name| {
        cache.put(name);
        cache.delete(name);
    });
}

/// Measures an operation on `stream`, over and over, in caches that were filled with `filling`.
fn compare(
    criterion: &mut Criterion,
    what: &str,
    filling: &[Name],
    stream: &[Name],
    operation: Operation,
) {
    let mut group = criterion.benchmark_group(what);
    for (name, cache) in caches::all(CAPACITY) {
        filling.iter().for_each(|name| cache.put(name));
        for threads in [1, 2] {
            let id = BenchmarkId::new(name, threads);
            group.bench_with_input(id, &threads, |bencher, &threads| {
                bencher.iter_custom(|count| run(threads, count, stream, &*cache, operation));
            });
        }
    }
    group.finish();
}

/// The time that each of some threads takes for `count` operations, on average.
fn run(
    threads: usize,
    count: u64,
    stream: &[Name],
    cache: &dyn Cache,
    operation: Operation,
) -> Duration {
    let one = |thread: usize| {
        let start = stream.len() / threads * thread;
        let names = stream.iter().cycle().skip(start).take(count as usize);
        let begin = clock::elapsed();
        names.for_each(|name| operation(cache, name));
        clock::elapsed() - begin
    };
    if threads == 1 {
        return one(0);
    }
    let sum: Duration = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| {
                let one = &one;
                scope.spawn(move || one(thread))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
    });
    sum / threads as u32
}

criterion_group! {
    name = store;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = benches
}
criterion_main!(store);
