//! Small typed values of the configuration, and their textual form.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// Returns the value whose name is `text`.
pub(super) fn choose<T, const N: usize>(text: &str, choices: [(&str, T); N]) -> Result<T, String> {
    let names = choices.each_ref().map(|(name, _)| *name);
    let chosen = choices.into_iter().find(|(name, _)| *name == text);
    let unknown = || format!("\"{text}\" is not known; use {}", names.join(" or "));
    chosen.map(|(_, value)| value).ok_or_else(unknown)
}

/// A foreign protocol that the node also serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// The HTTP paths and the mDNS type of the Python package `zerocache`.
    ZerocachePy,
}

impl Compat {
    /// The name of the protocol in configuration and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ZerocachePy => "zerocache-py",
        }
    }
}

impl FromStr for Compat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        choose(text, [("zerocache-py", Self::ZerocachePy)])
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
        choose(text, [("on", Self::On), ("off", Self::Off)])
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
        choose(text, [("text", Self::Text), ("json", Self::Json)])
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
        let directives = text.split(',').map(str::trim).filter(|directive| !directive.is_empty());
        if let Some(level) = directives.filter_map(written_level).find(|level| !is_level(level)) {
            return Err(format!(
                "\"{level}\" is not a log level; use error, warn, info, debug, trace, off, or pairs \
                 like zerocache_server=debug"
            ));
        }
        match EnvFilter::try_new(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(format!(
                "\"{text}\" is not a log filter; use a level (error, warn, info, debug, trace, off) \
                 or pairs like zerocache_server=debug"
            )),
        }
    }
}

/// Returns what stands in a directive as its level, if one stands there: `debug` of `zerocache_net=debug`.
///
/// A word alone is a level. The parser of filters takes any other word for a target, whose events it then
/// shows alone: a mistyped level would turn the log off.
fn written_level(directive: &str) -> Option<&str> {
    // Equals signs between brackets are conditions on fields.
    let after_fields = directive.rsplit(']').next().unwrap_or(directive);
    match after_fields.rsplit_once('=') {
        Some((_, level)) => Some(level),
        None => (after_fields.len() == directive.len()).then_some(directive),
    }
}

fn is_level(text: &str) -> bool {
    !text.is_empty() && text.parse::<LevelFilter>().is_ok()
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
        assert!("zerocache_net[{peer=a}]=debug,OFF".parse::<LogFilter>().is_ok());
    }

    #[test]
    fn unknown_name_is_answered_with_those_that_are_known() {
        assert_eq!("off".parse(), Ok(PageMode::Off));
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        let error = "no".parse::<PageMode>().expect_err("unknown");
        assert_eq!(error, "\"no\" is not known; use on or off");
    }

    #[test]
    fn mistyped_level_is_named() {
        for (text, named) in [
            ("trase", "trase"),
            ("warn,zerocache_net=debg", "debg"),
            ("zerocache_net", "zerocache_net"),
            ("warn, infos", "infos"),
            ("zerocache_net[{peer=a}]=debg", "debg"),
        ] {
            let error = text.parse::<LogFilter>().expect_err(text);
            assert!(error.starts_with(&format!("\"{named}\" is not a log level; use ")), "{error}");
        }
    }
}
