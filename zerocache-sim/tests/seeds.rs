//! Some seeds of each profile, and that a seed is the same run each time.

use std::thread;

use zerocache_sim::{Profile, Settings, replay, run};

/// Runs seeds on two threads, two of three with purges; reports for the first violation how to replay it.
fn run_all(profile: Profile, seeds: u64) {
    let half = |first: u64| {
        for seed in (first..seeds).step_by(2) {
            let purges = !seed.is_multiple_of(3);
            let settings = Settings { purges, ..Settings::new(profile) };
            let outcome = run(seed, &settings);
            if let Some(violation) = outcome.violation {
                let command = replay(seed, &settings);
                panic!("seed {seed}: {violation:?}\nto replay it: {command}");
            }
        }
    };
    thread::scope(|scope| {
        let halves = [scope.spawn(|| half(0)), scope.spawn(|| half(1))];
        for done in halves {
            if let Err(panic) = done.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

#[test]
fn runs_without_faults_violate_no_rule() {
    run_all(Profile::Calm, 12);
}

#[test]
fn faults_in_small_clusters_violate_no_rule() {
    run_all(Profile::Small, 120);
}

#[test]
fn leases_violate_no_rule() {
    run_all(Profile::Leases, 60);
}

#[test]
fn conditional_writes_violate_no_rule() {
    run_all(Profile::Conditions, 60);
}

#[test]
fn hedged_reads_and_batches_violate_no_rule() {
    run_all(Profile::Clients, 60);
}

#[test]
fn values_that_are_kept_near_violate_no_rule() {
    run_all(Profile::Near, 60);
}

#[test]
fn strangers_violate_no_rule() {
    run_all(Profile::Strangers, 60);
}

#[test]
fn drained_nodes_violate_no_rule() {
    run_all(Profile::Drains, 60);
}

#[test]
fn stops_of_all_nodes_violate_no_rule() {
    run_all(Profile::Stops, 60);
}

#[test]
fn changes_of_owners_violate_no_rule() {
    run_all(Profile::Placement, 24);
}

#[test]
fn full_stores_of_different_budgets_violate_no_rule() {
    run_all(Profile::Evict, 12);
}

#[test]
fn partitions_longer_than_the_retention_violate_no_rule() {
    run_all(Profile::Retention, 8);
}

#[test]
fn wrong_clocks_violate_no_rule() {
    run_all(Profile::Clocks, 40);
}

#[test]
fn isolated_and_interrupted_starts_violate_no_rule() {
    run_all(Profile::Starts, 40);
}

#[test]
fn faults_of_disks_violate_no_rule() {
    run_all(Profile::Disk, 20);
}

#[test]
fn eight_regions_violate_no_rule() {
    run_all(Profile::Wide, 2);
}

#[test]
fn seed_reproduces_its_run() {
    for seed in 0..3 {
        let settings = Settings { purges: seed > 0, ..Settings::new(Profile::Small) };
        assert_eq!(run(seed, &settings), run(seed, &settings));
    }
}
