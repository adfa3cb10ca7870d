//! The targets, and whether they are reached.

use std::fmt::Write as _;

use crate::contenders::Kind;
use crate::report::spread;
use crate::row::Row;
use crate::summary::{Figure, Group, Spread};
use crate::workloads::Workload;

/// A bound on a median.
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Our figure is above the rival's by at most this.
    MoreByAtMost(f64),
}

struct Target {
    what: &'static str,
    workload: Workload,
    tasks: usize,
    /// The contender that is judged.
    ours: Kind,
    /// The contender whose figure divides ours; none for our figure itself.
    rival: Option<Kind>,
    figure: Figure,
    goal: Goal,
}

const OPS: Figure = |row: &Row| row.ops_per_s;
const P50: Figure = |row: &Row| row.p50_us;
const BYTES: Figure = |row: &Row| row.bytes_each;
const CPU: Figure = Row::cpu_us;

/// The targets.
fn targets() -> Vec<Target> {
    use Goal::{AtLeast, AtMost, MoreByAtMost};
    use Kind::{Memcached, RawTcp, Redis, Zerocache, ZerocacheTls};
    use Workload::{Get, Http, Idle, Memory, PutLocal, PutRegion, Single};
    let target = |what, workload: Workload, tasks, rival, figure, goal| {
        let ours = workload.ours();
        Target { what, workload, tasks, ours, rival, figure, goal }
    };
    let encrypted = |what, workload, tasks, figure, goal| {
        let (ours, rival) = (ZerocacheTls, Some(Zerocache));
        Target { what, workload, tasks, ours, rival, figure, goal }
    };
    vec![
        target("GET, 16 tasks, ops / redis crate", Get, 16, Some(Redis), OPS, AtLeast(1.0)),
        target("GET, 64 tasks, ops / redis crate", Get, 64, Some(Redis), OPS, AtLeast(1.8)),
        target("GET, 256 tasks, ops / redis crate", Get, 256, Some(Redis), OPS, AtLeast(2.2)),
        target(
            "GET, one task on one core, p50 / raw TCP",
            Single,
            1,
            Some(RawTcp),
            P50,
            AtMost(1.5),
        ),
        target(
            "GET over HTTP, 64 tasks, ops / memcached",
            Http,
            64,
            Some(Memcached),
            OPS,
            AtLeast(0.65),
        ),
        target(
            "PUT held by three, 64 tasks, ops / Redis WAIT 2",
            PutRegion,
            64,
            Some(Redis),
            OPS,
            AtLeast(1.3),
        ),
        target(
            "PUT held by one, 64 tasks, ops / Redis async",
            PutLocal,
            64,
            Some(Redis),
            OPS,
            AtLeast(1.2),
        ),
        target("memory per entry / memcached", Memory, 64, Some(Memcached), BYTES, AtMost(1.4)),
        target("idle connection, bytes", Idle, 1, None, BYTES, AtMost(16_384.0)),
        encrypted("GET, 64 tasks, CPU, TLS / plain", Get, 64, CPU, AtMost(1.45)),
        encrypted("GET, 64 tasks, ops, TLS / plain", Get, 64, OPS, AtLeast(0.65)),
        encrypted("GET, one task on one core, p50, TLS / plain", Single, 1, P50, AtMost(1.25)),
        encrypted("PUT held by three, ops, TLS / plain", PutRegion, 64, OPS, AtLeast(0.6)),
        encrypted("idle connection, bytes, TLS - plain", Idle, 1, BYTES, MoreByAtMost(10_240.0)),
    ]
}

impl Target {
    /// The figure, and whether it is doubtful.
    fn measured(&self, groups: &[Group<'_>]) -> Option<(Spread, bool)> {
        let (name, ours) = (self.workload.name(), self.ours.name());
        let wanted = |group: &&Group<'_>| group.workload == name && group.tasks == self.tasks;
        let group = groups.iter().find(wanted)?;
        let spread = match self.rival {
            Some(rival) if matches!(self.goal, Goal::MoreByAtMost(_)) => {
                Spread::of(group.differences(ours, rival.name(), self.figure))
            }
            Some(rival) => group.ratio(ours, rival.name(), self.figure),
            None => group.figure(ours, self.figure),
        };
        Some((spread?, group.inconclusive))
    }
}

impl Goal {
    fn is_reached_by(&self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bound) => figure >= *bound,
            Self::AtMost(bound) | Self::MoreByAtMost(bound) => figure <= *bound,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::AtLeast(bound) => format!("at least {bound}"),
            Self::AtMost(bound) => format!("at most {bound}"),
            Self::MoreByAtMost(bound) => format!("at most {bound} more"),
        }
    }
}

/// Appends the table of targets.
pub fn push(out: &mut String, groups: &[Group<'_>]) {
    let _ = writeln!(out, "\ntargets");
    for target in targets() {
        let (ratio, verdict) = match target.measured(groups) {
            Some((ratio, inconclusive)) => {
                let reached = target.goal.is_reached_by(ratio.median);
                let verdict = if reached { "reached" } else { "missed" };
                (
                    spread(ratio),
                    format!("{verdict}{}", if inconclusive { ", disturbed" } else { "" }),
                )
            }
            None => (String::new(), "not measured".to_owned()),
        };
        let _ =
            writeln!(out, "  {:<50}{:<18}{ratio:<34}{verdict}", target.what, target.goal.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::groups;

    #[test]
    fn target_is_judged_by_the_median_ratio() {
        let row = |contender: &str, ops| Row {
            ops_per_s: Some(ops),
            ..Row::new("get", 64, contender, 0)
        };
        let rows = [row("zerocache", 200.0), row("redis", 100.0)];
        let mut out = String::new();
        push(&mut out, &groups(&rows));
        let line =
            |what: &str| out.lines().find(|line| line.contains(what)).expect("a line").to_owned();
        assert!(line("GET, 64 tasks").ends_with("reached"), "{out}");
        assert!(line("GET, 256 tasks").ends_with("not measured"), "{out}");
        let rows = [row("zerocache", 170.0), row("redis", 100.0)];
        out.clear();
        push(&mut out, &groups(&rows));
        assert!(out.contains("1.70 (1.70 to 1.70)") && out.contains("missed"), "{out}");
    }

    #[test]
    fn bounds_are_reached_at_the_bound() {
        assert!(Goal::AtLeast(1.5).is_reached_by(1.5) && !Goal::AtLeast(1.5).is_reached_by(1.49));
        assert!(Goal::AtMost(1.5).is_reached_by(1.5) && !Goal::AtMost(1.5).is_reached_by(1.51));
    }
}
