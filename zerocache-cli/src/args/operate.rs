//! The arguments of commands for operators.

use std::time::Duration;

use clap::ValueEnum;

const CHECK_EXAMPLES: &str = "\
Exit codes are those of monitoring systems: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. ready asks one node: \
--node, or else 127.0.0.1:6789.

Examples:
  zerocache check ready
  zerocache check cluster --seed 10.0.0.7:6789
  zerocache check cert --warning-days 30
  zerocache check memory --watch 1s";

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckKind {
    /// One node is in sync
    Ready,
    /// Every node answers, and sees every other one
    Cluster,
    /// The certificates of the nodes are valid for long enough
    Cert,
    /// The nodes have enough memory
    Memory,
}

impl CheckKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Cluster => "cluster",
            Self::Cert => "cert",
            Self::Memory => "memory",
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct CheckArgs {
    /// What is checked
    #[arg(value_name = "WHAT")]
    pub(crate) kind: CheckKind,

    /// Certificates with fewer days left are a warning [default: 14; of a secret, 1.5]
    #[arg(long, value_name = "DAYS")]
    pub(crate) warning_days: Option<f64>,

    /// Certificates with fewer days left are critical [default: 2; of a secret, 0.5]
    #[arg(long, value_name = "DAYS")]
    pub(crate) critical_days: Option<f64>,

    /// How long memory is watched for evictions and reads
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::global::parse_timeout)]
    pub(crate) watch: Duration,
}

const TOP_EXAMPLES: &str = "\
Writes are those that the node stored, replicated ones among them. With --json it prints one object for each \
interval.

Examples:
  zerocache top
  zerocache top --hot
  zerocache top --once --json";

const DOCTOR_EXAMPLES: &str = "\
Each finding has a stable id, the evidence, and what to do. Exit codes: 0 nothing found, 7 warnings only, \
6 errors. It works without admin rights as far as it can.

Examples:
  zerocache doctor
  zerocache doctor --region london --json | jq '.findings[].id'";

#[derive(Debug, clap::Args)]
#[command(after_help = TOP_EXAMPLES)]
pub(crate) struct TopArgs {
    /// Print one interval and end
    #[arg(long)]
    pub(crate) once: bool,

    /// Show the keys that are read most, too: their hashes, and their names where nodes keep them
    /// (--hot-keys plain) and the caller has the role admin
    #[arg(long)]
    pub(crate) hot: bool,

    /// How long an interval is
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = super::global::parse_timeout)]
    pub(crate) interval: Duration,
}

#[derive(Debug, clap::Args)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// How long the nodes are watched for what happens now
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = super::global::parse_timeout)]
    pub(crate) watch: Duration,
}
