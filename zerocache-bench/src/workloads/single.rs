//! One task with everything on one core: this program once more, pinned, with pinned children.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::clock;
use crate::platform::last_core;
use crate::process::{Process, own_executable};
use crate::rounds::Run;
use crate::row::Row;

/// How long the child may go on after the end of the time, to end its last turn.
const OVERTIME_MAX: Duration = Duration::from_secs(20);

/// Runs the child with the same options and takes its rows.
pub async fn run(run: &mut Run, argv: &[OsString]) -> Result<()> {
    let core = run.settings.core.map_or_else(last_core, Ok)?;
    let directory = tempfile::Builder::new().prefix("zerocache-bench-").tempdir()?;
    let rows = directory.path().join("rows.csv");
    let mut args = argv.to_vec();
    args.extend(["--pinned-core".into(), core.to_string().into()]);
    args.extend(["--pinned-csv".into(), rows.clone().into()]);
    let left = run.deadline.saturating_duration_since(clock::now());
    // The last one of an option counts.
    args.extend(["--max-minutes".into(), (left.as_secs_f64() / 60.0).to_string().into()]);
    let mut child = Process::start_heard(own_executable()?.as_os_str(), &args)?;
    let succeeded = loop {
        if let Some(succeeded) = child.ended()? {
            break succeeded;
        }
        ensure!(clock::now() < run.deadline + OVERTIME_MAX, "the pinned process does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let text = std::fs::read_to_string(&rows).unwrap_or_default();
    for line in text.lines() {
        match line.strip_prefix(DISTURBED) {
            Some(count) => run.disturbed += count.parse::<usize>()?,
            None => run.rows.push(Row::from_csv(line)?),
        }
    }
    ensure!(succeeded || run.errors() > 0, "the pinned process failed");
    Ok(())
}

/// What the line with the number of repeated turns begins with.
const DISTURBED: &str = "disturbed ";

/// What the child leaves for its parent.
pub fn rows_for_parent(run: &Run) -> String {
    let rows = run.rows.iter().map(|row| row.to_csv() + "\n");
    rows.chain([format!("{DISTURBED}{}\n", run.disturbed)]).collect()
}
