//! The table of calls, with their expected and actual outcomes.

use std::net::SocketAddr;
use std::time::Duration;

use zerocache_client::ops::Tier;

/// The outcome of a call.
pub struct Observation {
    /// The region of the caller.
    pub region: String,
    /// The tier whose node had the value; none if no node had it.
    pub tier: Option<Tier>,
    /// The run of the function that returned the value.
    pub run: u64,
    /// The function ran for this call.
    pub ran: bool,
    /// The node that had the value.
    pub node: Option<SocketAddr>,
    /// The duration of the call.
    pub took: Duration,
}

enum Row {
    Call { step: &'static str, seen: Observation, wrong: Option<String> },
    Note(String),
}

/// All steps so far.
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// An empty report.
    pub fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a call with its expected outcome: the tier of a hit, or none for a computation, and the run
    /// whose value it should have.
    pub fn expect(
        &mut self,
        step: &'static str,
        (tier, run): (Option<Tier>, u64),
        seen: Observation,
    ) {
        let local = |tier: Option<Tier>| tier.is_some_and(|tier| tier <= Tier::NextLocal);
        let wrong = if seen.ran != tier.is_none() {
            Some(if seen.ran { "computed again" } else { "not computed" }.to_owned())
        } else if tier.is_some() && !local(seen.tier) {
            Some(format!("answered by {:?}, not by a local node", seen.tier))
        } else if seen.run != run {
            Some(format!("has the value of run {}, not of run {run}", seen.run))
        } else {
            None
        };
        self.rows.push(Row::Call { step, seen, wrong });
    }

    /// Adds a line between the calls.
    pub fn note(&mut self, text: String) {
        self.rows.push(Row::Note(text));
    }

    /// Prints all rows. Returns whether every step had its expected outcome.
    pub fn print(&self) -> bool {
        println!("{:<28} {:<8} {:<9} {:<18} {:>10}", "step", "from", "result", "node", "time");
        let mut failed = 0;
        for row in &self.rows {
            match row {
                Row::Note(text) => println!("  {text}"),
                Row::Call { step, seen, wrong } => {
                    let result = if seen.ran { "computed" } else { "hit" };
                    let node = seen.node.map_or_else(|| "-".to_owned(), |node| node.to_string());
                    let time = format!("{} µs", seen.took.as_micros());
                    println!("{step:<28} {:<8} {result:<9} {node:<18} {time:>10}", seen.region);
                    if let Some(wrong) = wrong {
                        failed += 1;
                        println!("  FAILED: {wrong}");
                    }
                }
            }
        }
        match failed {
            0 => println!("\nEvery step did what it should."),
            1 => println!("\n1 step did not do what it should."),
            n => println!("\n{n} steps did not do what they should."),
        }
        failed == 0
    }
}
