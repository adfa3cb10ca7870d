//! `doctor`: looks for known misfortunes, each with a stable id, the evidence, and what to do.

mod cluster;
mod evidence;
mod links;
mod load;
mod nodes;
mod paths;
mod placement;
mod settings;
#[cfg(test)]
mod tests;

use anstyle::Style;
use serde_json::json;
use zerocache_net::security::SecurityConfig;

pub(super) use self::evidence::hello;
use self::evidence::{Evidence, collect};
use crate::{
    args::DoctorArgs,
    context::Context,
    exit::{Exit, print_document},
    failure::Failure,
    progress::Progress,
    say, style,
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Something could not be looked at, or may be on its way.
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

    pub(super) fn note(id: &'static str, evidence: String, action: &'static str) -> Self {
        Self { id, verdict: Verdict::Note, evidence, action }
    }

    pub(super) fn warning(id: &'static str, evidence: String, action: &'static str) -> Self {
        Self { id, verdict: Verdict::Warning, evidence, action }
    }
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
    ("mdns-silent", links::mdns_silent),
    ("clusters-mixed", paths::clusters_mixed),
    ("credentials-denied", paths::credentials_denied),
    ("framed-refused", paths::framed_refused),
    ("region-empty", paths::region_empty),
    ("node-silent", cluster::node_silent),
    ("reach-asymmetric", cluster::reach_asymmetric),
    ("reach-lost", cluster::reach_lost),
    ("udp-blocked", links::udp_blocked),
    ("address-conflict", cluster::address_conflict),
    ("time-to-peer", links::time_to_peer),
    ("behind", cluster::behind),
    ("name-conflict", placement::name_conflict),
    ("replicas-differ", placement::replicas_differ),
    ("placement-incomplete", placement::incomplete),
    ("versions-mixed", settings::versions_mixed),
    ("features-mixed", settings::features_mixed),
    ("budgets-differ", settings::budgets_differ),
    ("limits-differ", settings::limits_differ),
    ("tls-mixed", settings::tls_mixed),
    ("open", settings::open),
    ("clock", nodes::clock),
    ("tls-expiry", nodes::tls_expiry),
    ("retention-short", nodes::retention_short),
    ("evicting", load::evicting),
    ("queues", load::queues),
    ("files-limit", load::files_limit),
    ("paused", load::paused),
    ("disk-fails", load::disk_fails),
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
