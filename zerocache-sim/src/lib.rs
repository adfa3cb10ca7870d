//! Simulates whole clusters of zerocache, nodes and clients, in one thread: a virtual clock, a virtual
//! network, faults, and a checker that knows every write.
//!
//! The nodes are those of the product: the state machine and the store of `zerocache-core`, its
//! messages as bytes, and the framing of `zerocache-net`. What the server and the client do around them
//! is done here in the same way, without sockets. A seed says everything: the cluster, the network, what
//! clients do and what goes wrong. The same seed is the same run for ever.
//!
//! `docs/reliability.md` says what is simulated and how to run it.

mod checker;
mod clock;
mod faults;
mod network;
mod plan;
mod random;
mod report;
mod variants;
mod watchdog;
mod workload;
mod world;

use self::{checker::Checker, plan::Plan, world::World};
pub use self::{
    checker::{Rule, Violation},
    plan::Profile,
    report::Counts,
    variants::Variant,
};

/// How a seed is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The family of plans.
    pub profile: Profile,
    /// What is broken on purpose.
    pub variant: Variant,
    /// Whether what happens is printed.
    pub trace: bool,
}

impl Settings {
    /// A run of the product as it is.
    #[must_use]
    pub const fn new(profile: Profile) -> Self {
        Self { profile, variant: Variant::None, trace: false }
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What it did.
    pub counts: Counts,
    /// The first promise that it broke.
    pub violation: Option<Violation>,
}

/// Runs a seed.
#[must_use]
pub fn run(seed: u64, settings: &Settings) -> Outcome {
    let plan = Plan::of(seed, settings.profile);
    if settings.trace {
        plan.print();
    }
    let checker = Checker::new(settings.profile.has_wild_clocks());
    let world = World::new(plan, settings.variant, checker, settings.trace);
    let stuck = || {
        eprintln!("seed {seed} does not go on; to replay it: {}", replay(seed, settings));
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
    command + " --trace"
}
