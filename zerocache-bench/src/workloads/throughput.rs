//! Callers that work as fast as they are answered.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::{TASKS, Workload};
use crate::data::Data;
use crate::rounds::{Entrant, Run};

/// Measures with each number of tasks, one after the other, on servers that are started and filled
/// once.
pub async fn run(
    workload: Workload,
    run: &mut Run,
    tasks: &[usize],
    read_share: f64,
) -> Result<()> {
    let kinds = workload.entrants(run);
    let settings = run.settings.clone();
    let data =
        Data::new(settings.keys, settings.value_bytes, settings.skew, read_share, settings.seed);
    let data = Arc::new(data);
    let mut contenders: Vec<Entrant> = Vec::new();
    for kind in kinds {
        let contender = workload.start(kind, &settings).await.with_context(|| kind.name())?;
        contender.callers(TASKS).await?.fill(&data).await.with_context(|| kind.name())?;
        contenders.push((kind.name(), contender));
    }
    for tasks in tasks {
        run.interleave(workload.name(), *tasks, &data, &contenders).await?;
    }
    for (name, contender) in &contenders {
        if let Some(fault) = contender.fault().await? {
            run.fail(format!("{} {name}: {fault}", workload.name()));
        }
    }
    Ok(())
}
