//! What a copy of a whole node costs its source: the longest time for which a shard is locked, and the reads that
//! run meanwhile.
//!
//! `cargo run --release -p zerocache-bench --example copy -- [--entries N]`
//!
//! First the pages of all shards of a store, in this thread. Then two nodes and a client in this process: reads
//! are measured before the second node starts, and while it copies.

#[path = "../benches/common/mod.rs"]
mod common;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Parser;
use common::{Name, VALUE_BYTES, cpu_time, names, put};
use zerocache_client::ZerocacheClient;
use zerocache_core::{
    key::SHARDS,
    store::{Capacity, CopyRange},
    version::Version,
};
use zerocache_net::clock;
use zerocache_server::{
    EmbeddedNode,
    config::{DiscoverySet, HostPort, ServerConfig},
    storage::Storage,
};

const CLUSTER: &str = "bench-copy";

/// The budget for each entry.
const BUDGET_BYTES: u64 = 512;

/// What a node gathers for one input, and the bytes of a page, as in `node/repair/scan.rs`.
const SLICE_MAX: usize = 4_096;
const PAGE_BYTES_MAX: usize = 256 << 10;

/// The lifetime of entries, in milliseconds.
const LIFE_MS: u64 = 3_600_000;

/// Tasks that read.
const READERS: usize = 4;

/// Writes that are under way at once while the node is filled.
const WRITES: usize = 256;

/// How long reads are measured without a copy.
const QUIET: Duration = Duration::from_secs(3);

/// The longest time for a copy.
const COPY_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Parser)]
struct Args {
    /// Entries that are copied
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
}

fn main() -> Result<()> {
    let Args { entries } = Args::parse();
    let names = Arc::new(names(entries));
    slices(&names);
    reads(&names)
}

/// Gathers the pages of all shards as a node does.
fn slices(names: &[Name]) {
    let bytes_max = names.len() as u64 * BUDGET_BYTES;
    let store = Storage::new(Capacity { entries_max: u64::MAX, bytes_max });
    let (now, mut stamp) = (clock::now(), clock::now().wall_ms << Version::COUNTER_BITS);
    for name in names {
        stamp += 1;
        store.apply(&put(name, stamp, now.mono.plus_ms(LIFE_MS)), now);
    }
    let (mut copied, mut pages, mut slices) = (0, 0, Vec::new());
    for shard in 0..SHARDS {
        let mut range = CopyRange::default();
        loop {
            let mut scan = store.begin_page(range, PAGE_BYTES_MAX);
            while !scan.is_complete() {
                let begin = cpu_time();
                store.continue_page(shard, &mut scan, SLICE_MAX, clock::now());
                slices.push((cpu_time() - begin).as_secs_f64() * 1e6);
            }
            let page = scan.into_page();
            (copied, pages) = (copied + page.records.len(), pages + 1);
            let Some(cursor) = page.more else { break };
            range.colder_than = Some(cursor);
        }
    }
    assert_eq!(copied, names.len(), "all entries are on pages");
    let total: f64 = slices.iter().sum();
    println!(
        "{copied} entries on {pages} pages in {} slices: {:.2} us of CPU per entry, {}",
        slices.len(),
        total / copied as f64,
        percentiles(&mut slices)
    );
}

fn percentiles(all: &mut [f64]) -> String {
    all.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| all.get((all.len() as f64 * share) as usize).or(all.last()).copied();
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| at(share).unwrap_or_default());
    format!("p50 {p50:.1} us, p99 {p99:.1} us, most {most:.1} us")
}

/// Reads from a node before and while another one copies from it.
fn reads(names: &Arc<Vec<Name>>) -> Result<()> {
    let source = node(names.len(), &[])?;
    let runtime = tokio::runtime::Runtime::new()?;
    let client = ZerocacheClient::builder("london")
        .cluster(CLUSTER)
        .mdns(false)
        .seed(source.address().to_string())
        .build()?;
    runtime.block_on(fill(&client, names))?;
    let quiet = measured(&runtime, &client, names, || {
        thread::sleep(QUIET);
        Ok(())
    })?;
    println!("reads without a copy: {quiet}");
    let mut copy = None;
    let beside = measured(&runtime, &client, names, || {
        let begin = clock::elapsed();
        let node = node(names.len(), &[source.address()])?;
        copy = Some((node, clock::elapsed() - begin));
        Ok(())
    })?;
    let (_node, took) = copy.context("it was started")?;
    println!("reads beside a copy:  {beside}; the copy took {:.2} s", took.as_secs_f64());
    Ok(())
}

/// Starts a node, and waits until it is in sync.
fn node(entries: usize, seeds: &[SocketAddr]) -> Result<EmbeddedNode> {
    let mut config = ServerConfig::new("london");
    config.cluster = CLUSTER.into();
    config.addresses = vec![[127, 0, 0, 1].into()];
    config.port = 0;
    config.max_bytes = entries as u64 * BUDGET_BYTES;
    config.discovery = DiscoverySet { seeds: true, ..DiscoverySet::NONE };
    let seed = |at: &SocketAddr| at.to_string().parse::<HostPort>();
    config.seeds = seeds.iter().map(seed).collect::<Result<_, _>>()?;
    Ok(EmbeddedNode::start(config, COPY_MAX)?)
}

async fn fill(client: &ZerocacheClient, names: &Arc<Vec<Name>>) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..WRITES {
        let (client, names) = (client.clone(), Arc::clone(names));
        tasks.spawn(async move {
            for name in names.iter().skip(task).step_by(WRITES) {
                client.put(name, Bytes::from_static(&[7; VALUE_BYTES]), 3_600_u64).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    tasks.join_all().await.into_iter().collect()
}

/// Reads while `work` runs. Returns the durations of the reads.
fn measured(
    runtime: &tokio::runtime::Runtime,
    client: &ZerocacheClient,
    names: &Arc<Vec<Name>>,
    work: impl FnOnce() -> Result<()>,
) -> Result<String> {
    let stop = Arc::new(AtomicBool::new(false));
    let read = |task: usize| {
        let (client, names, stop) = (client.clone(), Arc::clone(names), Arc::clone(&stop));
        runtime.spawn(async move {
            let (mut times, mut n) = (Vec::new(), task * 7_919);
            while !stop.load(Relaxed) {
                let begin = clock::elapsed();
                let value = client.get(names[n % names.len()]).await?;
                times.push((clock::elapsed() - begin).as_secs_f64() * 1e6);
                anyhow::ensure!(value.is_some(), "every key is there");
                n += 104_729;
            }
            Ok(times)
        })
    };
    let readers: Vec<_> = (0..READERS).map(read).collect();
    let done = work();
    stop.store(true, Relaxed);
    let mut times = Vec::new();
    for reader in readers {
        times.extend(runtime.block_on(reader)??);
    }
    done?;
    Ok(format!("{} reads, {}", times.len(), percentiles(&mut times)))
}
