//! Logging of the binary.

mod json;

use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
};

use tracing_subscriber::EnvFilter;
use zerocache_core::version::Incarnation;

use self::json::JsonLines;
use crate::config::{LogConfig, LogFormat};

/// The version of this software, as `/v1/cluster`, `/metrics` and log lines show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The node whose events the process logs.
static NODE: OnceLock<String> = OnceLock::new();

/// Writes the log events of this process, which runs one node in `region`, to standard error. Standard output
/// is reserved for the line with the listen address.
///
/// Does nothing when the process already has a subscriber.
pub fn init(log: &LogConfig, region: &str) {
    // The filter was validated when it was parsed; the default is better than silence.
    let filter = EnvFilter::try_new(log.filter.as_str()).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // An error means that the process has a subscriber.
    let _ = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => {
            lines.with_ansi(false).event_format(JsonLines::new(region, &NODE)).try_init()
        }
    };
}

/// Names the node in all JSON log lines from now on. The first call counts.
pub(crate) fn identify(node: Incarnation) {
    let _first_wins = NODE.set(node.to_string());
}
