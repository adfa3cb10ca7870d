//! Instructions of one operation on the store and on `quick_cache`, counted by valgrind: the same on
//! every run, so that a change shows which a noisy machine would hide.
//!
//! Runs itself under `valgrind --tool=callgrind`, twice for each operation; the difference is what the
//! additional operations cost. Says so and ends where valgrind is missing.

mod common;

use std::{
    hint::black_box,
    process::{Command, ExitCode},
};

use common::{
    caches::{Cache, Ours, Quick},
    names,
};
use zerocache_core::{
    hot_keys::HotKeys,
    key::{KeyHash, SHARDS},
    time::Instant,
};

const ENTRIES: u64 = 2_000;
const FEW: u64 = 1_000;
const MANY: u64 = 11_000;

const CACHES: [&str; 2] = ["store", "quick_cache"];
/// Counts reads by key: one in 16 costs this. In the worst case each is of another key.
const HOT_KEYS: &str = "hot keys";

const OPERATIONS: [&str; 4] = ["hit", "miss", "put over", "put and delete"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["count", cache, operation, count] => {
            perform(cache, operation, count.parse().expect("a number"));
        }
        // Anything but `cargo bench` only wants to know that it builds.
        _ if !args.iter().any(|arg| arg == "--bench") => {}
        _ if Command::new("valgrind").arg("--version").output().is_err() => {
            println!("instructions are not counted: there is no valgrind here");
        }
        _ => {
            println!("{:<16} {:>12} {:>12}", "instructions", CACHES[0], CACHES[1]);
            for operation in OPERATIONS {
                let each = CACHES.map(|cache| {
                    let [few, many] = [FEW, MANY].map(|count| counted(cache, operation, count));
                    many.zip(few).map(|(many, few)| (many - few) / (MANY - FEW))
                });
                let [Some(store), Some(quick)] = each else {
                    eprintln!("valgrind counted nothing");
                    return ExitCode::FAILURE;
                };
                println!("{operation:<16} {store:>12} {quick:>12}");
            }
            let [few, many] = [FEW, MANY].map(|count| counted(HOT_KEYS, "sample", count));
            let Some(sample) = many.zip(few).map(|(many, few)| (many - few) / (MANY - FEW)) else {
                eprintln!("valgrind counted nothing");
                return ExitCode::FAILURE;
            };
            println!("{:<16} {sample:>12} {:>12}", "hot key sample", "-");
        }
    }
    ExitCode::SUCCESS
}

/// Instructions of a process that performs `count` operations.
fn counted(cache: &str, operation: &str, count: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .args(["count", cache, operation, &count.to_string()])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let log = String::from_utf8(output.stderr).ok()?;
    let line = log.lines().find(|line| line.contains("Collected :"))?;
    line.split(':').nth(1)?.trim().parse().ok()
}

/// Counts `count` reads of keys in turn, as a node counts those that it measures.
fn sample(count: u64) {
    let now = Instant::default();
    let mut sketches: Vec<_> = (0..SHARDS).map(|_| HotKeys::new(now, false)).collect();
    for name in names(2 * ENTRIES).iter().cycle().take(count as usize) {
        let hash = KeyHash::of(name);
        sketches[hash.shard()].record(hash, name, now);
    }
    black_box(&sketches);
}

fn perform(cache: &str, operation: &str, count: u64) {
    if cache == HOT_KEYS {
        return sample(count);
    }
    let cache: Box<dyn Cache> = match cache {
        "store" => Box::new(Ours::without_clock(2 * ENTRIES as usize)),
        _ => Box::new(Quick::new(2 * ENTRIES as usize)),
    };
    let names = names(2 * ENTRIES);
    let (held, absent) = names.split_at(ENTRIES as usize);
    for name in held {
        cache.put(name);
        cache.get(name);
    }
    let names = if matches!(operation, "miss" | "put and delete") { absent } else { held };
    for name in names.iter().cycle().take(count as usize) {
        match operation {
            "put over" => cache.put(name),
            "put and delete" => {
                cache.put(name);
                cache.delete(name);
            }
            _ => drop(cache.get(name)),
        }
    }
}
