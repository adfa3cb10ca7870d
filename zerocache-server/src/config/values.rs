//! Small typed values of the configuration, and their textual form.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// A foreign protocol that the node also serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// The HTTP paths and the mDNS type of the Python package `zerocache`.
    ZerocachePy,
}

impl FromStr for Compat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "zerocache-py" => Ok(Self::ZerocachePy),
            _ => Err(format!("\"{text}\" is not known; use zerocache-py")),
        }
    }
}

/// Whether a node has a page for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageMode {
    /// It has one.
    #[default]
    On,
    /// It has none.
    Off,
}

impl FromStr for PageMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(format!("\"{text}\" is not known; use on or off")),
        }
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("\"{text}\" is not a log format; use text or json")),
        }
    }
}

/// A filter of log events in the syntax of `tracing`, such as `info` or `warn,zerocache_net=debug`.
/// Validated when it is parsed.
#[derive(Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// Returns the filter as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(format!(
                "\"{text}\" is not a log filter; use a level (error, warn, info, debug, trace, off) \
                 or pairs like zerocache_server=debug"
            )),
        }
    }
}

/// Log settings of the binary. An embedded node logs through the `tracing` subscriber of its program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// The format of lines.
    pub format: LogFormat,
    /// The filter of events. Default: `info`.
    pub filter: LogFilter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_filters_are_refused() {
        assert!("info".parse::<LogFilter>().is_ok());
        assert!("warn,zerocache_net=debug".parse::<LogFilter>().is_ok());
        assert!("info,=,=".parse::<LogFilter>().is_err());
    }
}
