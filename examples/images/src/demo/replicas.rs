//! Five replicas that convert: before, each for itself; after, once for all.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use super::deployment::{Deployment, image};
use super::load::{failed, get, get_all, percentile};
use super::origin::Origin;
use super::processes::Process;
use super::report::{Report, progress};
use crate::clock::now;

const REPLICAS: usize = 5;
const PAGE: usize = 12;
const CONNECTIONS: usize = 6;

pub(super) async fn run(program: PathBuf, quick: bool) -> Result<Report> {
    let mut report = Report::default();
    let size = if quick { (400, 300) } else { (1_600, 1_200) };
    let origin = Origin::start(size, Duration::ZERO).await?;
    let mut deployment = Deployment::start(&program, &["london", "london"], &[]).await?;
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(deployment.serve("london", &[]).await?);
    }
    once_for_all(&mut report, &deployment, &replicas, &origin).await?;
    page(&mut report, &deployment, &replicas, &origin, quick).await?;
    lost_nodes(&mut report, &mut deployment, &replicas, &origin, quick).await?;
    drop((replicas, deployment));
    by_access(&mut report, &program, &origin).await?;
    little_room(&mut report, &program, &origin, quick).await?;
    report.note(format!(
        "{REPLICAS} replicas, each a process with both roles; 2 nodes; originals of {}x{}. Before: --naive, each \
         replica converts for each request.",
        size.0, size.1
    ));
    Ok(report)
}

async fn once_for_all(
    report: &mut Report,
    deployment: &Deployment,
    replicas: &[Process],
    origin: &Origin,
) -> Result<()> {
    for (number, replica) in replicas.iter().enumerate() {
        let answer = get(&deployment.http, &image(replica.address, origin, 0, "w=250")).await;
        anyhow::ensure!(answer.status == 200, "replica {number} answers {}", answer.status);
        if number == 0 {
            let started = deployment.sum(replicas, "images_conversions_started_total").await?;
            report.equal("conversions for the first request", 1, started);
        }
    }
    let started = deployment.sum(replicas, "images_conversions_started_total").await?;
    report.equal("… after the same request to the 4 others", 1, started);
    let urls = (0..50).map(|n| image(replicas[n % REPLICAS].address, origin, 1, "w=250")).collect();
    let answers = get_all(&deployment.http, urls, 50).await;
    let now = deployment.sum(replicas, "images_conversions_started_total").await?;
    report.equal("conversions for 50 requests at once", 1, now - started);
    report.equal("… of these failed", 0, failed(&answers));
    report.equal("fetches of the two originals", 2, origin.requests());
    Ok(())
}

/// A page of thumbnails, each of another original, over the connections of a browser.
async fn page(
    report: &mut Report,
    deployment: &Deployment,
    replicas: &[Process],
    origin: &Origin,
    quick: bool,
) -> Result<()> {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let rounds = if quick { 2 } else { 10 };
    let naive = deployment.serve("london", &["--naive", "--requests=64"]).await?;
    let load = async |process: &Process| {
        let urls = (0..PAGE).map(|n| image(process.address, origin, 100 + n, "w=250")).collect();
        let begin = now();
        let answers = get_all(&deployment.http, urls, CONNECTIONS).await;
        anyhow::ensure!(failed(&answers) == 0, "a thumbnail failed");
        Ok(now() - begin)
    };
    // Each replica finds what another one has made.
    load(&replicas[0]).await?;
    for round in 0..rounds {
        before.push(load(&naive).await?);
        after.push(load(&replicas[round % REPLICAS]).await?);
    }
    let (before, after) = (percentile(before, 0.5), percentile(after, 0.5));
    let seen = format!("{before:.1} -> {after:.1} ms, {:.1} times", before / after);
    let least = if quick { 1.0 } else { 8.0 };
    let expected = format!("at least {least} times faster");
    report.claim(
        "page of 12 thumbnails, p50, before -> after",
        expected,
        seen,
        before >= least * after,
    );
    Ok(())
}

/// A frozen node, and no node at all: images are made instead.
async fn lost_nodes(
    report: &mut Report,
    deployment: &mut Deployment,
    replicas: &[Process],
    origin: &Origin,
    quick: bool,
) -> Result<()> {
    let count = if quick { 10 } else { 100 };
    let requests =
        |first: usize| (0..count).map(move |n| (replicas[n % REPLICAS].address, first + n / 2));
    let urls =
        |first| requests(first).map(|(replica, n)| image(replica, origin, n, "w=120")).collect();
    progress("freezing one of two nodes");
    deployment.nodes[0].1.freeze(true)?;
    let answers = get_all(&deployment.http, urls(200), CONNECTIONS).await;
    deployment.nodes[0].1.freeze(false)?;
    report.equal("failed while a node is frozen", 0, failed(&answers));
    progress("killing both nodes");
    deployment.nodes.iter_mut().for_each(|(_, node)| node.kill());
    let answers = get_all(&deployment.http, urls(400), CONNECTIONS).await;
    report.equal("failed while there is no node", 0, failed(&answers));
    Ok(())
}

/// 100 entries are kept: the 101st evicts the one that was not asked for for the longest time.
async fn by_access(report: &mut Report, program: &std::path::Path, origin: &Origin) -> Result<()> {
    // The original is an entry, too.
    let deployment =
        Deployment::start(program, &["london"], &["--lru", "--max-entries=101"]).await?;
    let replica = deployment.serve("london", &["--near-bytes=0"]).await?;
    let params = |n: usize| format!("w={}&q={}", [20, 40, 60, 120, 250][n / 20], (n % 20 + 1) * 5);
    let ask = async |n: usize| {
        let params = if n == 100 { "w=330".to_owned() } else { params(n) };
        get(&deployment.http, &image(replica.address, origin, 0, &params)).await
    };
    for n in 0..100 {
        anyhow::ensure!(ask(n).await.status == 200, "variant {n} failed");
    }
    // All again, the first one last: the second is the oldest by access now.
    for n in (1..100).chain([0]) {
        ask(n).await;
    }
    ask(100).await;
    let mut missing = Vec::new();
    for n in (2..=100).chain([0]) {
        if ask(n).await.cache != "hit" {
            missing.push(n + 1);
        }
    }
    report.claim(
        "evicted by the 101st, beside the oldest by access",
        "none",
        format!("{missing:?}"),
        missing.is_empty(),
    );
    let oldest = ask(1).await.cache;
    report.equal("the oldest by access (the 2nd)", "miss", &oldest);
    Ok(())
}

/// Two writers, readers and a store that is always full.
async fn little_room(
    report: &mut Report,
    program: &std::path::Path,
    origin: &Origin,
    quick: bool,
) -> Result<()> {
    let count = if quick { 40 } else { 600 };
    for (name, flags) in [
        ("failed with two writers in a store of 20 entries", ["--max-entries=20", "--lru"]),
        ("failed with two writers in a store of 1 MiB", ["--max-bytes=1048576", "--lru"]),
    ] {
        let deployment = Deployment::start(program, &["london"], &flags).await?;
        let writers =
            [deployment.serve("london", &[]).await?, deployment.serve("london", &[]).await?];
        let urls = (0..count).map(|n| {
            let params = format!("w={}&q={}", [20, 40, 60, 120][n / 2 % 4], n / 8 % 20 * 5 + 5);
            image(writers[n % 2].address, origin, n / 2 % 6, &params)
        });
        let answers = get_all(&deployment.http, urls.collect(), CONNECTIONS).await;
        report.equal(name, 0, failed(&answers));
    }
    Ok(())
}
