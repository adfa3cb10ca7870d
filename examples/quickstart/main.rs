//! The main job in one process: three regions of two nodes each, a slow function that every region
//! calls, a node that dies, an invalidation, and the end of a lifetime.
//!
//! `cargo run --release --example quickstart` finds the nodes by one seed; with `-- --mdns` by mDNS
//! on the loopback interface. The first build compiles for minutes; the run takes about 7 s. It needs no privileges and no fixed ports, says when a step did not do
//! what it should, and then exits with 1.

mod report;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use report::{Observation, Report};
use serde::{Deserialize, Serialize};
use zerocache_client::{ZerocacheClient, ops::Tier, zerocache};
use zerocache_examples::EmbeddedCluster;
use zerocache_server::EmbeddedNode;

/// The regions of the cluster.
const REGIONS: [&str; 3] = ["london", "sydney", "tokyo"];

/// Nodes in each region.
const NODES_PER_REGION: usize = 2;

/// The duration of the slow function.
const SLOWNESS: Duration = Duration::from_millis(250);

/// The lifetime of its result, in seconds.
const TTL_S: u64 = 5;

/// Bounds every wait of this example.
const PATIENCE: Duration = Duration::from_secs(10);

/// The number of runs of the function itself, in all regions.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// A result worth keeping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Forecast {
    city: String,
    run: u64,
}

/// The slow function. A service would write `#[zerocache("london", 5)]`; here one process plays all
/// regions, so that the client is an argument.
#[zerocache(cache, TTL_S, skip(cache))]
async fn forecast(cache: &ZerocacheClient, city: &str) -> Result<Forecast, std::io::Error> {
    tokio::time::sleep(SLOWNESS).await;
    Ok(Forecast { city: city.to_owned(), run: RUNS.fetch_add(1, SeqCst) + 1 })
}

#[tokio::main]
async fn main() -> ExitCode {
    let mdns = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--mdns" => true,
        other => {
            eprintln!("error: {other:?}: the only option is --mdns");
            return ExitCode::from(2);
        }
    };
    match run(mdns).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mdns: bool) -> Result<bool> {
    let mut cluster = EmbeddedCluster::new("quickstart", mdns);
    let mut nodes = start_nodes(&mut cluster)?;
    let mut clients = Vec::new();
    for region in REGIONS {
        let client = cluster.client(region).build()?;
        client.ready(PATIENCE).await.with_context(|| format!("the client in {region}"))?;
        clients.push(client);
    }
    wait_for_nodes(&clients).await?;
    let [london, sydney, tokyo] = clients.as_slice() else { unreachable!("one per region") };
    let found = if mdns { "mDNS" } else { "one seed" };
    println!("{} nodes in {} regions, found by {found}\n", nodes.len(), REGIONS.len());

    let mut report = Report::new();
    report.expect("first call", computed(1), observe(london).await?);
    let spread = until_everywhere(&clients).await?;
    report.note(format!("the result was on nodes of all regions {} ms later", spread.as_millis()));
    report.expect("second call", local_hit(1), observe(london).await?);
    report.expect("call from another region", local_hit(1), observe(sydney).await?);
    report.expect("call from another region", local_hit(1), observe(tokyo).await?);

    let killed = nodes.remove(0);
    let address = killed.address();
    tokio::task::spawn_blocking(move || killed.kill()).await?;
    report.note(format!("node {address} (london) was killed without a goodbye"));
    for _ in 0..3 {
        report.expect("call after that", local_hit(1), observe(london).await?);
    }

    forecast(sydney, "Oslo").invalidate().await?;
    let spread = until_nowhere(&clients).await?;
    report.note(format!(
        "invalidated from sydney; gone from all regions {} ms later",
        spread.as_millis()
    ));
    report.expect("call after the invalidation", computed(2), observe(tokyo).await?);
    until_everywhere(&clients).await?;
    report.expect("call from another region", local_hit(2), observe(london).await?);

    let expired = until_nowhere(&clients).await?;
    report.note(format!("its {TTL_S} s were over {} ms later", expired.as_millis()));
    report.expect("call after the TTL", computed(3), observe(sydney).await?);

    Ok(report.print())
}

