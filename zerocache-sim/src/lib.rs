//! Simulates whole clusters of zerocache, nodes and clients, in one thread: a virtual clock, a
//! virtual network, faults, and a checker that knows every write.
//!
//! The nodes are those of the product: the state machine and the store of `zerocache-core`, its
//! messages as bytes, and the framing of `zerocache-net`. The simulator replaces the server and the
//! client around them, without sockets. A seed determines the cluster, the network, the operations
//! of clients and the faults. The same seed is always the same run.
//!
//! `docs/reliability.md` documents what is simulated and how to run it.

mod checker;
mod clock;
mod disks;
mod faults;
mod network;
mod plan;
mod profile;
mod purges;
mod random;
mod report;
mod variants;
mod watchdog;
mod workload;
mod world;

use self::{checker::Checker, plan::Plan, world::World};
pub use self::{
    checker::{Rule, Violation},
    profile::Profile,
    report::Counts,
    variants::Variant,
};

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The family of plans.
    pub profile: Profile,
    /// The deliberate defect.
    pub variant: Variant,
    /// Whether clients issue purges.
    pub purges: bool,
    /// Whether events are printed.
    pub trace: bool,
}

impl Settings {
    /// A run of the product as it is.
    #[must_use]
    pub const fn new(profile: Profile) -> Self {
        Self { profile, variant: Variant::None, purges: false, trace: false }
    }
}

/// The outcome of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Its counters.
    pub counts: Counts,
    /// The first promise that it broke.
    pub violation: Option<Violation>,
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, settings: &Settings) -> Outcome {
    let mut plan = Plan::of(seed, settings.profile);
    if settings.purges {
        plan.add_purges();
    }
    if settings.trace {
        plan.print();
    }
    let checker = Checker::new(&plan);
    let world = World::new(plan, settings.variant, checker, settings.trace);
    let stuck = || {
        eprintln!("seed {seed} makes no progress; to replay it: {}", replay(seed, settings));
        std::process::abort();
    };
    let events_handled = world.events_handled();
    let (checker, counts) =
        watchdog::watch(&events_handled, watchdog::STALL_LIMIT, stuck, || world.run());
    Outcome { seed, counts, violation: checker.into_violation() }
}

/// The command that replays a seed.
#[must_use]
pub fn replay(seed: u64, settings: &Settings) -> String {
    let mut command = format!(
        "cargo run --release -p zerocache-sim -- --profile {} --seed {seed}",
        settings.profile.as_str()
    );
    if settings.variant != Variant::None {
        command.push_str(&format!(" --variant {}", settings.variant.as_str()));
    }
    if settings.purges {
        command.push_str(" --purges");
    }
    command + " --trace"
}
