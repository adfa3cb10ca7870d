//! Processes that are forked off while their parent uses the cache.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use zerocache_tests::poll::until;
use zerocache_tests::setup::Setup;

/// A process and all that were forked off it, ended when this is dropped.
struct Family(Child);

impl Drop for Family {
    fn drop(&mut self) {
        let _nobody_left = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Runs a process that forks in the given mode.
fn forks(way: &str) {
    let node = Setup::new("london").start();
    let process = Command::new(env!("CARGO_BIN_EXE_fork"))
        .args([way, &node.address().to_string()])
        .stdin(Stdio::null())
        .process_group(0)
        .spawn();
    let mut family = Family(process.expect("a process"));
    let ended = until("the end of a process that forked", || family.0.try_wait().expect("a child"));
    assert!(ended.success(), "{way}: {ended}");
}

#[test]
fn clients_work_in_a_forked_child_without_touching_the_parents() {
    forks("blocking");
}

#[test]
fn child_that_drops_the_parents_runtime_closes_no_connection() {
    forks("current");
}

#[test]
fn child_whose_runtime_lost_its_threads_still_works() {
    forks("threads");
}
