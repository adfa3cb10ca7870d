//! Checks of what happens to each node while it is watched.

use serde_json::Value as Json;

use super::{Evidence, Finding, nodes::each};

/// A queue of fewer records and bytes is one of a busy moment.
const QUEUE_RECORDS_MIN: f64 = 1_000.0;
const QUEUE_BYTES_MIN: f64 = 1_048_576.0;

/// A queue that has kept this part of its length is not sent.
const QUEUE_KEPT_MIN: f64 = 0.75;

/// The part of the permitted connections from which on they are nearly all taken.
const CONNECTIONS_TAKEN_MIN: f64 = 0.9;

/// A node that evicts now.
pub(super) fn evicting(evidence: &Evidence) -> Vec<Finding> {
    each(evidence, |node| {
        let evicted = node.growth(&evidence.before, "evicted").filter(|evicted| *evicted > 0.0)?;
        let text = format!("{} evicted {evicted:.0} entries while it was watched", node.label());
        let action = "Give the nodes more memory (--max-bytes), or entries shorter lifetimes, if the hit ratio is too low.";
        Some(Finding::warning("evicting", text, action))
    })
}

/// A node whose queue of records for others does not become shorter.
pub(super) fn queues(evidence: &Evidence) -> Vec<Finding> {
    each(evidence, |node| {
        let before = evidence.before.node(node.id())?;
        let stays = |name: &str, least: f64| {
            let (before, now) = (before.stat(name)?, node.stat(name)?);
            Some(before >= least && now >= least && now >= before * QUEUE_KEPT_MIN)
        };
        let is_long = stays("replication_queue_records", QUEUE_RECORDS_MIN)?
            || stays("replication_queue_bytes", QUEUE_BYTES_MIN)?;
        let records = node.stat("replication_queue_records")?;
        let mib = node.stat("replication_queue_bytes")? / QUEUE_BYTES_MIN;
        let text =
            format!("{records:.0} records ({mib:.1} MiB) wait at {} to be sent", node.label());
        let action = "Look at the network to the other nodes and at their CPU: one takes writes more slowly than they come, and gets the rest by repair.";
        is_long.then(|| Finding::warning("queues", text, action))
    })
}

/// A node that refuses connections, or is about to.
pub(super) fn files_limit(evidence: &Evidence) -> Vec<Finding> {
    each(evidence, |node| {
        let limit = |name: &str| evidence.setting(node, name).and_then(Json::as_f64);
        let (wanted, most) = (limit("max_connections"), limit("connections_max"));
        let grown = |name: &str| node.growth(&evidence.before, name).unwrap_or_default();
        let refused = grown("connections_refused") + grown("accept_errors");
        let open = node.stat("connections_open").unwrap_or_default();
        let is_nearly_full = most.is_some_and(|most| open >= most * CONNECTIONS_TAKEN_MIN);
        if refused <= 0.0 && !is_nearly_full {
            return None;
        }
        let most_text = most.map(|most| format!(" of {most:.0}")).unwrap_or_default();
        let is_lowered = wanted.zip(most).is_some_and(|(wanted, most)| most < wanted);
        let lowered = if is_lowered { ", which the limit of open files permits" } else { "" };
        let refused = match refused {
            refused if refused > 0.0 => format!(", and {refused:.0} were refused meanwhile"),
            _ => String::new(),
        };
        let label = node.label();
        let text = format!("{label} has {open:.0}{most_text} connections{lowered}{refused}");
        let action = "Raise the limit of open files (ulimit -Hn, LimitNOFILE) and --max-connections, or find who opens so many connections.";
        Some(Finding::warning("files-limit", text, action))
    })
}

/// A node with a disk that it does not write to, or that fails.
pub(super) fn disk_fails(evidence: &Evidence) -> Vec<Finding> {
    each(evidence, |node| {
        let has_disk = node.stat("disk_bytes_max").is_some_and(|most| most > 0.0);
        let is_writable = node.stat("disk_writable").is_none_or(|writable| writable > 0.0);
        let errors = node.growth(&evidence.before, "disk_errors").unwrap_or_default();
        let what = match (has_disk, is_writable) {
            (false, _) => return None,
            (true, false) => "writes nothing to its disk".to_owned(),
            (true, true) if errors > 0.0 => {
                format!("could not read or write its disk {errors:.0} times while it was watched")
            }
            (true, true) => return None,
        };
        let text = format!("{} {what}", node.label());
        let action = "Look at its log (\"disk: cannot\") and at the space on the file system. The node serves what memory holds meanwhile.";
        Some(Finding::warning("disk-fails", text, action))
    })
}

/// A node that was suspended while it was watched.
pub(super) fn paused(evidence: &Evidence) -> Vec<Finding> {
    each(evidence, |node| {
        let times = node.growth(&evidence.before, "suspensions").filter(|times| *times > 0.0)?;
        let text = format!("{} was suspended for more than 2 s, {times:.0} times", node.label());
        let action = "Give the host more CPU, or find what stops the process: a container that is throttled, a machine that sleeps, a debugger.";
        Some(Finding::warning("paused", text, action))
    })
}
