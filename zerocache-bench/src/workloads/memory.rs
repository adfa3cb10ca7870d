//! The memory of an entry.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::{TASKS, Workload};
use crate::data::Data;
use crate::rounds::Run;
use crate::row::Row;
use crate::usage::resident_bytes;

/// The length of the values.
const VALUE_BYTES: usize = 100;
/// Entries that are written before memory is first read: what a server gets once, it has then.
const FIRST_ENTRIES: usize = 64;

/// Fills a fresh server of each contender, and compares its memory before and after.
///
/// Memory does not depend on who else uses the CPU: one round is enough.
pub async fn run(run: &mut Run) -> Result<()> {
    run.begin_step();
    let entries = run.settings.entries;
    let data = Arc::new(Data::new(entries, VALUE_BYTES, 0.0, 1.0, run.settings.seed));
    let first = Arc::new(Data::new(FIRST_ENTRIES, VALUE_BYTES, 0.0, 1.0, run.settings.seed));
    for kind in Workload::Memory.entrants(run) {
        if run.is_over() {
            break;
        }
        let contender = kind.start(&run.settings).await.with_context(|| kind.name())?;
        let resident =
            || -> Result<u64> { contender.servers().into_iter().map(resident_bytes).sum() };
        let mut load = contender.callers(TASKS).await?;
        load.fill(&first).await.with_context(|| kind.name())?;
        let before = resident()?;
        load.fill(&data).await.with_context(|| kind.name())?;
        let after = resident()?;
        let each = after.saturating_sub(before) as f64 / entries as f64;
        eprintln!("  memory: {} {each:.0} bytes for each of {entries} entries", kind.name());
        let row = Row::new(Workload::Memory.name(), TASKS, kind.name(), 0);
        run.rows.push(Row { bytes_each: Some(each), server_rss_bytes: Some(after as f64), ..row });
    }
    Ok(())
}
