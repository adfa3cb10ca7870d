//! `doctor`: looks for known misfortunes, each with a stable id, the evidence, and what to do.

mod cluster;
mod nodes;
mod paths;
#[cfg(test)]
mod tests;

use std::time::Duration;

use anstyle::Style;
use serde_json::json;
use zerocache_core::wire::{Envelope, Hello, Request, RequestMessage, cluster_id};
use zerocache_net::{clock, security::SecurityConfig, transport::refuses_frames};

use crate::{
    args::DoctorArgs,
    context::Context,
    exit::{Exit, print_document},
    failure::Failure,
    progress::Progress,
    say, style,
    survey::{self, Questions, Survey},
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Something could not be looked at.
    Note,
    Warning,
    Error,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    const fn style(self) -> Style {
        match self {
            Self::Note => Style::new(),
            Self::Warning => style::ODD,
            Self::Error => style::BAD,
        }
    }

    const fn exit(self) -> Exit {
        match self {
            Self::Note => Exit::DONE,
            Self::Warning => Exit::WARNINGS,
            Self::Error => Exit::BAD_NEWS,
        }
    }
}

/// A misfortune that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) id: &'static str,
    pub(super) verdict: Verdict,
    pub(super) evidence: String,
    pub(super) action: &'static str,
}

impl Finding {
    pub(super) fn error(id: &'static str, evidence: String, action: &'static str) -> Self {
        Self { id, verdict: Verdict::Error, evidence, action }
    }

    pub(super) fn warning(id: &'static str, evidence: String, action: &'static str) -> Self {
        Self { id, verdict: Verdict::Warning, evidence, action }
    }
}

/// What the checks look at.
pub(super) struct Evidence {
    /// All nodes, at the end of the time in which they are watched.
    pub(super) survey: Survey,
    /// The same nodes at its beginning.
    pub(super) before: Survey,
    /// The nodes that are reached over HTTP only.
    pub(super) http_only: Vec<String>,
    /// The region in which the client stands, if it was stated.
    pub(super) region: Option<String>,
    /// How many days a certificate has left where it is a warning, and where an error.
    pub(super) days: (f64, f64),
}

/// The days that a certificate has left where it is a warning, and where an error. Those that nodes make for
/// themselves of a secret are renewed when they have two left.
pub(crate) fn certificate_days(security: &SecurityConfig) -> (f64, f64) {
    if security.files.is_some() { (14.0, 2.0) } else { (1.5, 0.5) }
}

/// A check: its id, and what it finds.
type Check = (&'static str, fn(&Evidence) -> Vec<Finding>);

/// All checks.
const CHECKS: &[Check] = &[
    ("dns-virtual-ip", paths::dns_virtual_ip),
    ("dns-partial", paths::dns_partial),
    ("name-silent", paths::name_silent),
    ("node-source-silent", paths::node_source_silent),
    ("clusters-mixed", paths::clusters_mixed),
    ("credentials-denied", paths::credentials_denied),
    ("framed-refused", paths::framed_refused),
    ("region-empty", paths::region_empty),
    ("node-silent", cluster::node_silent),
    ("reach-asymmetric", cluster::reach_asymmetric),
    ("reach-lost", cluster::reach_lost),
    ("address-conflict", cluster::address_conflict),
    ("time-to-peer", cluster::time_to_peer),
    ("behind", cluster::behind),
    ("versions-mixed", cluster::versions_mixed),
    ("budgets-differ", cluster::budgets_differ),
    ("tls-mixed", cluster::tls_mixed),
    ("clock", nodes::clock),
    ("tls-expiry", nodes::tls_expiry),
    ("evicting", nodes::evicting),
    ("retention-short", nodes::retention_short),
    ("not-looked-at", nodes::not_looked_at),
];

/// Makes all checks.
pub(crate) fn doctor(context: &Context, args: &DoctorArgs) -> Result<Exit, Failure> {
    let progress = Progress::endless(context, "watching the nodes");
    let evidence = context.runtime.block_on(collect(context, args.watch))?;
    drop(progress);
    let findings: Vec<_> = CHECKS.iter().flat_map(|(_, check)| check(&evidence)).collect();
    let worst = findings.iter().map(|finding| finding.verdict).max();
    let exit = worst.map_or(Exit::DONE, Verdict::exit);
    if context.global.json {
        let of = |finding: &Finding| {
            json!({
                "id": finding.id,
                "verdict": finding.verdict.as_str(),
                "evidence": finding.evidence,
                "action": finding.action,
            })
        };
        let found: Vec<_> = findings.iter().map(of).collect();
        let is_ok = |id: &&str| findings.iter().all(|finding| finding.id != *id);
        let ok: Vec<_> = CHECKS.iter().map(|(id, _)| *id).filter(is_ok).collect();
        let nodes = evidence.survey.nodes.len();
        return print_document(json!({ "nodes": nodes, "findings": found, "ok": ok }), exit);
    }
    let line = |finding: &Finding| {
        let Finding { id, verdict, evidence, action } = finding;
        let padded = format!("{:<8}", verdict.as_str());
        let verdict = style::styled(verdict.style(), &padded);
        format!("{verdict} {id}: {evidence}\n         {action}\n")
    };
    style::print(&findings.iter().map(line).collect::<String>())?;
    if !context.global.quiet {
        let (checks, nodes) = (CHECKS.len(), evidence.survey.nodes.len());
        let (checks, nodes) = (counted(checks, "check"), counted(nodes, "node"));
        say(&format!("{checks} at {nodes}, {}", counted(findings.len(), "finding")));
    }
    Ok(exit)
}

/// A number of things in words.
fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// Asks all nodes twice, and dials each.
async fn collect(context: &Context, watch: Duration) -> Result<Evidence, Failure> {
    let (before, survey) = survey::twice(context, watch).await?;
    let mut dials = Questions::new();
    for node in &survey.nodes {
        let (hello, label, address) = (hello(context.cluster()), node.label(), node.address);
        let (timeout, security) = (context.global.timeout, context.security.clone());
        dials.ask(async move {
            // A node that does not answer any more is found by another check.
            let refused = refuses_frames(address, hello, timeout, &security).await;
            refused.is_ok_and(|refused| refused).then_some(label)
        });
    }
    let mut http_only = Vec::new();
    while let Some(label) = dials.next().await {
        http_only.extend(label);
    }
    http_only.sort_unstable();
    let region = context.global.variable("ZEROCACHE_REGION");
    let days = certificate_days(&context.credentials);
    Ok(Evidence { survey, before, http_only, region, days })
}

/// The introduction of a client.
pub(super) fn hello(cluster: &str) -> RequestMessage {
    let hello = Hello::of_client(cluster, "tool", clock::now().wall_ms);
    let envelope = Envelope { cluster: cluster_id(cluster), ..Envelope::default() };
    RequestMessage { envelope, request: Request::Hello(Box::new(hello)) }
}
