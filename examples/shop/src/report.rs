//! The measurements of a run, and the failures in them.

use std::fmt::{self, Display, Formatter};
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::api::Counters;
use crate::deployment::{Deployment, REGIONS, Size};
use crate::load::{Answer, Kind};
use crate::updates::Update;

/// The phases, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Every request goes to the database.
    Without,
    /// The cache is empty.
    Cold,
    /// The cache has what popular requests need.
    Warm,
    /// One node is killed.
    NodeKilled,
    /// Prices are updated.
    Updates,
    /// All nodes have been killed.
    NoNode,
}

impl Name {
    /// All phases, in their order.
    pub const ALL: [Self; 6] =
        [Self::Without, Self::Cold, Self::Warm, Self::NodeKilled, Self::Updates, Self::NoNode];
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Without => "without the cache",
            Self::Cold => "cold start",
            Self::Warm => "warm",
            Self::NodeKilled => "a node is killed",
            Self::Updates => "prices are updated",
            Self::NoNode => "no node is left",
        })
    }
}

/// The measurements of a phase.
#[derive(Clone, Debug)]
pub struct Phase {
    /// The phase.
    pub name: Name,
    /// The customers' requests.
    pub answers: Vec<Answer>,
    /// The counters of the services during the phase.
    pub counted: Counters,
}

impl Phase {
    /// The number of failed requests.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.answers.iter().filter(|answer| !answer.good).count()
    }

    /// The time within which a part of the requests was answered, all or those of one kind; none
    /// without requests.
    #[must_use]
    pub fn quantile(&self, part: f64, kind: Option<Kind>) -> Option<Duration> {
        let wanted =
            self.answers.iter().filter(|answer| kind.is_none_or(|kind| kind == answer.kind));
        let mut times: Vec<_> = wanted.map(|answer| answer.took).collect();
        times.sort_unstable();
        let at = (part * times.len() as f64).ceil() as usize;
        times.get(at.saturating_sub(1)).copied()
    }
}

/// The measurements of a run.
#[derive(Clone, Debug)]
pub struct Report {
    size: Size,
    /// Each process: its role, region, address and pid.
    pub processes: Vec<(&'static str, &'static str, SocketAddr, u32)>,
    /// The phases, in their order.
    pub phases: Vec<Phase>,
    /// The node that was killed on its own.
    pub killed: Option<SocketAddr>,
    /// The updates, in their order.
    pub updates: Vec<Update>,
}

impl Report {
    /// A report without phases.
    #[must_use]
    pub fn new(deployment: &Deployment, size: Size) -> Self {
        let nodes = deployment.nodes.iter().map(|process| ("node", process));
        let services = deployment.services.iter().map(|process| ("service", process));
        let processes = nodes
            .chain(services)
            .map(|(what, process)| (what, process.region, process.address, process.pid()))
            .collect();
        Self { size, processes, phases: Vec::new(), killed: None, updates: Vec::new() }
    }

    /// Returns a phase, if it has run.
    #[must_use]
    pub fn phase(&self, name: Name) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.name == name)
    }

    /// Returns the failures. None of them depends on the speed of the machine.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for phase in &self.phases {
            if phase.failed() > 0 {
                problems.push(format!("{} requests failed: {}", phase.failed(), phase.name));
            }
        }
        let late = self.updates.iter().filter(|update| update.shown.contains(&None)).count();
        if late > 0 {
            problems.push(format!("{late} updates were not shown by every process"));
        }
        let statements = |name| self.phase(name).map(|phase| phase.counted.statements);
        if statements(Name::Warm) >= statements(Name::Without) {
            problems.push("the cache saved no statement".to_owned());
        }
        problems
    }

    /// The head: every process, and the numbers of rows.
    #[must_use]
    pub fn head(&self) -> String {
        let mut head = String::new();
        for (what, region, address, pid) in &self.processes {
            head += &format!("{what:<8} {region:<8} {address:<18} pid {pid}\n");
        }
        let stock = self.size.stock;
        head + &format!(
            "{} products, {} reviews, {} orders\n",
            stock.products, stock.reviews, stock.orders
        )
    }

    fn write_phases(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<20} {:>8} {:>7} {:>12} {:>8} {:>8} {:>8} {:>8}",
            "phase", "requests", "failed", "SQL queries", "hits", "near", "p50 ms", "p99 ms"
        )?;
        for phase in &self.phases {
            let Counters { statements, hits, near_hits, .. } = phase.counted;
            let calls = phase.counted.calls();
            writeln!(
                f,
                "{:<20} {:>8} {:>7} {:>12} {:>8} {:>8} {:>8} {:>8}",
                phase.name,
                phase.answers.len(),
                phase.failed(),
                statements,
                percent(hits, calls),
                percent(near_hits, calls),
                millis(phase.quantile(0.5, None)),
                millis(phase.quantile(0.99, None)),
            )?;
        }
        Ok(())
    }

    fn write_kinds(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let columns = [Name::Without, Name::Warm, Name::NoNode];
        write!(f, "\n{:<20}", "p50 / p99 ms")?;
        for name in columns {
            write!(f, " {name:>20}")?;
        }
        for kind in Kind::ALL {
            write!(f, "\n{:<20}", kind.name())?;
            for name in columns {
                let at = |part| millis(self.phase(name).and_then(|p| p.quantile(part, Some(kind))));
                write!(f, " {:>20}", format!("{} / {}", at(0.5), at(0.99)))?;
            }
        }
        writeln!(f)
    }

    fn write_updates(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let services = self.processes.iter().filter(|process| process.0 == "service");
        let header = "the new price was served, ms after its update was sent";
        writeln!(f, "\n{header} from {} (by update)", REGIONS[0])?;
        for (number, (_, region, address, _)) in services.enumerate() {
            write!(f, "{:<20}", format!("{region} {address}"))?;
            for update in &self.updates {
                write!(f, " {:>8}", millis(update.shown.get(number).copied().flatten()))?;
            }
            writeln!(f)?;
        }
        write!(f, "{:<20}", "update answered")?;
        for update in &self.updates {
            write!(f, " {:>8}", millis(Some(update.took)))?;
        }
        writeln!(f)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_phases(f)?;
        self.write_kinds(f)?;
        self.write_updates(f)?;
        if let Some(killed) = self.killed {
            writeln!(f, "\nthe node that was killed: {killed}")?;
        }
        Ok(())
    }
}

/// Prints a part of the report. Continues when nobody reads it any more.
pub fn say(text: &str) {
    let _nobody_reads = writeln!(std::io::stdout(), "{text}");
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

fn millis(time: Option<Duration>) -> String {
    time.map_or("-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1_000.0))
}
