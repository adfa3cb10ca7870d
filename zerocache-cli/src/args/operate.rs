//! The arguments of commands for operators.

use clap::ValueEnum;

const CHECK_EXAMPLES: &str = "\
Exit codes are those of monitoring systems: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. ready asks one node:
--node, or else 127.0.0.1:6789.

Examples:
  zerocache check ready
  zerocache check cluster --seed 10.0.0.7:6789
  zerocache check cert --warning-days 30";

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

    /// Certificates with fewer days left are a warning
    #[arg(long, value_name = "DAYS", default_value = "14")]
    pub(crate) warning_days: f64,

    /// Certificates with fewer days left are critical
    #[arg(long, value_name = "DAYS", default_value = "2")]
    pub(crate) critical_days: f64,
}
