//! The options, and what they come to.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use crate::before;
use crate::contenders::Kind;
use crate::data::MARK_BYTES;
use crate::process::START_MAX;
use crate::workloads::Workload;

/// What `--tls` compares, and for which workloads.
const TLS_CONTENDERS: [Kind; 2] = [Kind::Zerocache, Kind::ZerocacheTls];
const TLS_WORKLOADS: [Workload; 4] =
    [Workload::Get, Workload::Single, Workload::PutRegion, Workload::Idle];

/// Benchmarks zerocache beside Redis, memcached and raw TCP on this machine's loopback, with the
/// same keys, values and concurrency, in alternating turns
#[derive(Clone, Debug, Parser)]
#[command(name = "zerocache-bench", version, max_term_width = 100)]
pub struct Args {
    /// Workloads; a list [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub workload: Vec<Workload>,

    /// Contenders; a list [default: all installed ones of the workload, except redis2]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub contenders: Vec<Kind>,

    /// Numbers of concurrent tasks for the workload get; a list [default: 16,64,256]
    #[arg(long, value_name = "COUNTS", value_delimiter = ',')]
    pub tasks: Vec<usize>,

    /// Keys that are read and written [default: 10000]
    #[arg(long, value_name = "COUNT")]
    pub keys: Option<usize>,

    /// Length of every value
    #[arg(long, value_name = "BYTES", default_value_t = 1_024)]
    pub value_bytes: usize,

    /// Exponent of Zipf's law for the keys; 0 is uniform
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0)]
    pub skew: f64,

    /// Share of reads in the workload get, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub read_share: f64,

    /// Rounds, each with one turn of every contender [default: 5]
    #[arg(long, value_name = "COUNT")]
    pub rounds: Option<usize>,

    /// Duration of a turn [default: 2]
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,

    /// Warm-up before each turn [default: 0.3]
    #[arg(long, value_name = "SECONDS")]
    pub warmup: Option<f64>,

    /// CPU use of other processes above which a turn is repeated, as a share of one core [default:
    /// 0.1]
    #[arg(long, value_name = "SHARE")]
    pub other_cpu: Option<f64>,

    /// Repetitions of a disturbed turn before its round is dropped
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    pub repeats: usize,

    /// Time limit of the whole run
    #[arg(long, value_name = "MINUTES", default_value_t = 15.0, overrides_with = "max_minutes")]
    pub max_minutes: f64,

    /// Entries of the workload memory [default: 500000]
    #[arg(long, value_name = "COUNT")]
    pub entries: Option<usize>,

    /// Connections of the workload idle [default: 1000]
    #[arg(long, value_name = "COUNT")]
    pub connections: Option<usize>,

    /// A zerocache-server to start instead of the one that is built into this program
    #[arg(long, value_name = "PATH")]
    pub server: Option<PathBuf>,

    /// An older build of this program to compare with in the same rounds: prints the ratio of CPU
    /// time per operation [workloads: get, single, put-region; rounds: 15]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["server", "contenders"])]
    pub before: Option<PathBuf>,

    /// Measures zerocache encrypted beside zerocache in clear text [workloads: get, single, put-region, idle]
    #[arg(long, conflicts_with_all = ["before", "contenders", "server"])]
    pub tls: bool,

    /// Measures nodes with `--hot-keys hash` beside nodes with `--hot-keys off` in the same rounds: prints the
    /// ratio of CPU per operation [workload: get; rounds: 15]
    #[arg(long, conflicts_with_all = ["before", "tls", "contenders", "server"])]
    pub hot_keys: bool,

    /// `--hot-keys` of the nodes that are started
    #[arg(long, hide = true, value_name = "MODE")]
    pub hot_keys_mode: Option<String>,

    /// Threads of every server but Redis, which has one for commands
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    pub server_threads: usize,

    /// The core of the workload single [default: the last one]
    #[arg(long, value_name = "NUMBER")]
    pub core: Option<usize>,

    /// Seed of the order of keys
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,

    /// CSV file for all turns [default: zerocache-bench.csv beside this program]
    #[arg(long, value_name = "PATH")]
    pub csv: Option<PathBuf>,

    /// Tiny defaults for a smoke test; the figures mean nothing
    #[arg(long)]
    pub quick: bool,

    /// Measure `single` here, pinned to this core; what this program starts itself with
    #[arg(long, hide = true, value_name = "NUMBER")]
    pub pinned_core: Option<usize>,

    /// File for the rows of that measurement
    #[arg(long, hide = true, value_name = "PATH")]
    pub pinned_csv: Option<PathBuf>,
}

/// The options with their defaults, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    pub workloads: Vec<Workload>,
    pub contenders: Vec<Kind>,
    pub tasks: Vec<usize>,
    pub keys: usize,
    pub value_bytes: usize,
    pub skew: f64,
    pub read_share: f64,
    pub rounds: usize,
    pub turn: Duration,
    pub warmup: Duration,
    pub other_cpu_max: f64,
    pub repeats: usize,
    pub time_max: Duration,
    pub entries: usize,
    pub connections: usize,
    pub server: Option<PathBuf>,
    pub server_threads: usize,
    /// The byte budget of every server: more than any workload needs.
    pub server_bytes: u64,
    /// `--hot-keys` of nodes; none for their default.
    pub hot_keys_mode: Option<String>,
    pub core: Option<usize>,
    pub pinned_core: Option<usize>,
    pub seed: u64,
    pub quick: bool,
}

