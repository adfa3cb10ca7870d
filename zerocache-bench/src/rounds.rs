//! Rounds in which every contender has one turn, and which of them count.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use crate::args::Settings;
use crate::clock;
use crate::data::Data;
use crate::measure::{Load, Plan, Sample};
use crate::row::Row;

/// A round whose turns were disturbed too often is made up for by another one; at most this many times
/// as many rounds as asked for are begun.
const ATTEMPTS_MAX: usize = 2;

/// What goes through the whole run.
pub struct Run {
    pub settings: Settings,
    /// When to begin nothing new.
    pub deadline: Instant,
    pub rows: Vec<Row>,
    /// Turns that were thrown away because somebody else used the CPU.
    pub disturbed: usize,
    /// Sentences for the end of the report.
    pub notes: Vec<String>,
}

/// A contender with its callers.
pub struct Entrant {
    pub name: &'static str,
    pub servers: Vec<u32>,
    pub load: Box<dyn Load>,
}

impl Run {
    pub fn new(settings: Settings) -> Self {
        let deadline = clock::now() + settings.time_max;
        Self { settings, deadline, rows: Vec::new(), disturbed: 0, notes: Vec::new() }
    }

    /// Whether the time is over; says so once.
    pub fn is_over(&mut self) -> bool {
        let over = clock::now() >= self.deadline;
        let note = "stopped early: the time given by --max-minutes is over";
        if over && !self.notes.iter().any(|known| known == note) {
            self.notes.push(note.to_owned());
        }
        over
    }

    /// Whether anything failed.
    pub fn errors(&self) -> usize {
        self.rows.iter().map(|row| row.errors).sum()
    }

    /// Lets the entrants take turns until enough rounds count.
    pub async fn interleave(
        &mut self,
        workload: &str,
        tasks: usize,
        data: &Arc<Data>,
        entrants: &mut [Entrant],
    ) -> Result<()> {
        let everyone: Vec<u32> =
            entrants.iter().flat_map(|entrant| entrant.servers.clone()).collect();
        let (wanted, mut kept) = (self.settings.rounds, 0);
        for round in 0..wanted * ATTEMPTS_MAX {
            if kept == wanted || self.is_over() {
                break;
            }
            let first = self.rows.len();
            for place in order(round, entrants.len()) {
                let entrant = &mut entrants[place];
                let plan = Plan {
                    data: Arc::clone(data),
                    warmup: self.settings.warmup,
                    length: self.settings.turn,
                    servers: entrant.servers.clone(),
                    everyone: everyone.clone(),
                    core: self.settings.pinned_core,
                };
                let sample = self.turn(entrant, &plan).await?;
                let row = Row::new(workload, tasks, entrant.name, round).with_sample(&sample);
                say_turn(&row, sample.errors.first());
                self.rows.push(row);
            }
            kept += usize::from(judge(&mut self.rows[first..], self.settings.other_cpu_max));
        }
        Ok(())
    }

    /// One turn, repeated while others disturb it.
    async fn turn(&mut self, entrant: &mut Entrant, plan: &Plan) -> Result<Sample> {
        let mut sample = entrant.load.measure(plan).await?;
        for _ in 0..self.settings.repeats {
            if sample.other_cpu <= self.settings.other_cpu_max || self.is_over() {
                break;
            }
            self.disturbed += 1;
            let Sample { other_cpu, errors, .. } = sample;
            sample = entrant.load.measure(plan).await?;
            eprintln!("  {}: others used {other_cpu:.2} of a core; repeated", entrant.name);
            // An error is kept, whatever becomes of the turn.
            sample.errors.splice(0..0, errors);
        }
        Ok(sample)
    }
}

/// Who has a turn when: each round another one is the first.
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
    fn each_round_begins_with_another_contender() {
        let order = |round| order(round, 3).collect::<Vec<_>>();
        assert_eq!([order(0), order(1), order(5)], [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
    }

    #[test]
    fn one_disturbed_or_failed_turn_drops_its_round() {
        let row = |other_cpu| Row { other_cpu: Some(other_cpu), ..Row::new("get", 1, "x", 0) };
        let mut quiet = [row(0.0), row(0.1)];
        assert!(judge(&mut quiet, 0.1) && quiet.iter().all(|row| row.kept));
        let mut disturbed = [row(0.0), row(0.11)];
        assert!(!judge(&mut disturbed, 0.1) && disturbed.iter().all(|row| !row.kept));
        let mut failed = [Row { errors: 1, ..row(0.0) }, row(0.0)];
        assert!(!judge(&mut failed, 0.1));
    }
}
