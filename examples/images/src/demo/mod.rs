//! Demonstrations: each runs nodes, gateways and workers as processes on loopback, with an origin of its own, and
//! prints a table of what is expected and what was seen.

mod costs;
mod deployment;
mod load;
mod locations;
mod origin;
mod processes;
mod purge;
mod replicas;
mod report;
mod scale;
mod storm;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

pub use costs::costs;
pub use deployment::{NodeArgs, node};
pub use processes::end_with_parent;
pub use report::{Claim, Report};

/// A demonstration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// Five replicas share their images; full store, eviction by access, frozen and dead nodes.
    Replicas,
    /// The copies of an image on six nodes in two regions.
    Locations,
    /// One purge ends all variants of an original, in both regions.
    Purge,
    /// One of eight nodes dies under load.
    Storm,
    /// Gateways and workers; one more, one fewer.
    Scale,
}

impl Name {
    /// All demonstrations.
    pub const ALL: [Self; 5] =
        [Self::Replicas, Self::Locations, Self::Purge, Self::Storm, Self::Scale];
}

/// The arguments of a demonstration.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// The demonstration.
    pub name: Name,
    /// Fewer and smaller images, and shorter phases.
    #[arg(long)]
    pub quick: bool,
}

/// Runs a demonstration. `program` is this program's own file.
///
/// # Errors
/// If a process does not start, or something else fails that is not a claim.
pub async fn run(program: PathBuf, args: &DemoArgs) -> Result<Report> {
    match args.name {
        Name::Replicas => replicas::run(program, args.quick).await,
        Name::Locations => locations::run(program).await,
        Name::Purge => purge::run(program, args.quick).await,
        Name::Storm => storm::run(program, args.quick).await,
        Name::Scale => scale::run(program, args.quick).await,
    }
}
