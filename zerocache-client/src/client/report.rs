//! What a read did, node by node: for a person who asks why.

use std::{fmt, net::SocketAddr, time::Duration};

use zerocache_core::{route::Tier, version::Incarnation};
use zerocache_net::clock;

use super::{ZerocacheClient, entry::Entry};
use crate::Error;

/// What a read came to, and what it did; from [`Get::explain`](crate::Get::explain).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explained {
    /// What the read itself would have given.
    pub result: Result<Option<Entry>, Error>,
    /// How that came about.
    pub report: Report,
}

impl Explained {
    /// Of a read that asked no node, because this was near.
    pub(super) fn near(entry: Entry, total: Duration) -> Self {
        let report = Report { outcome: Outcome::Near, attempts: Vec::new(), total };
        Self { result: Ok(Some(entry)), report }
    }
}

/// What a read did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What it came to.
    pub outcome: Outcome,
    /// The nodes that it asked, in their order; none where no node was needed or known.
    pub attempts: Vec<Attempted>,
    /// How long all of it took.
    pub total: Duration,
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// A node had a fresh value.
    Hit,
    /// The value was in this process.
    Near,
    /// A node had a value past its fresh time, and the caller takes such.
    Stale,
    /// No value that may be used.
    Miss,
    /// Another caller in this process was at it, and its result was taken.
    Coalesced,
    /// No node answered, or the key was refused.
    Failed,
}

impl Outcome {
    /// The outcome's name in reports and counters.
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

/// One node that a read asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempted {
    /// The rung of the ladder on which it stands.
    pub tier: Tier,
    /// Its region; empty when it is forgotten already.
    pub region: String,
    /// Which node.
    pub node: Incarnation,
    /// Where it was asked.
    pub address: SocketAddr,
    /// How long it took.
    pub elapsed: Duration,
    /// What it said.
    pub said: Said,
}

/// A node as reports name it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReportedNode {
    /// Its region.
    pub region: String,
    /// Which node.
    pub node: Incarnation,
    /// Where it answers.
    pub address: SocketAddr,
}

impl fmt::Display for ReportedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.region, self.address, self.node)
    }
}

impl ZerocacheClient {
    /// What is known of a node; none when it is forgotten.
    pub(crate) fn reported(&self, node: Incarnation) -> Option<ReportedNode> {
        let live = self.live().ok()?;
        let directory = live.engine.directory.lock();
        let known = directory.node(node)?;
        Some(ReportedNode { region: known.info.region.clone(), node, address: known.address })
    }

    /// The node that took this client's last write of a key, if that was a moment ago.
    pub(crate) fn reported_writer(&self, key: &[u8]) -> Option<ReportedNode> {
        let live = self.live().ok()?;
        self.reported(live.engine.own_write(key, clock::mono())?.node)
    }
}

/// What a node said to a read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Said {
    /// Here is a value that may be used.
    Found,
    /// Here is a value past its fresh time; whether the caller takes it.
    Stale {
        /// Whether the caller takes stale values.
        taken: bool,
    },
    /// Here is a value, but one older than the version that the caller asks for.
    Older,
    /// Here is a value, but its metadata or packing cannot be read.
    Unreadable,
    /// There is none; whether that settles the matter.
    NotFound {
        /// Whether nobody else was to be asked.
        is_final: bool,
    },
    /// It refuses, with these words.
    Refused(String),
    /// Nothing, in time.
    NoAnswer,
    /// It could not be asked: no connection, or another node stands there now.
    NotReached,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found => f.write_str("found"),
            Self::Stale { taken: true } => f.write_str("found, stale"),
            Self::Stale { taken: false } => f.write_str("found, too stale to be used"),
            Self::Older => f.write_str("found, older than asked for"),
            Self::Unreadable => f.write_str("found, but it cannot be read"),
            Self::NotFound { is_final: true } => f.write_str("not found"),
            Self::NotFound { is_final: false } => f.write_str("not found, others may have it"),
            Self::Refused(text) => write!(f, "refused: {text}"),
            Self::NoAnswer => f.write_str("no answer"),
            Self::NotReached => f.write_str("no connection"),
        }
    }
}

impl fmt::Display for Attempted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tier, region, node, address, elapsed, said } = self;
        write!(f, "{} {region} {address} ({node}): {said}, {elapsed:.1?}", tier.as_str())
    }
}

/// One line for what it came to, and one for each node.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.1?}", self.outcome.as_str(), self.total)?;
        if self.outcome == Outcome::Failed && self.attempts.is_empty() {
            f.write_str("\n  no node is known")?;
        }
        self.attempts.iter().try_for_each(|attempt| write!(f, "\n  {attempt}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_as_text() {
        let attempt = |tier, region: &str, last, said| Attempted {
            tier,
            region: region.to_owned(),
            node: Incarnation(0xab),
            address: SocketAddr::from(([127, 0, 0, last], 6789)),
            elapsed: Duration::from_micros(1_250),
            said,
        };
        let report = Report {
            outcome: Outcome::Hit,
            attempts: vec![
                attempt(Tier::Local, "oslo", 1, Said::NoAnswer),
                attempt(Tier::Nearest, "rome", 2, Said::Found),
            ],
            total: Duration::from_millis(12),
        };
        let text = "hit, 12.0ms\n  \
                    local oslo 127.0.0.1:6789 (00000000000000ab): no answer, 1.2ms\n  \
                    nearest-region rome 127.0.0.2:6789 (00000000000000ab): found, 1.2ms";
        assert_eq!(report.to_string().replace("1.3ms", "1.2ms"), text);
        let alone = Report { outcome: Outcome::Failed, attempts: Vec::new(), ..report };
        assert_eq!(alone.to_string(), "failed, 12.0ms\n  no node is known");
    }
}
