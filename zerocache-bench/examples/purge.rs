//! What a purge costs: the purge itself, reads after it, and the sweep that returns the memory.
//!
//! `cargo run --release -p zerocache-bench --example purge -- [--entries N --tag-entries N]`
//!
//! A node without peers, with the store and the clocks of the server, in this process. Times are CPU time of the
//! one thread unless a column says otherwise: other programs on the machine count for less.

#[path = "../benches/common/mod.rs"]
mod common;

use std::{hint::black_box, sync::Arc, time::Duration};

use clap::Parser;
use common::{
    Name, VALUE_BYTES, cpu_time,
    lone_node::{self, TTL_S},
    name, names, put, resident_bytes,
};
use zerocache_core::{
    entry::Change,
    metadata::Metadata,
    node::{Effect, Input, Node, RequestId, Write},
    purge::{PurgeMode, PurgeTarget},
    store::Capacity,
    version::Version,
};
use zerocache_net::clock;
use zerocache_server::storage::{Mutexes, Storage};

/// The tag that is purged.
const TAG: &str = "file:Big.djvu";

/// How often the entries with the tag are written again, to be purged again.
const REFILLS: usize = 100;

/// Purges, and writes beside them, after each of these.
const REPEATS: usize = 50;

/// Purges of other tags before the reads.
const OTHER_PURGES: usize = 1_000;

/// Entries of a store that is read: they stay in the caches of the processor as hot entries do.
const HOT: usize = 5_000;

/// The room of such a store, in entries.
const HOT_ROOM: usize = 20 * HOT;

/// The budget for each entry: room for four tags, and for tombstones.
const BUDGET_BYTES: u64 = 1_024;

/// Rounds of reads.
const ROUNDS: usize = 201;

/// Steps of a sweep are not further apart, in milliseconds.
const STEPS_APART_MS: u64 = 4;

/// The age of entries that are there at the begin.
const AGE_MS: u64 = 60_000;

#[derive(Debug, Parser)]
struct Args {
    /// All entries
    #[arg(long, default_value_t = 1_000_000)]
    entries: usize,

    /// Entries with the tag that is purged
    #[arg(long, default_value_t = 100_000)]
    tag_entries: usize,
}

fn main() {
    let Args { entries, tag_entries } = Args::parse();
    assert!((1..=entries).contains(&tag_entries), "--tag-entries: 1 to the number of entries");
    reads();
    let names = names(entries as u64);
    let mut host = Host::new(entries);
    for (n, name) in names.iter().enumerate() {
        match n < tag_entries {
            true => host.fill(name, &[TAG.into()]),
            false => host.fill(name, &other_tags([0, 1, 4][n % 3], n)),
        }
    }
    let (ended, others) = names.split_at(tag_entries);
    purges(&mut host, ended, others);
    sweeps(&mut host, ended, others);
}

/// A node, and its store.
struct Host {
    node: Node<Mutexes>,
    store: Arc<Storage>,
    effects: Vec<Effect>,
}

impl Host {
    /// A node with room for so many entries.
    fn new(entries: usize) -> Self {
        let capacity = Capacity { entries_max: u64::MAX, bytes_max: entries as u64 * BUDGET_BYTES };
        let store = Arc::new(Storage::new(capacity));
        let node = lone_node::start("bench-purge", Arc::clone(&store));
        Self { node, store, effects: Vec::new() }
    }

    /// Stores an entry that was written a while ago.
    fn fill(&self, name: &Name, tags: &[String]) {
        let now = clock::now();
        let mut metadata = Metadata::default();
        tags.iter().for_each(|tag| metadata.add_tag(tag).expect("a tag"));
        let stamp = (now.wall_ms - AGE_MS) << Version::COUNTER_BITS;
        let mut record = put(name, stamp, now.mono.plus_ms(TTL_S * 1_000));
        let Change::Put { metadata: encoded, .. } = &mut record.change else { unreachable!() };
        *encoded = metadata.encode();
        self.store.apply(&record, now);
    }

    /// Has the node carry out a write; returns the CPU time of it in microseconds.
    fn write(&mut self, write: Write) -> f64 {
        let input = Input::Write { id: RequestId(0), write };
        let begin = cpu_time();
        self.node.handle(clock::now(), input, &mut self.effects);
        let took = cpu_time() - begin;
        lone_node::check_stored(&self.effects);
        self.effects.clear();
        took.as_nanos() as f64 / 1_000.0
    }

