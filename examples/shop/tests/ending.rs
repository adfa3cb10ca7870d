//! Nothing outlives the program, however it ends.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

/// Nodes and services of the smallest run.
const CHILDREN: usize = 4;

/// After this time a process counts as left behind.
const END_MAX: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

#[test]
fn interrupted_run_leaves_no_process_behind() {
    let mut run = Run::start();
    kill_process(Pid::from_child(&run.process), Signal::INT).expect("signalled");
    assert_eq!(run.process.wait().expect("ended").code(), Some(130));
    run.children.iter().for_each(|pid| wait_for_end(pid));
    let left = std::fs::read_dir(run.directory.path()).expect("a directory").count();
    assert_eq!(left, 0, "the database is left");
}

#[test]
fn no_process_outlives_a_killed_run() {
    let mut run = Run::start();
    run.process.kill().expect("killed");
    run.process.wait().expect("ended");
    run.children.iter().for_each(|pid| wait_for_end(pid));
}

/// A run with long phases; killed when dropped.
struct Run {
    process: Child,
    children: Vec<String>,
    directory: TempDir,
}

impl Run {
    /// Starts a run and waits until all its children serve.
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let args = "--nodes 1 --services 1 --products 10 --reviews 50 --orders 20";
        let process = Command::new(env!("CARGO_BIN_EXE_shop"))
            .args(args.split(' '))
            .args(["--phase-ms", "600000"])
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a run");
        let mut run = Self { process, children: Vec::new(), directory };
        let out = BufReader::new(run.process.stdout.take().expect("an output"));
        for line in out.lines() {
            let line = line.expect("a line");
            run.children.extend(line.split_once(" pid ").map(|(_, pid)| pid.trim().to_owned()));
            if run.children.len() == CHILDREN {
                return run;
            }
        }
        panic!("ended early, after the pids {:?}", run.children);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until a process has ended, zombies included.
fn wait_for_end(pid: &str) {
    let pid = pid.parse().ok().and_then(Pid::from_raw).expect("a process id");
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return,
        Err(error) => panic!("process {pid:?}: {error}"),
    };
    let mut ends = [PollFd::new(&process, PollFlags::IN)];
    let count = poll(&mut ends, Some(&END_MAX)).expect("polled");
    assert_eq!(count, 1, "process {pid:?} is left behind");
}