impl Args {
    /// Puts defaults where nothing was given.
    pub fn settings(&self) -> Result<Settings> {
        let quick = self.quick;
        let count =
            |given: Option<usize>, tiny, full| given.unwrap_or(if quick { tiny } else { full });
        let seconds =
            |given: Option<f64>, tiny, full| given.unwrap_or(if quick { tiny } else { full });
        let tasks = if quick { vec![4] } else { vec![16, 64, 256] };
        let (turn, warmup) = (seconds(self.seconds, 0.15, 2.0), seconds(self.warmup, 0.05, 0.3));
        let all = Workload::value_variants().to_vec();
        let pinned = self.pinned_core.map(|_| vec![Workload::Single]);
        let (all, rounds) = match self.before {
            Some(_) => (before::WORKLOADS.to_vec(), before::ROUNDS),
            None if self.hot_keys => (vec![Workload::Get], before::ROUNDS),
            None if self.tls => (TLS_WORKLOADS.to_vec(), 5),
            None => (all, 5),
        };
        let settings = Settings {
            workloads: pinned.unwrap_or_else(|| given_or(&self.workload, all)),
            contenders: if self.tls { TLS_CONTENDERS.to_vec() } else { self.contenders.clone() },
            tasks: given_or(&self.tasks, tasks),
            keys: count(self.keys, 200, 10_000),
            value_bytes: self.value_bytes,
            skew: self.skew,
            read_share: self.read_share,
            rounds: count(self.rounds, 2, rounds),
            turn: Duration::try_from_secs_f64(turn)?,
            warmup: Duration::try_from_secs_f64(warmup)?,
            // Turns that are too short for the counters of CPU time are not judged.
            other_cpu_max: seconds(self.other_cpu, f64::INFINITY, 0.1),
            repeats: self.repeats,
            time_max: Duration::try_from_secs_f64(self.max_minutes * 60.0)?,
            entries: count(self.entries, 2_000, 500_000),
            connections: count(self.connections, 20, 1_000),
            server: self.server.as_ref().map(std::fs::canonicalize).transpose()?,
            server_threads: if self.pinned_core.is_some() { 1 } else { self.server_threads },
            server_bytes: 1 << 30,
            hot_keys_mode: self.hot_keys_mode.clone(),
            core: self.core,
            pinned_core: self.pinned_core,
            seed: self.seed,
            quick,
        };
        settings.check()?;
        Ok(settings)
    }
}

impl Settings {
    /// Returns the time limit of one workload for one round with repeated turns.
    pub fn workload_time_max(&self) -> Duration {
        let turns = self.tasks.len() * (self.repeats + 1) * 2;
        (self.turn + self.warmup + START_MAX) * u32::try_from(turns).unwrap_or(u32::MAX)
    }

    fn check(&self) -> Result<()> {
        let counts = [self.keys, self.rounds, self.entries, self.connections, self.server_threads];
        let counts = counts.iter().chain(&self.tasks);
        ensure!(counts.into_iter().all(|count| *count > 0), "counts must be at least 1");
        ensure!(
            (MARK_BYTES + 1..=1 << 20).contains(&self.value_bytes),
            "--value-bytes must be {} to 1048576",
            MARK_BYTES + 1
        );
        let stored = self.keys.saturating_mul(self.value_bytes) as u64;
        ensure!(stored <= self.server_bytes / 4, "--keys times --value-bytes is above 256 MiB");
        ensure!((0.0..=1.0).contains(&self.read_share), "--read-share must be 0 to 1");
        ensure!((0.0..=10.0).contains(&self.skew), "--skew must be 0 to 10");
        ensure!(!self.turn.is_zero(), "--seconds must be above 0");
        Ok(())
    }
}

fn given_or<T: Clone>(given: &[T], default: Vec<T>) -> Vec<T> {
    if given.is_empty() { default } else { given.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(args: &[&str]) -> Result<Settings> {
        let argv = std::iter::once("zerocache-bench").chain(args.iter().copied());
        Args::try_parse_from(argv).expect("parsed").settings()
    }

    #[test]
    fn explicit_options_override_quick() {
        let settings = settings(&["--quick", "--rounds", "7", "--tasks", "3,5"]).expect("settings");
        assert_eq!((settings.rounds, settings.keys), (7, 200));
        assert_eq!(settings.tasks, [3, 5]);
        assert_eq!(settings.workloads.len(), 7);
    }

    #[test]
    fn invalid_settings_are_refused() {
        for args in
            [["--rounds", "0"], ["--value-bytes", "4"], ["--read-share", "2"], ["--tasks", "0"]]
        {
            settings(&args).expect_err(args[0]);
        }
    }
}
