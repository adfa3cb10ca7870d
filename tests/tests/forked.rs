//! Processes that are forked off while their parent uses the cache.

use std::process::{Command, Stdio};

use zerocache_tests::poll::until;
use zerocache_tests::setup::Setup;

/// Runs a process that forks in this way, and ends it when it hangs.
fn forks(way: &str) {
    let node = Setup::new("london").start();
    let mut process = Command::new(env!("CARGO_BIN_EXE_forked"))
        .args([way, &node.address().to_string()])
        .stdin(Stdio::null())
        // Of its own group, so that its children can be ended with it.
        .spawn()
        .expect("a process");
    let ended = until("the end of a process that forked", || process.try_wait().expect("a child"));
    assert!(ended.success(), "{way}: {ended}");
}

#[test]
fn clients_work_on_in_a_forked_process_and_leave_those_of_its_parent_alone() {
    forks("blocking");
}

#[test]
fn a_child_that_drops_the_runtime_of_its_parent_ends_none_of_its_connections() {
    forks("current");
}

#[test]
fn a_child_whose_runtime_has_lost_its_threads_does_without() {
    forks("threads");
}
