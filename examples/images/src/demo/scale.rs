//! Three gateways, three workers; one more, one fewer.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::deployment::{Deployment, image};
use super::load::{at_rate, failed, get_all, metric};
use super::origin::Origin;
use super::processes::Process;
use super::report::{Report, progress};
use crate::placement::{WorkerAddress, ranked};
use crate::source::Source;

const WORKERS: usize = 3;

/// Originals whose workers are computed, as a gateway does.
const COMPUTED: usize = 20_000;

pub(super) async fn run(program: PathBuf, quick: bool) -> Result<Report> {
    let mut report = Report::default();
    let originals = if quick { 30 } else { 300 };
    let origin = Origin::start(if quick { (100, 75) } else { (400, 300) }, Duration::ZERO).await?;
    let deployment = Deployment::start(&program, &["london", "london"], &[]).await?;
    let mut workers = Vec::new();
    for number in 1..=WORKERS {
        workers.push(worker(&deployment, number).await?);
    }
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(
            deployment
                .serve("london", &["--role=gateway", "--name-worker", "--near-bytes=0"])
                .await?,
        );
    }
    see(&mut report, &deployment, &gateways, 3).await;
    balance(&mut report);

    let before = placed(&deployment, &gateways, &origin, originals, "w=20").await?;
    report.equal(
        "originals that all gateways place alike",
        originals,
        before.values().filter(|at| at.len() == 1).count(),
    );
    let used: std::collections::HashSet<_> = before.values().flatten().collect();
    report.equal("workers that were used", WORKERS, used.len());
    progress("adding a worker");
    workers.push(worker(&deployment, WORKERS + 1).await?);
    see(&mut report, &deployment, &gateways, WORKERS as u64 + 1).await;
    let after = placed(&deployment, &gateways, &origin, originals, "w=40").await?;
    let moved = before.iter().filter(|(number, at)| after.get(*number) != Some(*at)).count();
    let share = moved as f64 / originals as f64;
    let least_most = if quick { (0.02, 0.6) } else { (0.17, 0.33) };
    let holds = (least_most.0..=least_most.1).contains(&share);
    report.claim(
        "originals that move to it",
        "about 25 %",
        format!("{:.1} %", share * 100.0),
        holds,
    );

    progress("killing a worker under load");
    let mut killed = workers.remove(0);
    let (rate, time) =
        if quick { (40, Duration::from_secs(1)) } else { (100, Duration::from_secs(8)) };
    let gateway = |number: usize| gateways[number % gateways.len()].address;
    let total = (f64::from(rate) * time.as_secs_f64()) as usize;
    let mut left = Some(&mut killed);
    let answers = at_rate(&deployment.http, rate, time, |number| {
        if number >= total / 4 {
            left.take().into_iter().for_each(|worker| worker.kill());
        }
        image(gateway(number), &origin, number % (2 * originals), "w=60")
    });
    let answers = answers.await;
    report.equal("failed while a worker is killed", 0, failed(&answers));
    see(&mut report, &deployment, &gateways, 3).await;
    let mut parsed = 0;
    for process in gateways.iter().chain(&workers) {
        let nodes = metric(&deployment.http, process.address, "images_cache_nodes").await;
        parsed += usize::from(nodes.is_ok());
    }
    report.equal("processes whose metrics were parsed", gateways.len() + workers.len(), parsed);
    report.note(
        "Workers are found through 64 entries of the cache, which each worker renews every 2 s; they live 5 s. A worker \
         that does not answer is passed over at once.",
    );
    Ok(report)
}

async fn worker(deployment: &Deployment, number: usize) -> Result<Process> {
    deployment.serve("london", &["--role=worker", &format!("--name=worker-{number}")]).await
}

async fn see(report: &mut Report, deployment: &Deployment, gateways: &[Process], workers: u64) {
    let mut seeing = 0;
    for gateway in gateways {
        let seen = deployment.wait_for(gateway.address, "images_workers", workers).await;
        seeing += usize::from(seen.is_ok());
    }
    report.equal(&format!("gateways that see {workers} workers"), gateways.len(), seeing);
}

/// The balance of many originals, computed as a gateway does.
fn balance(report: &mut Report) {
    let worker = |n: usize| WorkerAddress { name: format!("worker-{n}"), address: String::new() };
    let workers: Vec<_> = (1..=WORKERS).map(worker).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let sources =
        (0..COMPUTED).filter_map(|n| Source::parse(&format!("https://example.org/{n}.jpg")).ok());
    for source in sources {
        *counts.entry(&ranked(&workers, source.hash())[0].name).or_default() += 1;
    }
    let most =
        counts.values().copied().max().unwrap_or(0) as f64 / (COMPUTED as f64 / WORKERS as f64);
    report.claim(
        "largest share of 20,000 originals / mean",
        "at most 1.05",
        format!("{most:.3}"),
        most <= 1.05,
    );
}

/// The workers that each original was made by, over all gateways: one, if they agree.
async fn placed(
    deployment: &Deployment,
    gateways: &[Process],
    origin: &Origin,
    originals: usize,
    size: &str,
) -> Result<HashMap<usize, Vec<String>>> {
    let mut placed: HashMap<usize, Vec<String>> = HashMap::new();
    for (at, gateway) in gateways.iter().enumerate() {
        for number in 0..originals {
            // A variant of its own for each gateway, so that each asks a worker.
            let url = image(gateway.address, origin, number, &format!("{size}&q={}", 50 + at * 5));
            let answer =
                get_all(&deployment.http, vec![url], 1).await.pop().context("an answer")?;
            anyhow::ensure!(answer.status == 200, "original {number} failed: {}", answer.status);
            let names = placed.entry(number).or_default();
            if !names.contains(&answer.worker) {
                names.push(answer.worker);
            }
        }
    }
    Ok(placed)
}
