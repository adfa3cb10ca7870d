//! The workloads.

mod idle;
mod memory;
mod single;
mod throughput;

use anyhow::Result;
use clap::ValueEnum;
use zerocache_client::Ack;

pub use self::single::export as export_for_parent;

use crate::args::Settings;
use crate::contenders::{Contender, Kind, redis::Redis, zerocache::Cluster};
use crate::rounds::Run;

/// The nodes that hold a write: the one that accepts it, and two peers.
const REPLICAS: usize = 3;
/// Tasks of every workload that does not name another number.
const TASKS: usize = 64;

/// A workload, by the name that it has in options and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Hits, or hits and writes, by many tasks at once
    Get,
    /// Hits by one task, everything on one core
    Single,
    /// Hits over HTTP/1.1
    Http,
    /// Writes that two peers have when they are acknowledged
    PutRegion,
    /// Writes that are acknowledged at once and replicated to two peers
    PutLocal,
    /// Memory of an entry of 32 and 100 bytes with a lifetime
    Memory,
    /// Memory of an idle connection
    Idle,
}

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Single => "single",
            Self::Http => "http",
            Self::PutRegion => "put-region",
            Self::PutLocal => "put-local",
            Self::Memory => "memory",
            Self::Idle => "idle",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|workload| workload.name() == name)
    }

    /// The contender that is compared with the others.
    pub fn ours(self) -> Kind {
        match self {
            Self::Http => Kind::ZerocacheHttp,
            _ => Kind::Zerocache,
        }
    }

    /// Returns whether callers run operations, which cost CPU.
    pub fn has_callers(self) -> bool {
        !matches!(self, Self::Memory | Self::Idle)
    }

    /// Returns its number of shares of the time.
    pub fn steps(self, settings: &Settings) -> u32 {
        if self == Self::Get { settings.tasks.len() as u32 } else { 1 }
    }

    fn contenders(self) -> &'static [Kind] {
        use Kind::{Memcached, RawTcp, Redis, Redis2, Zerocache, ZerocacheHttp, ZerocacheTls};
        match self {
            Self::Get => &[Zerocache, ZerocacheTls, Redis, Redis2, Memcached, RawTcp],
            Self::Single => &[Zerocache, ZerocacheTls, ZerocacheHttp, Redis, Memcached, RawTcp],
            Self::Http => &[ZerocacheHttp, Memcached],
            Self::PutRegion | Self::PutLocal => &[Zerocache, ZerocacheTls, Redis],
            Self::Memory => &[Zerocache, Redis, Memcached],
            Self::Idle => &[Zerocache, ZerocacheTls, ZerocacheHttp, Redis, Memcached],
        }
    }

    /// Returns the contenders that take part: of those that fit, the selected and installed ones.
    fn entrants(self, run: &mut Run) -> Vec<Kind> {
        let wanted = &run.settings.contenders;
        let asked_for = |kind: &Kind| {
            let by_default = !matches!(kind, Kind::Redis2 | Kind::ZerocacheTls);
            if wanted.is_empty() { by_default } else { wanted.contains(kind) }
        };
        let mut entrants = Vec::new();
        for kind in self.contenders().iter().copied().filter(asked_for).collect::<Vec<_>>() {
            let Some(program) = kind.lacks() else {
                entrants.push(kind);
                continue;
            };
            run.note(format!("without {}: {program} is not installed", kind.name()));
        }
        entrants
    }

    async fn start(self, kind: Kind, settings: &Settings) -> Result<Box<dyn Contender>> {
        let wait = self == Self::PutRegion;
        Ok(match (self, kind) {
            (Self::PutRegion | Self::PutLocal, Kind::Zerocache | Kind::ZerocacheTls) => {
                let ack = if wait { Ack::Region } else { Ack::Local };
                Box::new(Cluster::start(settings, kind, REPLICAS, ack).await?)
            }
            (Self::PutRegion | Self::PutLocal, Kind::Redis) => {
                Box::new(Redis::start_replicated(settings, wait).await?)
            }
            _ => kind.start(settings).await?,
        })
    }

    /// Measures it. Appends rows to those of the run.
    pub async fn run(self, run: &mut Run, argv: &[std::ffi::OsString]) -> Result<()> {
        if run.is_over() {
            return Ok(());
        }
        eprintln!("{}", self.name());
        let reads = run.settings.read_share;
        match self {
            Self::Get => throughput::run(self, run, &run.settings.tasks.clone(), reads).await,
            Self::Single if run.settings.pinned_core.is_some() => {
                throughput::run(self, run, &[1], 1.0).await
            }
            Self::Single => single::run(run, argv).await,
            Self::Http => throughput::run(self, run, &[TASKS], 1.0).await,
            Self::PutRegion | Self::PutLocal => throughput::run(self, run, &[TASKS], 0.0).await,
            Self::Memory => memory::run(run).await,
            Self::Idle => idle::run(run).await,
        }
    }
}
