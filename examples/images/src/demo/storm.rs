//! One of eight nodes dies under load: no recompute storm.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::deployment::{Deployment, image};
use super::load::{Answer, Zipf, at_rate, failed, metric, percentile};
use super::origin::Origin;
use super::processes::Process;
use super::report::{Report, progress};

/// The conversions at once of a worker.
const CAP: u64 = 2;

/// The interval in which the running conversions are looked at.
const SAMPLE: Duration = Duration::from_millis(100);

struct Plan {
    per_second: u32,
    phase: Duration,
    originals: usize,
    size: (u32, u32),
}

pub(super) async fn run(program: PathBuf, quick: bool) -> Result<Report> {
    let second = Duration::from_secs;
    let plan = match quick {
        true => Plan { per_second: 40, phase: second(1), originals: 50, size: (200, 150) },
        false => Plan { per_second: 200, phase: second(15), originals: 2_000, size: (800, 600) },
    };
    let mut report = Report::default();
    let origin = Origin::start(plan.size, Duration::ZERO).await?;
    let mut deployment = Deployment::start(&program, &["london"; 8], &[]).await?;
    let conversions = format!("--conversions={CAP}");
    let workers = [
        deployment.serve("london", &[&conversions]).await?,
        deployment.serve("london", &[&conversions]).await?,
    ];
    let mut zipf = Zipf::new(plan.originals);
    progress("filling the cache");
    phase(&deployment, &workers, &origin, &plan, &mut zipf).await?;
    let before = phase(&deployment, &workers, &origin, &plan, &mut zipf).await?;
    progress("killing a node");
    deployment.nodes.pop().context("a node")?.1.kill();
    let after = phase(&deployment, &workers, &origin, &plan, &mut zipf).await?;
    let seen = format!("{:.1} -> {:.1}", before.per_second, after.per_second);
    // The tail of the distribution gets warmer all the time; a handful more or fewer is chance.
    let most = 1.1 * before.per_second + 1.0;
    let holds = after.per_second <= most;
    report.claim(
        "conversions per second, before -> after a node's death",
        "at most 1.1 times",
        seen,
        holds,
    );
    report.equal("failed before and after", 0, failed(&before.answers) + failed(&after.answers));
    let running = before.running_max.max(after.running_max);
    report.claim(
        "conversions at once in a worker",
        format!("at most {CAP}"),
        running,
        running <= CAP,
    );
    drop(workers);

    progress("the same without coalescing, cap and cache");
    let naive = [
        deployment.serve("london", &["--naive"]).await?,
        deployment.serve("london", &["--naive"]).await?,
    ];
    let alone = phase(&deployment, &naive, &origin, &plan, &mut zipf).await?;
    let p99 =
        |phase: &Phase| percentile(phase.answers.iter().map(|answer| answer.took).collect(), 0.99);
    let more = alone.per_second > 2.0 * after.per_second;
    let seen = format!("{:.1} per second", alone.per_second);
    report.claim("conversions without the cache", "more than twice as many", seen, more);
    report.note(format!(
        "{} requests/s by zipf over {} originals of {}x{}, {} s each; p99 {:.0} ms before, {:.0} ms after, {:.0} ms \
         naive, at most {} conversions at once there, {} failed. 8 nodes with full copies: placement of N replicas does \
         not exist yet, so no key is lost with a node.",
        plan.per_second, plan.originals, plan.size.0, plan.size.1, plan.phase.as_secs(),
        p99(&before), p99(&after), p99(&alone), alone.running_max, failed(&alone.answers),
    ));
    Ok(report)
}

struct Phase {
    /// Conversions per second.
    per_second: f64,
    /// The most conversions at once that were seen in a process.
    running_max: u64,
    answers: Vec<Answer>,
}

async fn phase(
    deployment: &Deployment,
    workers: &[Process; 2],
    origin: &Origin,
    plan: &Plan,
    zipf: &mut Zipf,
) -> Result<Phase> {
    let started = deployment.sum(workers, "images_conversions_started_total").await?;
    let running_max = Arc::new(AtomicU64::new(0));
    let addresses = workers.each_ref().map(|worker| worker.address);
    let watch = tokio::spawn({
        let (http, most) = (deployment.http.clone(), Arc::clone(&running_max));
        async move {
            loop {
                for address in addresses {
                    let running =
                        metric(&http, address, "images_conversions_running").await.unwrap_or(0);
                    most.fetch_max(running, Ordering::Relaxed);
                }
                tokio::time::sleep(SAMPLE).await;
            }
        }
    });
    let answers = at_rate(&deployment.http, plan.per_second, plan.phase, |number| {
        image(addresses[number % 2], origin, zipf.draw(), "w=250&h=250&fit=cover")
    });
    let answers = answers.await;
    watch.abort();
    let started = deployment.sum(workers, "images_conversions_started_total").await? - started;
    let per_second = started as f64 / plan.phase.as_secs_f64();
    Ok(Phase { per_second, running_max: running_max.load(Ordering::Relaxed), answers })
}
