//! The text that Prometheus reads, parsed; and `promtool`, which judges it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::Write,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use crate::node::Node;

/// Names the `promtool` of Debian's package `prometheus`; without it, the one of the search path is used.
const PROMTOOL: &str = "ZEROCACHE_PROMTOOL";

/// A series, such as `zerocache_node_reads_total{outcome="hit"}`, and its value.
pub type Samples = BTreeMap<String, f64>;

/// Returns the text of a node's `/metrics`.
///
/// # Panics
/// If it does not answer 200 with text.
#[must_use]
pub fn text(node: &Node) -> String {
    let answer = node.http("GET", "/metrics", b"");
    assert_eq!(answer.status, 200, "{}", answer.head);
    String::from_utf8(answer.body).expect("text")
}

/// Parses a text in the format 0.0.4 or in OpenMetrics.
///
/// # Panics
/// If a line is neither a comment nor a series and its value, or a series is there twice.
#[must_use]
pub fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        // Label values may contain spaces; values do not.
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {series}");
    }
    samples
}

/// Returns the name of a series without its labels.
#[must_use]
pub fn name(series: &str) -> &str {
    series.split('{').next().unwrap_or(series)
}

/// Returns the program `promtool`.
///
/// # Errors
/// A sentence that says why there is none.
pub fn promtool() -> Result<PathBuf, String> {
    let path: OsString = std::env::var_os(PROMTOOL).unwrap_or_else(|| "promtool".into());
    let version = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
    match version {
        Ok(output) if output.status.success() => Ok(path.into()),
        Ok(output) => Err(format!("{}: {}", path.display(), output.status)),
        Err(error) => Err(format!("{} (see {PROMTOOL}): {error}", path.display())),
    }
}

/// Runs `promtool` with these arguments and this input.
///
/// # Panics
/// If it does not start or does not read.
#[must_use]
pub fn run_promtool(promtool: &PathBuf, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(promtool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("promtool reads");
    drop(stdin);
    child.wait_with_output().expect("promtool ends")
}
