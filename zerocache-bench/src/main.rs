//! Measures zerocache beside what people use for the same job today: `docs/benchmarks.md`.

mod args;
mod before;
mod child_roles;
mod clock;
mod contenders;
mod data;
mod measure;
mod platform;
mod popularity;
mod process;
mod report;
mod rounds;
mod row;
mod summary;
mod targets;
mod usage;
mod workloads;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use args::Args;
use rounds::Run;

/// Workers of the runtime of the callers; one when everything is pinned to one core.
const WORKERS: usize = 2;
/// The time that the program may run beyond its limit, to finish the current turn.
const OVERTIME_MAX: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if let Some(code) = child_roles::run() {
        return code;
    }
    let args = Args::parse();
    match run(&args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("error: {errors} tasks failed; the figures are worth nothing");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures everything, and returns how many tasks failed.
fn run(args: &Args) -> Result<usize> {
    let settings = args.settings()?;
    if let Some(core) = settings.pinned_core {
        platform::pin(core)?;
    }
    let workers = if settings.pinned_core.is_some() { 1 } else { WORKERS };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?;
    let sides = match &args.before {
        Some(before) => Some(before::builds(before)?),
        None if args.hot_keys => Some(before::hot_key_modes()?),
        None => None,
    };
    if let Some(sides) = sides {
        let compared = runtime.block_on(until_stopped(before::compare(&settings, &sides)));
        runtime.shutdown_background();
        let rows = compared?;
        print!("{}", before::text(&rows, &sides));
        return leave_rows(args, &rows).map(|()| 0);
    }
    let mut run = Run::new(settings);
    // On this thread, which lasts as long as the process: see `Process::start`.
    let done = runtime.block_on(until_stopped(measure(&mut run)));
    runtime.shutdown_background();
    done?;
    match &args.pinned_csv {
        Some(path) => std::fs::write(path, workloads::export_for_parent(&run))?,
        None => print(args, &run)?,
    }
    Ok(run.errors())
}

async fn measure(run: &mut Run) -> Result<()> {
    let argv: Vec<OsString> = std::env::args_os().skip(1).collect();
    let workloads = run.settings.workloads.clone();
    let longest = run.settings.time_max + OVERTIME_MAX;
    let all = async {
        for workload in workloads {
            workload.run(run, &argv).await.with_context(|| workload.name())?;
        }
        Ok(())
    };
    tokio::time::timeout(longest, all).await.context("no end")?
}

/// Ends the work, and with it all children, when this process is asked to end.
async fn until_stopped<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

fn print(args: &Args, run: &Run) -> Result<()> {
    print!("{}", report::text(run));
    leave_rows(args, &run.rows)
}

fn leave_rows(args: &Args, rows: &[row::Row]) -> Result<()> {
    let path = match &args.csv {
        Some(path) => path.clone(),
        None => process::own_executable()?.with_file_name("zerocache-bench.csv"),
    };
    report::write_csv(&path, rows)?;
    println!("every turn: {}", path.display());
    Ok(())
}
