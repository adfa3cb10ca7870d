//! Report of a read, node by node.

use std::{fmt, net::SocketAddr, time::Duration};

use zerocache_core::{route::Tier, version::Incarnation};

use super::{ZerocacheClient, entry::Entry};
use crate::Error;

/// The result of a read with its report; from [`Get::explain`](crate::ops::Get::explain).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExplainedGet {
    /// The result of the read.
    pub result: Result<Option<Entry>, Error>,
    /// The report of the read.
    pub report: ReadReport,
    /// The highest stamp of a version of the key that nodes named; 0 if none.
    pub(crate) known: u64,
    /// Whether no node could tell that there is no value.
    pub(crate) is_doubtful: bool,
}

impl ExplainedGet {
    /// Returns the report of a read that the near cache answered.
    pub(super) fn near(entry: Entry, total: Duration) -> Self {
        let report = ReadReport { outcome: ReadOutcome::Near, attempts: Vec::new(), total };
        Self { known: entry.version.stamp(), result: Ok(Some(entry)), report, is_doubtful: false }
    }
}

/// The report of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadReport {
    /// The outcome.
    pub outcome: ReadOutcome,
    /// The nodes that were asked, in order; empty if no node was needed or known.
    pub attempts: Vec<ReadAttempt>,
    /// The duration of the read.
    pub total: Duration,
}

/// The outcome of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadOutcome {
    /// A node had a fresh value.
    Hit,
    /// The near cache had the value.
    Near,
    /// A node had a value past its fresh time, and the caller accepts stale values.
    Stale,
    /// No node had a usable value.
    Miss,
    /// Another caller in this process was reading the key, and its result was used.
    Coalesced,
    /// No node answered, or the key was refused.
    Failed,
}

impl ReadOutcome {
    /// Returns the outcome's name in reports and counters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Near => "near",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Failed => "failed",
        }
    }
}

/// A node that a read asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadAttempt {
    /// The tier of the node.
    pub tier: Tier,
    /// The region of the node; empty if the client does not know the node any more.
    pub region: String,
    /// The incarnation of the node.
    pub node: Incarnation,
    /// The address at which it was asked.
    pub address: SocketAddr,
    /// The time until the outcome.
    pub elapsed: Duration,
    /// The outcome at this node.
    pub outcome: AttemptOutcome,
}

/// A node in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReportedNode {
    /// The region of the node.
    pub region: String,
    /// The incarnation of the node.
    pub node: Incarnation,
    /// The address of the node.
    pub address: SocketAddr,
}

impl fmt::Display for ReportedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.region, self.address, self.node)
    }
}

impl ZerocacheClient {
    /// Returns the description of a node, if the client knows the node.
    pub(crate) fn reported(&self, node: Incarnation) -> Option<ReportedNode> {
        let live = self.live().ok()?;
        let directory = live.engine.directory();
        let known = directory.node(node)?;
        Some(ReportedNode { region: known.info.region.clone(), node, address: known.address })
    }

    /// Returns the node that accepted this client's last write of `key`, if that was within the last two seconds.
    pub(crate) fn reported_writer(&self, key: &[u8]) -> Option<ReportedNode> {
        let live = self.live().ok()?;
        self.reported(live.engine.own_write_node(key)?)
    }
}

/// The outcome of a read at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttemptOutcome {
    /// The node had a usable value.
    Found,
    /// The node had a value past its fresh time.
    Stale {
        /// True if the caller accepts stale values.
        accepted: bool,
    },
    /// The node had a value older than the version that the caller requires.
    OlderVersion,
    /// The node had a value whose metadata or compression cannot be read.
    Unreadable,
    /// The node had no value.
    NotFound {
        /// True if the miss is authoritative, so that no other node is asked.
        is_authoritative: bool,
    },
    /// The node refused the request, with this message.
    Refused(String),
    /// The node did not answer in time.
    NoAnswer,
    /// The request could not be sent: no connection, or the address belongs to another node now.
    Unreachable,
}

impl fmt::Display for AttemptOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found => f.write_str("found"),
            Self::Stale { accepted: true } => f.write_str("found, stale"),
            Self::Stale { accepted: false } => f.write_str("found, too stale to be used"),
            Self::OlderVersion => f.write_str("found, older than asked for"),
            Self::Unreadable => f.write_str("found, but it cannot be read"),
            Self::NotFound { is_authoritative: true } => f.write_str("not found"),
            Self::NotFound { is_authoritative: false } => {
                f.write_str("not found, others may have it")
            }
            Self::Refused(text) => write!(f, "refused: {text}"),
            Self::NoAnswer => f.write_str("no answer"),
            Self::Unreachable => f.write_str("no connection"),
        }
    }
}

impl fmt::Display for ReadAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tier, region, node, address, elapsed, outcome } = self;
        write!(f, "{} {region} {address} ({node}): {outcome}, {elapsed:.1?}", tier.as_str())
    }
}

/// One line for the outcome, and one for each node.
impl fmt::Display for ReadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.1?}", self.outcome.as_str(), self.total)?;
        if self.outcome == ReadOutcome::Failed && self.attempts.is_empty() {
            f.write_str("\n  no node is known")?;
        }
        self.attempts.iter().try_for_each(|attempt| write!(f, "\n  {attempt}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_is_displayed_node_by_node() {
        let attempt = |tier, region: &str, last, outcome| ReadAttempt {
            tier,
            region: region.to_owned(),
            node: Incarnation(0xab),
            address: SocketAddr::from(([127, 0, 0, last], 6789)),
            elapsed: Duration::from_micros(1_250),
            outcome,
        };
        let report = ReadReport {
            outcome: ReadOutcome::Hit,
            attempts: vec![
                attempt(Tier::Local, "oslo", 1, AttemptOutcome::NoAnswer),
                attempt(Tier::Nearest, "rome", 2, AttemptOutcome::Found),
            ],
            total: Duration::from_millis(12),
        };
        let text = "hit, 12.0ms\n  \
                    local oslo 127.0.0.1:6789 (00000000000000ab): no answer, 1.2ms\n  \
                    nearest-region rome 127.0.0.2:6789 (00000000000000ab): found, 1.2ms";
        assert_eq!(report.to_string().replace("1.3ms", "1.2ms"), text);
        let alone = ReadReport { outcome: ReadOutcome::Failed, attempts: Vec::new(), ..report };
        assert_eq!(alone.to_string(), "failed, 12.0ms\n  no node is known");
    }
}
