//! Runs seeds and reports the outcome.

use std::{
    ops::Range,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use clap::Parser;
use zerocache_sim::{Counts, Outcome, Profile, Settings, Variant, replay, run};

/// Seeds are handed to the threads in pieces of this size.
const PIECE: u64 = 8;

/// Most violations that are printed one by one.
const PRINTED_MAX: usize = 40;

/// Simulates whole zerocache clusters, with faults, and checks what they promise.
#[derive(Parser)]
struct Args {
    /// The seeds to run: FIRST..END.
    #[arg(long, value_parser = parse_range, default_value = "0..200")]
    seeds: Range<u64>,
    /// One seed to run instead.
    #[arg(long)]
    seed: Option<u64>,
    /// The family of plans.
    #[arg(long, default_value = "small")]
    profile: Profile,
    /// The deliberate defect.
    #[arg(long, default_value = "none")]
    variant: Variant,
    /// Lets clients issue purges.
    #[arg(long)]
    purges: bool,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Prints the plan and what happens.
    #[arg(long)]
    trace: bool,
    /// Continues after a violation.
    #[arg(long)]
    keep_going: bool,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("a range is FIRST..END")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok(number(first)?..number(end)?)
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let settings = Settings {
        variant: args.variant,
        purges: args.purges,
        trace: args.trace,
        profile: args.profile,
    };
    let seeds = args.seed.map_or(args.seeds.clone(), |seed| seed..seed + 1);
    let (counts, runs, mut broken) = run_all(seeds, &settings, args.jobs, args.keep_going)?;
    broken.sort_by_key(|outcome| outcome.seed);
    println!("profile      {}, {runs} seeds, {} violations", args.profile.as_str(), broken.len());
    println!("{counts}");
    for outcome in broken.iter().take(PRINTED_MAX) {
        let Some(violation) = &outcome.violation else { continue };
        let at_s = violation.at_us as f64 / 1e6;
        println!("\nseed {} after {at_s:.6} s: {:?}", outcome.seed, violation.rule);
        println!("  {}\n  {}", violation.text, replay(outcome.seed, &settings));
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs all seeds on some threads, to the end or to the first that breaks a promise.
fn run_all(
    seeds: Range<u64>,
    settings: &Settings,
    jobs: usize,
    keep_going: bool,
) -> Result<(Counts, u64, Vec<Outcome>)> {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let total = Mutex::new((Counts::default(), 0, Vec::new()));
    let work = || {
        loop {
            let first = next.fetch_add(PIECE, Ordering::Relaxed);
            for seed in first..(first + PIECE).min(seeds.end) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let outcome = run(seed, settings);
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                total.0.add(&outcome.counts);
                total.1 += 1;
                if outcome.violation.is_some() {
                    total.2.push(outcome);
                    stop.store(!keep_going, Ordering::Relaxed);
                }
            }
            if first >= seeds.end {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for job in 0..jobs.max(1) {
            thread::Builder::new()
                .name(format!("seeds-{job}"))
                .spawn_scoped(scope, work)
                .context("no thread")?;
        }
        anyhow::Ok(())
    })?;
    total.into_inner().map_err(|_| anyhow::anyhow!("a run panicked"))
}
