//! The small typed values of the configuration and how they are written.

use std::fmt;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// Which ways of finding nodes are in use.
///
/// `dns` and `seeds` do something only when names or seeds are configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoverySet {
    /// Announce and browse by multicast DNS on the local network.
    pub mdns: bool,
    /// Resolve the configured DNS names.
    pub dns: bool,
    /// Dial the configured seeds.
    pub seeds: bool,
}

impl DiscoverySet {
    /// Every way.
    pub const ALL: Self = Self { mdns: true, dns: true, seeds: true };
    /// No way: the node is found only by those that are told its address.
    pub const NONE: Self = Self { mdns: false, dns: false, seeds: false };

    /// Adds one way by its name; `none` adds nothing.
    pub(super) fn add(&mut self, name: &str) -> Result<(), String> {
        match name {
            "mdns" => self.mdns = true,
            "dns" => self.dns = true,
            "seeds" => self.seeds = true,
            "none" => {}
            _ => {
                return Err(format!(
                    "\"{name}\" is not a way of discovery; use mdns, dns, seeds, or none"
                ));
            }
        }
        Ok(())
    }
}

/// A foreign wire that the node serves as well.
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

/// How log lines are written.
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

/// Which log events are written, in the syntax of `tracing` filters: `info`,
/// `warn,zerocache_net=debug`. Checked when it is read.
#[derive(Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter as it was written.
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

/// What the binary logs and how. An embedded node logs through the `tracing` subscriber of its
/// program instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// How lines are written.
    pub format: LogFormat,
    /// Which events are written. Default: `info`.
    pub filter: LogFilter,
}

/// Checks a cluster, region or zone name: 1 to 64 ASCII letters, digits, `-`, `_` and `.`, beginning
/// with a letter or digit. Such a name needs no escaping in a URL, a DNS record or a log line.
pub(super) fn check_name(text: &str) -> Result<(), String> {
    let first_ok = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let all_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if text.len() <= NAME_BYTES_MAX && first_ok && all_ok {
        return Ok(());
    }
    Err(format!(
        "\"{text}\" is not a name; use 1 to {NAME_BYTES_MAX} letters, digits, \"-\", \"_\" or \
         \".\", beginning with a letter or digit"
    ))
}

/// The longest cluster, region or zone name; leaves room for its key in a DNS TXT string.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["london", "eu-west-1", "a", "x.y_z", "9"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", ".", "..", "-a", "a b", "a/b", "zürich", long.as_str(), "a\n"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters() {
        assert!("info".parse::<LogFilter>().is_ok());
        assert!("warn,zerocache_net=debug".parse::<LogFilter>().is_ok());
        assert!("info,=,=".parse::<LogFilter>().is_err());
    }
}
