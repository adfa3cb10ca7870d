//! The table of a demonstration.

use std::fmt;
use std::io::Write;

/// A claim, and whether it was seen to hold.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What it is about.
    pub what: String,
    /// What is expected.
    pub expected: String,
    /// What was seen.
    pub seen: String,
    /// Whether that is as expected.
    pub holds: bool,
}

/// What a demonstration found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The claims, in the order in which they were tried.
    pub claims: Vec<Claim>,
    /// What a reader has to know about the run.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    pub(super) fn claim(
        &mut self,
        what: &str,
        expected: impl Into<String>,
        seen: impl fmt::Display,
        holds: bool,
    ) {
        let claim = Claim {
            what: what.to_owned(),
            expected: expected.into(),
            seen: seen.to_string(),
            holds,
        };
        progress(&format!("{what}: {}", claim.seen));
        self.claims.push(claim);
    }

    pub(super) fn equal<T: PartialEq + fmt::Display>(&mut self, what: &str, expected: T, seen: T) {
        let holds = expected == seen;
        self.claim(what, expected.to_string(), seen, holds);
    }

    /// Whether every claim holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&Claim) -> &str, head: &str| {
            self.claims
                .iter()
                .map(|claim| text(claim).chars().count())
                .max()
                .unwrap_or(0)
                .max(head.len())
        };
        let (what, expected) =
            (width(|claim| &claim.what, "claim"), width(|claim| &claim.expected, "expected"));
        writeln!(out, "{:what$}  {:expected$}  seen", "claim", "expected")?;
        for claim in &self.claims {
            let wrong = if claim.holds { "" } else { "   WRONG" };
            writeln!(
                out,
                "{:what$}  {:expected$}  {}{wrong}",
                claim.what, claim.expected, claim.seen
            )?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "\n{note}"))
    }
}

/// Says on standard error what is going on.
pub(super) fn progress(text: &str) {
    // A closed pipe is no reason to stop.
    let _ = writeln!(std::io::stderr(), "  {text}");
}
