//! The table of what is expected and seen.

use std::process::ExitCode;

/// Prints a line for each figure, and remembers the bars that are missed.
pub struct Report {
    missed: Vec<String>,
}

impl Report {
    /// Prints the head of the table.
    pub fn new() -> Self {
        println!("{:<44} {:>12} {:>12}", "", "expected", "seen");
        Self { missed: Vec::new() }
    }

    /// Reports a figure without a bar.
    pub fn note(&self, what: &str, seen: f64) {
        println!("{what:<44} {:>12} {:>12}", "", number(seen));
    }

    /// Reports a figure that should be at most this.
    pub fn most(&mut self, what: &str, bar: f64, seen: f64) {
        self.line(what, format!("<= {}", number(bar)), seen, seen <= bar);
    }

    /// Reports a figure that should be at least this.
    pub fn least(&mut self, what: &str, bar: f64, seen: f64) {
        self.line(what, format!(">= {}", number(bar)), seen, seen >= bar);
    }

    fn line(&mut self, what: &str, bar: String, seen: f64, is_reached: bool) {
        println!("{what:<44} {bar:>12} {:>12}", number(seen));
        if !is_reached {
            self.missed.push(format!("{}: {}, expected {bar}", what.trim(), number(seen)));
        }
    }

    /// Prints the bars that were missed. Returns the exit code.
    pub fn finish(self) -> ExitCode {
        self.missed.iter().for_each(|missed| println!("missed: {missed}"));
        if self.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The figure with two decimals if it is small.
fn number(figure: f64) -> String {
    if figure.fract() == 0.0 || figure.abs() >= 1_000.0 {
        format!("{figure:.0}")
    } else {
        format!("{figure:.2}")
    }
}

/// The middle of an odd number of figures, the upper one of the two in an even number.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// The time that this share of them does not exceed; not a number without any, which reaches no bar.
pub fn percentile(times: &mut [f64], share: f64) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    let at = (times.len() as f64 * share) as usize;
    times.get(at).or(times.last()).copied().unwrap_or(f64::NAN)
}
