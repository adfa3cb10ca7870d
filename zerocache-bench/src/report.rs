//! The table on standard output and the CSV file.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::rounds::Run;
use crate::row::{HEADER, Row};
use crate::summary::{Figure, Group, Spread, groups};
use crate::targets;
use crate::workloads::Workload;

/// A column: its heading, its figure, what the figure is divided by, and its decimals.
type Column = (&'static str, Figure, f64, usize);

const COLUMNS: [Column; 8] = [
    ("ops/s", |row| row.ops_per_s, 1.0, 0),
    ("p50 us", |row| row.p50_us, 1.0, 1),
    ("p99 us", |row| row.p99_us, 1.0, 0),
    ("p99.9 us", |row| row.p999_us, 1.0, 0),
    ("client us", |row| row.client_cpu_us, 1.0, 2),
    ("server us", |row| row.server_cpu_us, 1.0, 2),
    ("RSS MiB", |row| row.server_rss_bytes, 1_048_576.0, 1),
    ("bytes each", |row| row.bytes_each, 1.0, 0),
];

const RATIOS: [(&str, Figure); 4] = [
    ("ops", |row| row.ops_per_s),
    ("p50", |row| row.p50_us),
    ("CPU", Row::cpu_us),
    ("bytes", |row| row.bytes_each),
];

/// Everything for people.
pub fn text(run: &Run) -> String {
    let groups = groups(&run.rows);
    let mut out = String::new();
    for group in &groups {
        push_group(&mut out, group);
    }
    targets::push(&mut out, &groups);
    let settings = &run.settings;
    let _ = writeln!(
        out,
        "\n{} keys, values of {} bytes, skew {}, share of reads in get {}. Client and server us: CPU \
         time per operation.\nMedians of rounds; ratios are taken within a round: median (least to \
         greatest). {} disturbed turns were repeated.",
        settings.keys, settings.value_bytes, settings.skew, settings.read_share, run.disturbed
    );
    if settings.quick {
        out.push_str("note: turns, keys and entries of --quick are too few for these figures to mean anything\n");
    }
    for note in &run.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

/// Writes every turn, including those that do not count.
pub fn write_csv(path: &Path, rows: &[Row]) -> Result<()> {
    let lines = rows.iter().map(Row::to_csv);
    let text: String =
        std::iter::once(HEADER.to_owned()).chain(lines).map(|line| line + "\n").collect();
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn push_group(out: &mut String, group: &Group<'_>) {
    let Group { workload, tasks, .. } = group;
    let plural = if *tasks == 1 { "" } else { "s" };
    let doubt = if group.inconclusive { "; every one was disturbed or failed" } else { "" };
    let _ = writeln!(out, "\n{workload}, {tasks} task{plural}, {} rounds{doubt}", group.rounds());
    let names = group.contenders();
    let used =
        |(_, figure, ..): &&Column| names.iter().any(|name| group.figure(name, *figure).is_some());
    let columns: Vec<&Column> = COLUMNS.iter().filter(used).collect();
    let _ = write!(out, "  {:<16}", "");
    for (heading, ..) in &columns {
        let _ = write!(out, "{heading:>12}");
    }
    out.push('\n');
    for name in &names {
        let _ = write!(out, "  {name:<16}");
        for (_, figure, unit, decimals) in &columns {
            let figure = group.figure(name, *figure).map(|spread| spread.median / unit);
            let text =
                figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.decimals$}"));
            let _ = write!(out, "{text:>12}");
        }
        out.push('\n');
    }
    push_ratios(out, group, &names);
}

fn push_ratios(out: &mut String, group: &Group<'_>, names: &[&str]) {
    let Some(ours) = Workload::from_name(group.workload).map(|workload| workload.ours().name())
    else {
        return;
    };
    for rival in names.iter().filter(|name| **name != ours) {
        let ratio = |(what, figure): &(&str, Figure)| {
            group.ratio(ours, rival, *figure).map(|ratio| format!("{what} {}", spread(ratio)))
        };
        let ratios: Vec<String> = RATIOS.iter().filter_map(ratio).collect();
        if !ratios.is_empty() {
            let _ = writeln!(out, "  {ours} / {rival}: {}", ratios.join(", "));
        }
    }
}

/// A spread as text.
pub fn spread(Spread { min, median, max }: Spread) -> String {
    format!("{median:.2} ({min:.2} to {max:.2})")
}