fn start_nodes(cluster: &mut EmbeddedCluster) -> Result<Vec<EmbeddedNode>> {
    let mut nodes = Vec::new();
    for region in REGIONS {
        for _ in 0..NODES_PER_REGION {
            let node = cluster.start_node(region).with_context(|| format!("a node in {region}"))?;
            println!("{:<8} {}  node {}", region, node.address(), node.incarnation());
            nodes.push(node);
        }
    }
    Ok(nodes)
}

/// The expected outcome of a step: computed as the nth run, or read from a local node.
fn computed(run: u64) -> (Option<Tier>, u64) {
    (None, run)
}

fn local_hit(run: u64) -> (Option<Tier>, u64) {
    (Some(Tier::Local), run)
}

/// Calls the function and reads from the counters who answered.
async fn observe(client: &ZerocacheClient) -> Result<Observation> {
    let (before, runs) = (client.nodes(), RUNS.load(SeqCst));
    let tiers = client.stats().hits;
    let started = now();
    let value = forecast(client, "Oslo").await?;
    let took = started.elapsed();
    ensure!(value.city == "Oslo", "the forecast of another city: {value:?}");
    let hits = |node: &zerocache_client::stats::NodeStatus| {
        before.iter().find(|known| known.id == node.id).map_or(0, |known| known.hits)
    };
    let node = client.nodes().into_iter().find(|node| node.hits > hits(node));
    let after = client.stats().hits;
    let tier = Tier::ALL.into_iter().find(|tier| after.get(*tier) > tiers.get(*tier));
    Ok(Observation {
        region: client.region().to_owned(),
        tier,
        run: value.run,
        ran: RUNS.load(SeqCst) > runs,
        node: node.map(|node| node.address),
        took,
    })
}

/// Waits until every client knows every node.
async fn wait_for_nodes(clients: &[ZerocacheClient]) -> Result<()> {
    let wanted = REGIONS.len() * NODES_PER_REGION;
    until("every client knows every node", async || {
        Ok(clients.iter().all(|client| client.nodes().len() == wanted))
    })
    .await?;
    Ok(())
}

/// Waits until every region has the result on the nodes of its own.
async fn until_everywhere(clients: &[ZerocacheClient]) -> Result<Duration> {
    until("the result is in every region", async || {
        count_local(clients).await.map(|n| n == clients.len())
    })
    .await
}

/// Waits until no region has the result.
async fn until_nowhere(clients: &[ZerocacheClient]) -> Result<Duration> {
    until("the result is gone", async || count_local(clients).await.map(|n| n == 0)).await
}

/// Returns the number of regions in which two reads, which go to different nodes, both find the result.
async fn count_local(clients: &[ZerocacheClient]) -> Result<usize> {
    let mut regions = 0;
    for client in clients {
        let key = forecast(client, "Oslo").key().context("the call has a key")?;
        let mut found = 0;
        for _ in 0..NODES_PER_REGION {
            let entry = client.get(&key).entry().await?;
            found += usize::from(entry.is_some_and(|entry| entry.tier <= Tier::NextLocal));
        }
        regions += usize::from(found == NODES_PER_REGION);
    }
    Ok(regions)
}

#[expect(clippy::disallowed_methods, reason = "the example's one reading of the clock")]
fn now() -> Instant {
    Instant::now()
}

/// Waits for a condition. Returns how long that took.
async fn until(what: &str, condition: impl AsyncFn() -> Result<bool>) -> Result<Duration> {
    let started = now();
    let wait = async {
        while !condition().await? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(started.elapsed())
    };
    tokio::time::timeout(PATIENCE, wait).await.with_context(|| format!("waited in vain: {what}"))?
}
