//! This program beside an older build of itself, or beside itself with nodes that have another option: whether
//! an operation costs more CPU.
//!
//! A build contains both sides, client and node. In each round each of the two is started once for
//! each workload, with the options that both know, and measures one round of its own.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::args::Settings;
use crate::clock;
use crate::process::{Process, own_executable};
use crate::row::Row;
use crate::summary::{Spread, groups};
use crate::workloads::Workload;

/// The workloads that are compared by default.
pub const WORKLOADS: [Workload; 3] = [Workload::Get, Workload::Single, Workload::PutRegion];
/// Rounds unless something else is asked for: enough for an interval that is worth something.
pub const ROUNDS: usize = 15;
/// A round in which other processes used the CPU is replaced. This is the largest factor by which
/// the number of rounds may grow.
const ATTEMPTS_MAX: usize = 2;
/// The time that one child may run beyond its limit.
const OVERTIME_MAX: Duration = Duration::from_secs(90);
/// Workers of a child that starts servers and callers of its own; it gives these their own numbers.
const WORKERS: usize = 2;

/// One of the two that are compared.
pub struct Side {
    /// Its name in tables.
    name: &'static str,
    program: PathBuf,
    /// What its nodes get as `--hot-keys`.
    hot_keys: Option<&'static str>,
}

/// Returns this build and an older one.
pub fn builds(before: &Path) -> Result<[Side; 2]> {
    let side = |name, program| Side { name, program, hot_keys: None };
    Ok([side("now", own_executable()?), side("before", std::fs::canonicalize(before)?)])
}

/// Returns this build with nodes that count hot keys, and with nodes that do not.
pub fn hot_key_modes() -> Result<[Side; 2]> {
    let program = own_executable()?;
    let side = |name| Side { name, program: program.clone(), hot_keys: Some(name) };
    Ok([side("hash"), side("off")])
}

/// Runs both builds alternately, and returns the rows of all rounds.
pub async fn compare(settings: &Settings, sides: &[Side; 2]) -> Result<Vec<Row>> {
    ensure!(
        settings.workloads.iter().all(|workload| workload.has_callers()),
        "CPU per operation is compared: memory and idle have no operations"
    );
    let directory = tempfile::Builder::new().prefix("zerocache-bench-").tempdir()?;
    let csv = directory.path().join("rows.csv");
    let until = clock::now() + settings.time_max;
    let (mut rows, mut kept) = (Vec::new(), 0);
    for round in 0..settings.rounds * ATTEMPTS_MAX {
        if kept == settings.rounds || clock::now() >= until {
            break;
        }
        let mut turns: Vec<Row> = Vec::new();
        for workload in &settings.workloads {
            // Each is the first in every other round.
            for place in 0..sides.len() {
                let side = &sides[(place + round) % sides.len()];
                let name = side.name;
                let turn = turn(settings, *workload, side, &csv).await;
                let turn = turn.with_context(|| format!("{name}, {}", workload.name()))?;
                turns.extend(turn.into_iter().map(|row| {
                    let contender = name.to_owned();
                    Row { contender, round, ..row }
                }));
            }
        }
        let good = turns.iter().all(|row| row.kept);
        kept += usize::from(good);
        turns.iter_mut().for_each(|row| row.kept = good);
        eprintln!("  round {}: {}", round + 1, if good { "counts" } else { "was disturbed" });
        rows.extend(turns);
    }
    Ok(rows)
}

