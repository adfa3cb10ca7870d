//! One task with everything on one core: this program once more, pinned, with pinned children.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::clock;
use crate::platform::last_core;
use crate::process::{Process, own_executable};
use crate::rounds::{Run, STOPPED};
use crate::row::Row;

/// The time that the child may run beyond its limit, to finish its last turn.
const OVERTIME_MAX: Duration = Duration::from_secs(20);

/// Runs the child with the same options and takes its rows.
pub async fn run(run: &mut Run, argv: &[OsString]) -> Result<()> {
    let core = run.settings.core.map_or_else(last_core, Ok)?;
    let directory = tempfile::Builder::new().prefix("zerocache-bench-").tempdir()?;
    let rows = directory.path().join("rows.csv");
    let mut args = argv.to_vec();
    args.extend(["--pinned-core".into(), core.to_string().into()]);
    args.extend(["--pinned-csv".into(), rows.clone().into()]);
    let until = run.begin_step();
    let left = until.saturating_duration_since(clock::now());
    // The last one of an option counts.
    args.extend(["--max-minutes".into(), (left.as_secs_f64() / 60.0).to_string().into()]);
    let mut child = Process::start_inheriting_output(own_executable()?.as_os_str(), &args)?;
    let succeeded = loop {
        if let Some(succeeded) = child.ended()? {
            break succeeded;
        }
        ensure!(clock::now() < until + OVERTIME_MAX, "the pinned process does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    import(run, &std::fs::read_to_string(&rows).unwrap_or_default())?;
    ensure!(succeeded || run.errors() > 0, "the pinned process failed");
    Ok(())
}

/// The prefixes of lines that are not rows: the number of repeated turns, and notes.
const DISTURBED: &str = "disturbed ";
const NOTE: &str = "note ";

/// Encodes the results of a child for its parent.
pub fn export(run: &Run) -> String {
    let rows = run.rows.iter().map(|row| row.to_csv() + "\n");
    // The end of its share of the time is not the end of the time.
    let notes = run.notes.iter().filter(|note| *note != STOPPED);
    let notes = notes.map(|note| format!("{NOTE}{note}\n"));
    rows.chain(notes).chain([format!("{DISTURBED}{}\n", run.disturbed)]).collect()
}

fn import(run: &mut Run, left: &str) -> Result<()> {
    for line in left.lines() {
        if let Some(count) = line.strip_prefix(DISTURBED) {
            run.disturbed += count.parse::<usize>()?;
        } else if let Some(note) = line.strip_prefix(NOTE) {
            run.note(note.to_owned());
        } else {
            run.rows.push(Row::from_csv(line)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use clap::Parser;

    #[test]
    fn parent_imports_the_results_of_its_child() {
        let run = || Run::new(Args::parse_from(["x"]).settings().expect("settings"));
        let (mut child, mut parent) = (run(), run());
        child.rows.push(Row::new("single", 1, "redis", 0));
        child.disturbed = 2;
        child.note("a note".to_owned());
        child.note(STOPPED.to_owned());
        import(&mut parent, &export(&child)).expect("taken");
        assert_eq!(parent.rows, child.rows);
        assert_eq!((parent.disturbed, parent.notes), (2, vec!["a note".to_owned()]));
    }
}