    fn purge(&mut self, tag: &str) -> f64 {
        let target = PurgeTarget::tag(tag).expect("a tag");
        self.write(Write::purge(&target, PurgeMode::Hard, 0))
    }

    /// Writes an entry as a client does.
    fn put(&mut self, name: &Name, tags: &[&str]) -> f64 {
        let mut metadata = Metadata::default();
        tags.iter().for_each(|tag| metadata.add_tag(*tag).expect("a tag"));
        self.write(lone_node::put_of(name, &metadata))
    }

    /// Writes entries with the tag that is purged.
    fn put_all(&mut self, names: &[Name]) {
        for name in names {
            self.put(name, &[TAG]);
        }
    }

    fn readable(&self, names: &[Name]) -> usize {
        let now = clock::now();
        names.iter().filter(|name| self.store.read(&name[..], now, |_| ()).is_hit()).count()
    }
}

/// Tags that nobody purges.
fn other_tags(count: usize, n: usize) -> Vec<String> {
    (0..count).map(|tag| format!("shelf:{tag}:{}", n % 1_000)).collect()
}

/// Purges the tag over and over; writes beside it, and purges of a tag that no entry has, take turns with it.
fn purges(host: &mut Host, ended: &[Name], others: &[Name]) {
    let [mut first, mut again, mut without, mut written] = [(); 4].map(|()| Vec::new());
    let mut left = 0;
    for refill in 0..REFILLS {
        if refill > 0 {
            host.put_all(ended);
        }
        assert_eq!(host.readable(ended), ended.len(), "not all are there");
        first.push(host.purge(TAG));
        left += host.readable(ended);
        for n in 0..REPEATS {
            again.push(host.purge(TAG));
            without.push(host.purge("nothing"));
            written.push(host.put(&name(u64::MAX - n as u64), &[]));
        }
    }
    println!("\n{:<34} {:>7} {:>7} {:>7} {:>7}", "us of CPU each", "count", "p50", "p99", "most");
    let cases = [
        (format!("purge of {} readable entries", ended.len()), &mut first),
        ("the same tag again".into(), &mut again),
        ("purge of a tag without entries".into(), &mut without),
        ("put of a value of 100 bytes".into(), &mut written),
    ];
    let mut middles = Vec::new();
    for (what, times) in cases {
        times.sort_by(f64::total_cmp);
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| quantile(times, share));
        println!("{what:<34} {:>7} {p50:>7.2} {p99:>7.2} {most:>7.2}", times.len());
        middles.push(p50);
    }
    let ratios = (middles[1] / middles[2], middles[1] / middles[3]);
    println!("p50 of a repeated purge / without entries {:.2}, / put {:.2}", ratios.0, ratios.1);
    println!("readable after {REFILLS} purges: {left} of {} ended", REFILLS * ended.len());
    println!("readable after them: {} of {} others", host.readable(others), others.len());
}

/// Reads by the tags of the entries, in a store without purges and in one that knows many, in turns.
fn reads() {
    let names = names(HOT as u64);
    println!(
        "{:<18} {:>10} {:>10} {:>7} {:>16} {:>8}",
        "ns of CPU per read", "no purges", "1000 tags", "ratio", "(quartiles)", "control"
    );
    for (label, tags) in [("no tags", 0), ("1 tag", 1), ("4 tags", 4)] {
        let (clean, mut purged) = (Host::new(HOT_ROOM), Host::new(HOT_ROOM));
        for (n, name) in names.iter().enumerate() {
            [&clean, &purged].iter().for_each(|host| host.fill(name, &other_tags(tags, n)));
        }
        // Two stores of one content differ a little by where they lie in memory.
        let (.., control) = compare(&clean, &purged, &names);
        (0..OTHER_PURGES).for_each(|n| {
            purged.purge(&format!("gone:{n}"));
        });
        let (before, after, ratios) = compare(&clean, &purged, &names);
        let [low, ratio, high] = [0.25, 0.5, 0.75].map(|share| quantile(&ratios, share));
        println!(
            "{label:<18} {before:>10.1} {after:>10.1} {ratio:>7.3} {:>16} {:>8.3}",
            format!("({low:.3}, {high:.3})"),
            quantile(&control, 0.5),
        );
    }
}