/// One program measures one workload, once.
async fn turn(
    settings: &Settings,
    workload: Workload,
    side: &Side,
    csv: &Path,
) -> Result<Vec<Row>> {
    // Leftovers of an earlier turn are not the result of this one.
    let _none_left = std::fs::remove_file(csv);
    let mut args = arguments(settings, workload, csv);
    if let Some(mode) = side.hot_keys {
        args.extend(["--hot-keys-mode".into(), mode.into()]);
    }
    let mut child = Process::start(side.program.as_os_str(), &args, WORKERS)?;
    let until = clock::now() + settings.workload_time_max() + OVERTIME_MAX;
    let succeeded = loop {
        if let Some(succeeded) = child.ended()? {
            break succeeded;
        }
        ensure!(clock::now() < until, "it does not end\n{}", child.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    if !succeeded {
        bail!("it failed\n{}", child.log());
    }
    let text = std::fs::read_to_string(csv).context("it left no figures")?;
    text.lines().skip(1).map(Row::from_csv).collect()
}

/// Options that every build has had.
fn arguments(settings: &Settings, workload: Workload, csv: &Path) -> Vec<OsString> {
    let tasks: Vec<_> = settings.tasks.iter().map(ToString::to_string).collect();
    let contender = workload.ours().to_possible_value();
    let contender = contender.map(|value| value.get_name().to_owned()).unwrap_or_default();
    let minutes = settings.workload_time_max().as_secs_f64() / 60.0;
    let pairs = [
        ("--workload", workload.name().to_owned()),
        ("--contenders", contender),
        ("--tasks", tasks.join(",")),
        ("--keys", settings.keys.to_string()),
        ("--value-bytes", settings.value_bytes.to_string()),
        ("--skew", settings.skew.to_string()),
        ("--read-share", settings.read_share.to_string()),
        ("--rounds", "1".to_owned()),
        ("--seconds", settings.turn.as_secs_f64().to_string()),
        ("--warmup", settings.warmup.as_secs_f64().to_string()),
        ("--other-cpu", settings.other_cpu_max.to_string()),
        ("--repeats", settings.repeats.to_string()),
        ("--max-minutes", minutes.to_string()),
        ("--server-threads", settings.server_threads.to_string()),
        ("--seed", settings.seed.to_string()),
    ];
    let mut args: Vec<OsString> =
        pairs.into_iter().flat_map(|(name, value)| [name.into(), value.into()]).collect();
    args.extend(settings.core.iter().flat_map(|core| ["--core".into(), core.to_string().into()]));
    args.extend(["--csv".into(), csv.as_os_str().to_owned()]);
    args
}

/// The comparison for people.
pub fn text(rows: &[Row], [first, second]: &[Side; 2]) -> String {
    let names = [first.name, second.name];
    let mut out = format!(
        "CPU per operation, client and node together: {} / {}, median over rounds\n",
        names[0], names[1]
    );
    for group in groups(rows) {
        let (ratios, rounds) = (group.ratios(names[0], names[1], Row::cpu_us), group.rounds());
        let doubt = if group.inconclusive { "; every one was disturbed" } else { "" };
        let _ = write!(out, "  {} {}: ", group.workload, group.tasks);
        let Some(ratio) = Spread::of(ratios.clone()) else {
            out.push_str("no round\n");
            continue;
        };
        let _ = write!(out, "{:.3}", ratio.median);
        match interval(ratios) {
            Some((low, high)) => {
                let _ = write!(out, " ({low:.3} to {high:.3} at 95 %)");
            }
            None => {
                let _ = write!(out, " (too few rounds for an interval)");
            }
        }
        let of = |name| group.figure(name, Row::cpu_us).map_or(0.0, |spread| spread.median);
        let [one, other] = names.map(of);
        let _ = writeln!(out, ", {one:.2} / {other:.2} us, {rounds} rounds{doubt}");
    }
    out
}

/// Between which two of the numbers the true median lies with a probability of at least 95 %,
/// whatever their distribution: each is above it as likely as below. None for fewer than six.
fn interval(mut numbers: Vec<f64>) -> Option<(f64, f64)> {
    numbers.sort_by(f64::total_cmp);
    let count = numbers.len();
    // The probability that fewer than `outside` of all are below the median, and grows with it.
    let (mut outside, mut term, mut sum) = (0, 0.5_f64.powi(i32::try_from(count).ok()?), 0.0);
    while outside < count {
        sum += term;
        if sum > 0.025 {
            break;
        }
        outside += 1;
        term *= (count + 1 - outside) as f64 / outside as f64;
    }
    (outside > 0).then(|| (numbers[outside - 1], numbers[count - outside]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_that_of_the_sign_test() {
        let numbers = |count: i32| (1..=count).map(f64::from).collect::<Vec<_>>();
        assert_eq!(interval(numbers(5)), None);
        assert_eq!(interval(numbers(6)), Some((1.0, 6.0)));
        // Tables of the sign test: the 4th of 15 from either end, the 6th of 20.
        assert_eq!(interval(numbers(15)), Some((4.0, 12.0)));
        assert_eq!(interval(numbers(20)), Some((6.0, 15.0)));
    }

    #[test]
    fn ratios_are_of_both_sides_together() {
        let row = |contender: &str, round, client, server| Row {
            client_cpu_us: Some(client),
            server_cpu_us: Some(server),
            ..Row::new("get", 64, contender, round)
        };
        let rows: Vec<_> = (0..15)
            .flat_map(|round| [row("hash", round, 2.0, 2.0), row("off", round, 3.0, 2.0)])
            .collect();
        let text = text(&rows, &hot_key_modes().expect("a path"));
        assert!(text.contains("get 64: 0.800 (0.800 to 0.800 at 95 %), 4.00 / 5.00 us"), "{text}");
    }
}
