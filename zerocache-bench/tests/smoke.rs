//! The whole program with tiny settings: it measures, reports, and leaves nothing behind.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A variable that all children of one run inherit.
const MARK: &str = "ZC_BENCH_SMOKE";
/// The number of polls of the machine's processes before a test gives up, 10 ms apart.
const LOOKS_MAX: usize = 3_000;

fn bench(mark: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerocache-bench"));
    command.args(args).env(MARK, mark).stdin(Stdio::null());
    command
}

/// A mark that no other test has.
fn mark(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// The processes with a mark that have not ended.
fn marked(mark: &str) -> Vec<String> {
    let wanted = format!("{MARK}={mark}");
    let has_mark = |process: &Path| {
        // One that has ended and was not waited for has no environment.
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let processes = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    processes
        .filter(|process| has_mark(process))
        .map(|process| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ")
        })
        .collect()
}

fn wait_for(what: &str, mark: &str, good: impl Fn(&[String]) -> bool) {
    for _ in 0..LOOKS_MAX {
        if good(&marked(mark)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: {:?}", marked(mark));
}

#[test]
fn every_workload_is_in_the_table_and_in_the_csv() {
    let mark = mark("all");
    let directory = tempfile::tempdir().expect("a directory");
    let csv = directory.path().join("rows.csv");
    let args = ["--quick", "--contenders", "zerocache,zerocache-http,raw-tcp", "--csv"];
    let output = bench(&mark, &args).arg(&csv).output().expect("started");
    let table = String::from_utf8_lossy(&output.stdout);
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{progress}\n{table}");
    assert_eq!(marked(&mark), Vec::<String>::new());

    let rows = fs::read_to_string(&csv).expect("the file");
    let rows: Vec<Vec<&str>> = rows.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0][..4], ["workload", "tasks", "contender", "round"]);
    for (workload, tasks, contender, rounds) in [
        ("get", "4", "zerocache", 2),
        ("get", "4", "raw-tcp", 2),
        ("single", "1", "zerocache", 2),
        ("single", "1", "zerocache-http", 2),
        ("single", "1", "raw-tcp", 2),
        ("http", "64", "zerocache-http", 2),
        ("put-region", "64", "zerocache", 2),
        ("put-local", "64", "zerocache", 2),
        ("memory", "64", "zerocache", 1),
        ("idle", "1", "zerocache-http", 1),
    ] {
        let found = rows.iter().filter(|row| row[..3] == [workload, tasks, contender]);
        assert_eq!(found.count(), rounds, "{workload} {tasks} {contender}\n{rows:?}");
        let heading = format!("\n{workload}, {tasks} task");
        assert!(table.contains(&heading), "{heading:?}\n{table}");
    }
    assert!(table.contains("\n  zerocache / raw-tcp: ops "), "{table}");
    assert!(table.contains("\ntargets\n"), "{table}");
    assert!(table.contains("GET, one task on one core, p50 / raw TCP"), "{table}");
}

#[test]
fn older_build_alternates_and_the_ratio_is_reported() {
    let mark = mark("before");
    let directory = tempfile::tempdir().expect("a directory");
    let csv = directory.path().join("rows.csv");
    // There is one build here: it is compared with itself.
    let before = env!("CARGO_BIN_EXE_zerocache-bench");
    let output = bench(&mark, &["--quick", "--before", before, "--csv"]).arg(&csv).output();
    let output = output.expect("started");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{table}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(marked(&mark), Vec::<String>::new());
    for (workload, tasks) in [("get", "4"), ("single", "1"), ("put-region", "64")] {
        let line = table.lines().find(|line| line.starts_with(&format!("  {workload} {tasks}: ")));
        assert!(line.is_some_and(|line| line.ends_with("2 rounds")), "{table}");
        let rows = fs::read_to_string(&csv).expect("the file");
        for contender in ["now", "before"] {
            let prefix = format!("{workload},{tasks},{contender},");
            let found = rows.lines().filter(|line| line.starts_with(&prefix));
            assert_eq!(found.count(), 2, "{rows}");
        }
    }
}

/// A run in the middle of its work, with children.
fn started(mark: &str, temporary: &Path) -> Child {
    let args = ["--contenders", "zerocache,raw-tcp", "--workload", "get", "--max-minutes", "1"];
    let child = bench(mark, &args)
        .env("TMPDIR", temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    wait_for("no children", mark, |processes| {
        let runs = |role: &str| processes.iter().any(|line| line.contains(role));
        runs(" serve ") && runs(" raw-server ")
    });
    child.expect("started")
}

fn ends_with_all_children(name: &str, signal: Signal) {
    let mark = mark(name);
    let temporary = tempfile::tempdir().expect("a directory");
    let mut child = started(&mark, temporary.path());
    kill_process(Pid::from_child(&child), signal).expect("signalled");
    let status = child.wait().expect("ended");
    assert!(!status.success());
    wait_for("children are left", &mark, <[String]>::is_empty);
    let left = fs::read_dir(temporary.path()).expect("a directory").count();
    // A killed process cannot remove its files.
    assert!(left == 0 || signal == Signal::KILL, "{left} directories are left");
}

#[test]
fn interrupt_ends_all_children() {
    ends_with_all_children("interrupt", Signal::INT);
}

#[test]
fn kill_ends_all_children() {
    ends_with_all_children("kill", Signal::KILL);
}
