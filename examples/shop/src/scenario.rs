//! The phases, in order: no cache, cold, warm, a node's death, updates, no node at all.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::deployment::{Deployment, REGIONS, Size};
use crate::load::Load;
use crate::report::{Name, Phase, Report};
use crate::updates::{Update, update};

/// The time-out of an update and of each read of a page.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// The arguments of a run.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Plan {
    /// The size of the deployment.
    #[command(flatten)]
    pub size: Size,
    /// The duration of each phase, in milliseconds.
    #[arg(long, default_value_t = 6_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub phase_ms: u64,
    /// Clients in each region.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: u32,
    /// The pause between two requests of a client, in milliseconds.
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub pause_ms: u64,
    /// Products whose price is updated.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub updates: u32,
}

/// Runs everything, with `program` as the program of every process. Calls `started` when all of them
/// serve.
///
/// # Errors
/// If a process does not start or does not answer. A failed request of a customer is not an error:
/// it is in the report.
pub async fn run(program: &Path, plan: Plan, started: impl FnOnce(&Report)) -> Result<Report> {
    let mut deployment = Deployment::start(program, plan.size).await?;
    let mut report = Report::new(&deployment, plan.size);
    started(&report);
    // The database's own caches fill first, so that no phase measures a cold disk.
    load(&deployment, plan, Name::Without).run().await?;
    for name in [Name::Without, Name::Cold, Name::Warm] {
        let (phase, ()) = run_phase(&deployment, plan, name, async { Ok(()) }).await?;
        report.phases.push(phase);
    }

    let mut victim = deployment.take_node(REGIONS[0])?;
    let killing = async move {
        tokio::time::sleep(Duration::from_millis(plan.phase_ms / 3)).await;
        victim.kill()?;
        Ok(victim)
    };
    let (phase, victim) = run_phase(&deployment, plan, Name::NodeKilled, killing).await?;
    report.phases.push(phase);
    report.killed = Some(victim.address);

    let updating = run_updates(&deployment, plan);
    let (phase, updates) = run_phase(&deployment, plan, Name::Updates, updating).await?;
    report.phases.push(phase);
    report.updates = updates;

    for region in REGIONS {
        while let Ok(mut node) = deployment.take_node(region) {
            node.kill()?;
        }
    }
    let (phase, ()) = run_phase(&deployment, plan, Name::NoNode, async { Ok(()) }).await?;
    report.phases.push(phase);
    Ok(report)
}

/// Sends the load of a phase, while something else happens.
async fn run_phase<T>(
    deployment: &Deployment,
    plan: Plan,
    name: Name,
    meanwhile: impl Future<Output = Result<T>>,
) -> Result<(Phase, T)> {
    eprintln!("{name} ...");
    let before = deployment.counters().await?;
    let load = load(deployment, plan, name);
    let (answers, other) = tokio::try_join!(load.run(), meanwhile)?;
    let counted = deployment.counters().await?.since(before);
    Ok((Phase { name, answers, counted }, other))
}

/// The requests of customers in a phase.
fn load(deployment: &Deployment, plan: Plan, name: Name) -> Load {
    Load {
        regions: deployment.services_by_region(),
        clients: plan.clients,
        every: Duration::from_millis(plan.pause_ms),
        lasts: Duration::from_millis(plan.phase_ms),
        products: plan.size.stock.products,
        caching: name != Name::Without,
        seed: name as u64,
    }
}

/// Updates the most popular products, one after the other, through the first process.
async fn run_updates(deployment: &Deployment, plan: Plan) -> Result<Vec<Update>> {
    let http = reqwest::Client::builder().timeout(ANSWER_MAX).build()?;
    let all: Vec<_> = deployment.services.iter().map(|service| service.address).collect();
    let mut updates = Vec::new();
    for product in 1..=plan.updates.min(plan.size.stock.products) {
        updates.push(update(&http, product, all[0], &all).await?);
    }
    Ok(updates)
}
