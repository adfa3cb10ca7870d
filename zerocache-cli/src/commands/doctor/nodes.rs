//! Checks of each node for itself.

use super::{Evidence, Finding, Verdict};
use crate::survey::NodeView;

/// A clock that is wrong by more than this is a warning, and by more than that an error, in milliseconds.
const CLOCK_WARNING_MS: f64 = 1_000.0;
const CLOCK_ERROR_MS: f64 = 30_000.0;

/// Deletes should be remembered for longer than this, in milliseconds.
const RETENTION_MS_MIN: f64 = 60_000.0;

pub(super) fn each(
    evidence: &Evidence,
    check: impl Fn(&NodeView) -> Option<Finding>,
) -> Vec<Finding> {
    evidence.survey.nodes.iter().filter_map(check).collect()
}

/// The clock of the others: the median of how far each is ahead of this host, whose clock is one more where their
/// number is even. None with fewer than two nodes.
fn median_clock(evidence: &Evidence) -> Option<f64> {
    let ahead = evidence.survey.nodes.iter().filter_map(|node| Some(node.clock_ms?.0));
    let mut ahead: Vec<_> = ahead.collect();
    if ahead.len() < 2 {
        return None;
    }
    if ahead.len().is_multiple_of(2) {
        ahead.push(0.0);
    }
    ahead.sort_by(f64::total_cmp);
    Some(ahead[ahead.len() / 2])
}

/// A node whose clock differs from those of the others.
pub(super) fn clock(evidence: &Evidence) -> Vec<Finding> {
    let median = median_clock(evidence);
    each(evidence, |node| {
        let corrected_ms = node.stat("clock_offset_ms").unwrap_or_default();
        let measured = node.clock_ms.zip(median).map(|((ahead_ms, range_ms), median)| {
            let ahead_ms = ahead_ms - median;
            // What is certain of it.
            (ahead_ms, (ahead_ms.abs() - range_ms).max(0.0))
        });
        let certain_ms = measured.map_or(0.0, |(_, certain_ms)| certain_ms);
        let verdict = match certain_ms.max(corrected_ms.abs()) {
            ms if ms > CLOCK_ERROR_MS => Verdict::Error,
            ms if ms > CLOCK_WARNING_MS => Verdict::Warning,
            _ => return None,
        };
        let mut parts = Vec::new();
        if let Some((ahead_ms, _)) = measured.filter(|_| certain_ms > CLOCK_WARNING_MS) {
            let direction = if ahead_ms > 0.0 { "ahead of" } else { "behind" };
            parts.push(format!("is {:.1} s {direction} the others", ahead_ms.abs() / 1_000.0));
        }
        if corrected_ms.abs() > CLOCK_WARNING_MS {
            parts.push(format!("is corrected by the node by {:.1} s", corrected_ms / 1_000.0));
        }
        let text = format!("the clock of {} {}", node.label(), parts.join(" and "));
        let action = "Synchronise the clock of that host (NTP), and restart the node: it counts on from the clock at its start.";
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
