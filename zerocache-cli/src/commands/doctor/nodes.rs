//! Checks of each node for itself.

use super::{Evidence, Finding, Verdict};
use crate::survey::NodeView;

/// A clock that is wrong by more than this is a warning, and by more than that an error, in milliseconds.
const CLOCK_WARNING_MS: f64 = 1_000.0;
const CLOCK_ERROR_MS: f64 = 30_000.0;

/// Deletes should be remembered for longer than this, in milliseconds.
const RETENTION_MS_MIN: f64 = 60_000.0;

fn each(evidence: &Evidence, check: impl Fn(&NodeView) -> Option<Finding>) -> Vec<Finding> {
    evidence.survey.nodes.iter().filter_map(check).collect()
}

/// A node whose clock differs from those of the others.
pub(super) fn clock(evidence: &Evidence) -> Vec<Finding> {
    each(evidence, |node| {
        let offset_ms = node.stat("clock_offset_ms")?;
        let verdict = match offset_ms.abs() {
            ms if ms > CLOCK_ERROR_MS => Verdict::Error,
            ms if ms > CLOCK_WARNING_MS => Verdict::Warning,
            _ => return None,
        };
        let text = format!("{} corrects its clock by {:.1} s", node.label(), offset_ms / 1_000.0);
        let action = "Synchronise the clock of that host (NTP).";
        Some(Finding { id: "clock", verdict, evidence: text, action })
    })
}

/// A certificate that ends soon.
pub(super) fn tls_expiry(evidence: &Evidence) -> Vec<Finding> {
    let (warning, error) = evidence.days;
    each(evidence, |node| {
        let days = node.certificate_days()?;
        let verdict = match days {
            days if days < error => Verdict::Error,
            days if days < warning => Verdict::Warning,
            _ => return None,
        };
        let text = format!("the certificate of {} has {days:.1} days left", node.label());
        let action = "Issue a new certificate; the node reads its files again when they change.";
        Some(Finding { id: "tls-expiry", verdict, evidence: text, action })
    })
}

/// A node that evicts now.
pub(super) fn evicting(evidence: &Evidence) -> Vec<Finding> {
    each(evidence, |node| {
        let evicted = node.growth(&evidence.before, "evicted").filter(|evicted| *evicted > 0.0)?;
        let text = format!("{} evicted {evicted:.0} entries while it was watched", node.label());
        let action = "Give the nodes more memory (--max-bytes), or entries shorter lifetimes, if the hit ratio is too low.";
        Some(Finding::warning("evicting", text, action))
    })
}

/// A node that forgets deletes early.
pub(super) fn retention_short(evidence: &Evidence) -> Vec<Finding> {
    each(evidence, |node| {
        let retention_ms = node.stat("tombstone_retention_ms")?;
        let text =
            format!("{} remembers deletes for {:.0} s only", node.label(), retention_ms / 1_000.0);
        let action = "Give the nodes more memory (--max-bytes): tombstones fill their part of it.";
        (retention_ms < RETENTION_MS_MIN).then(|| Finding::warning("retention-short", text, action))
    })
}

/// What could not be looked at.
pub(super) fn not_looked_at(evidence: &Evidence) -> Vec<Finding> {
    let mut denied = each(evidence, |node| {
        let why = node.stats.as_ref().err()?;
        Some(Finding {
            id: "not-looked-at",
            verdict: Verdict::Note,
            evidence: format!("no statistics of a node: {why}"),
            action: "Present a token of the role monitor or admin.",
        })
    });
    denied.truncate(1);
    denied
}
