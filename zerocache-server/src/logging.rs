//! Logs of the binary: where they go, in which form, and which.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Writes this process's log events to standard error from now on. Standard output is left to the
/// one line that says where the node listens.
///
/// Does nothing when the process has a subscriber already.
pub fn init(log: &LogConfig) {
    // The filter was checked when it was read; if it no longer parses, the default is better than
    // silence.
    let filter = EnvFilter::try_new(log.filter.as_str()).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // An error means that a subscriber is there.
    let _ = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
