//! Rounds in which every contender has one turn, and the choice of rounds that count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::args::Settings;
use crate::clock;
use crate::contenders::Contender;
use crate::data::Data;
use crate::measure::{Plan, Sample, foreign_cpu_while_idle};
use crate::row::Row;

/// A round with too many disturbed turns is replaced by another one. This is the largest factor by
/// which the number of rounds may grow.
const ATTEMPTS_MAX: usize = 2;
/// The length of one CPU measurement before a turn: many times the step of its counters.
const CPU_PROBE_TIME: Duration = Duration::from_millis(200);
/// The longest wait of a turn until no other process uses the CPU: two or three turns. On a machine
/// that is never quiet, more rounds are worth more than waiting.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The note for a step that could not begin.
pub const STOPPED: &str = "stopped early: the time given by --max-minutes is over";

/// The state of the whole run.
pub struct Run {
    pub settings: Settings,
    /// The time after which no new step begins.
    pub deadline: Instant,
    /// Steps that have to share the time until then: a workload, or one number of tasks of it.
    steps_left: u32,
    pub rows: Vec<Row>,
    /// Faults that are seen only after a workload.
    faults: usize,
    /// Turns that were discarded because other processes used the CPU.
    pub disturbed: usize,
    /// Sentences for the end of the report.
    pub notes: Vec<String>,
}

/// A contender under its name.
pub type Entrant = (&'static str, Box<dyn Contender>);

impl Run {
    pub fn new(settings: Settings) -> Self {
        let deadline = clock::now() + settings.time_max;
        let steps = settings.workloads.iter().map(|workload| workload.steps(&settings)).sum();
        Self {
            settings,
            deadline,
            steps_left: steps,
            rows: Vec::new(),
            faults: 0,
            disturbed: 0,
            notes: Vec::new(),
        }
    }

    /// Returns the time by which the next step has to end, so that later steps have their share.
    pub fn begin_step(&mut self) -> Instant {
        let now = clock::now();
        let share = self.deadline.saturating_duration_since(now) / self.steps_left.max(1);
        self.steps_left = self.steps_left.saturating_sub(1);
        now + share
    }

    /// Returns whether the time is over; notes that once.
    pub fn is_over(&mut self) -> bool {
        let over = clock::now() >= self.deadline;
        if over {
            self.note(STOPPED.to_owned());
        }
        over
    }

    /// Notes a sentence for the end of the report, once.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            eprintln!("{note}");
            self.notes.push(note);
        }
    }

    /// Returns the number of failures.
    pub fn errors(&self) -> usize {
        self.rows.iter().map(|row| row.errors).sum::<usize>() + self.faults
    }

    /// Notes a fault that makes the run fail.
    pub fn fail(&mut self, fault: String) {
        self.faults += 1;
        self.note(fault);
    }

    /// Runs rounds of the entrants until enough of them count.
    pub async fn interleave(
        &mut self,
        workload: &str,
        tasks: usize,
        data: &Arc<Data>,
        entrants: &[Entrant],
    ) -> Result<()> {
        let all_servers: Vec<u32> =
            entrants.iter().flat_map(|(_, contender)| contender.servers()).collect();
        let (wanted, mut kept) = (self.settings.rounds, 0);
        let until = self.begin_step();
        for round in 0..wanted * ATTEMPTS_MAX {
            let late = round > 0 && clock::now() >= until;
            if kept == wanted || late || self.is_over() {
                break;
            }
            let first = self.rows.len();
            for place in order(round, entrants.len()) {
                let (name, contender) = &entrants[place];
                let plan = Plan {
                    data: Arc::clone(data),
                    warmup: self.settings.warmup,
                    length: self.settings.turn,
                    servers: contender.servers(),
                    all_servers: all_servers.clone(),
                    core: self.settings.pinned_core,
                };
                let sample = self.turn(contender.as_ref(), tasks, &plan, until).await?;
                let row = Row::new(workload, tasks, name, round).with_sample(&sample);
                say_turn(&row, sample.errors.first());
                self.rows.push(row);
            }
            kept += usize::from(judge(&mut self.rows[first..], self.settings.other_cpu_max));
        }
        if kept < wanted {
            let note =
                format!("{workload} {tasks}: {kept} of {wanted} rounds count, in the time it had");
            self.note(note);
        }
        Ok(())
    }

    /// Runs one turn, and repeats it while other processes disturb it and there is time.
    async fn turn(
        &mut self,
        contender: &dyn Contender,
        tasks: usize,
        plan: &Plan,
        until: Instant,
    ) -> Result<Sample> {
        for repeat in 0.. {
            self.wait_for_quiet(plan, until).await?;
            // New callers: servers close connections that were idle during the turns of others.
            let sample = contender.callers(tasks).await?.measure(plan).await?;
            let quiet = sample.other_cpu <= self.settings.other_cpu_max;
            let late = clock::now() >= until;
            if quiet || late || repeat == self.settings.repeats || !sample.errors.is_empty() {
                return Ok(sample);
            }
            self.disturbed += 1;
            eprintln!("  others used {:.2} of a core; once more", sample.other_cpu);
        }
        unreachable!("the last repeat returns")
    }

    /// Waits until no other process uses the CPU: cheaper than a turn that does not count.
    async fn wait_for_quiet(&self, plan: &Plan, until: Instant) -> Result<()> {
        if self.settings.other_cpu_max.is_infinite() {
            return Ok(());
        }
        let until = until.min(clock::now() + WAIT_MAX);
        while foreign_cpu_while_idle(plan, CPU_PROBE_TIME).await? > self.settings.other_cpu_max {
            if clock::now() >= until {
                break;
            }
        }
        Ok(())
    }
}

/// Returns the order of turns in a round: another entrant begins in each round.
fn order(round: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + round) % count)
}

/// Marks the rows of a round: all count, or none, because ratios are taken within it.
fn judge(rows: &mut [Row], other_cpu_max: f64) -> bool {
    let good = |row: &Row| {
        row.errors == 0 && row.other_cpu.is_none_or(|other_cpu| other_cpu <= other_cpu_max)
    };
    let kept = rows.iter().all(good);
    rows.iter_mut().for_each(|row| row.kept = kept);
    kept
}

fn say_turn(row: &Row, error: Option<&String>) {
    let Row { workload, tasks, contender, round, .. } = row;
    let (ops, p50) = (row.ops_per_s.unwrap_or_default(), row.p50_us.unwrap_or_default());
    eprintln!(
        "  {workload} {tasks} round {}: {contender} {ops:.0} ops/s, p50 {p50:.1} us",
        round + 1
    );
    if let Some(error) = error {
        eprintln!("  {contender}: {} tasks failed: {error}", row.errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_rotate_the_first_contender() {
        let order = |round| order(round, 3).collect::<Vec<_>>();
        assert_eq!([order(0), order(1), order(5)], [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
    }

    #[test]
    fn disturbed_or_failed_turn_drops_its_round() {
        let row = |other_cpu| Row { other_cpu: Some(other_cpu), ..Row::new("get", 1, "x", 0) };
        let mut quiet = [row(0.0), row(0.1)];
        assert!(judge(&mut quiet, 0.1) && quiet.iter().all(|row| row.kept));
        let mut disturbed = [row(0.0), row(0.11)];
        assert!(!judge(&mut disturbed, 0.1) && disturbed.iter().all(|row| !row.kept));
        let mut failed = [Row { errors: 1, ..row(0.0) }, row(0.0)];
        assert!(!judge(&mut failed, 0.1));
    }
}