/// The medians of nanoseconds per read in two stores, and the sorted ratios within the rounds.
fn compare(one: &Host, other: &Host, names: &[Name]) -> (f64, f64, Vec<f64>) {
    let timed = |host: &Host| {
        let begin = cpu_time();
        for name in names {
            let found = host.store.read(&name[..], clock::coarse_now(), |entry| {
                // As an answer is encoded: into a buffer that is there.
                let mut buffer = [0; VALUE_BYTES];
                buffer.copy_from_slice(entry.value);
                black_box(buffer);
            });
            assert!(found.is_hit(), "a miss");
        }
        (cpu_time() - begin).as_nanos() as f64 / names.len() as f64
    };
    let [mut ours, mut theirs, mut ratios] = [(); 3].map(|()| Vec::new());
    for round in 0..ROUNDS {
        let (a, b) = if round % 2 == 0 {
            let a = timed(one);
            (a, timed(other))
        } else {
            let b = timed(other);
            (timed(one), b)
        };
        ours.push(a);
        theirs.push(b);
        ratios.push(b / a);
    }
    [&mut ours, &mut theirs, &mut ratios].iter_mut().for_each(|list| list.sort_by(f64::total_cmp));
    (quantile(&ours, 0.5), quantile(&theirs, 0.5), ratios)
}

/// A pass that drops the entries with the tag, one that finds nothing to drop, and one that drops all others.
fn sweeps(host: &mut Host, ended: &[Name], others: &[Name]) {
    // A read of an ended entry drops it, so these are written again and not read.
    host.put_all(ended);
    host.purge(TAG);
    println!(
        "\n{:<10} {:>9} {:>8} {:>7} {:>7} {:>10} {:>6} {:>6} {:>7} {:>7} {:>7} {:>7}",
        "sweep",
        "entries",
        "dropped",
        "wall s",
        "CPU s",
        "per CPU s",
        "core",
        "steps",
        "p50 us",
        "most us",
        "wall us",
        "> 1 ms"
    );
    sweep(host, "one tag");
    host.purge("nothing");
    sweep(host, "nothing");
    assert_eq!(host.readable(others), others.len(), "the sweep dropped others");
    host.write(Write::purge(&PurgeTarget::Everything, PurgeMode::Hard, 0));
    sweep(host, "everything");
}

/// Ticks the node as its driver does until it has looked at all entries.
fn sweep(host: &mut Host, what: &str) {
    // The node looks for new purges four times a second.
    std::thread::sleep(Duration::from_millis(300));
    let before = (host.store.stats(), resident_bytes().expect("/proc"));
    let (begin, begin_cpu) = (clock::elapsed(), cpu_time());
    let (mut steps, mut longest) = (Vec::new(), Duration::ZERO);
    let mut over = 0;
    loop {
        let (begin, begin_cpu) = (clock::elapsed(), cpu_time());
        host.node.handle(clock::now(), Input::Tick, &mut host.effects);
        let (wall, used) = (clock::elapsed() - begin, cpu_time() - begin_cpu);
        steps.push(used.as_nanos() as f64 / 1_000.0);
        longest = longest.max(wall);
        over += u32::from(wall > Duration::from_millis(1));
        host.effects.clear();
        let pause_ms =
            host.node.next_deadline().as_millis().saturating_sub(clock::mono().as_millis());
        // The steps of a sweep follow each other closely.
        if pause_ms > STEPS_APART_MS {
            break;
        }
        std::thread::sleep(Duration::from_millis(pause_ms));
    }
    let (wall, used) = (clock::elapsed() - begin, cpu_time() - begin_cpu);
    let after = (host.store.stats(), resident_bytes().expect("/proc"));
    let entries = before.0.entries;
    steps.sort_by(f64::total_cmp);
    println!(
        "{what:<10} {entries:>9} {:>8} {:>7.2} {:>7.3} {:>10.0} {:>5.1}% {:>6} {:>7.1} {:>7.1} {:>7} {over:>7}",
        entries - after.0.entries,
        wall.as_secs_f64(),
        used.as_secs_f64(),
        entries as f64 / used.as_secs_f64(),
        100.0 * used.as_secs_f64() / wall.as_secs_f64(),
        steps.len(),
        quantile(&steps, 0.5),
        quantile(&steps, 1.0),
        longest.as_micros(),
    );
    let mib = |before: u64, after: u64| (before as f64 - after as f64) / f64::from(1 << 20);
    println!(
        "  returned: {:.1} MiB of the budget, {:.1} MiB resident",
        mib(before.0.bytes, after.0.bytes),
        mib(before.1, after.1),
    );
}

/// The value below which this share of sorted values lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1]
}
