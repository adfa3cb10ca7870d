//! Logging of the binary.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Writes the log events of this process to standard error. Standard output is reserved for the line with
/// the listen address.
///
/// Does nothing when the process already has a subscriber.
pub fn init(log: &LogConfig) {
    // The filter was validated when it was parsed; the default is better than silence.
    let filter = EnvFilter::try_new(log.filter.as_str()).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // An error means that the process has a subscriber.
    let _ = match log.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
