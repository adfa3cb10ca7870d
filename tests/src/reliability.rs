//! The measurements behind `docs/reliability.md`, on real processes in a [`Net`].
//!
//! Each takes its sizes from the caller: the program `reliability` uses large ones and prints the
//! figures, the tests use small ones and check what must hold.

pub mod agreement;
pub mod budgets;
pub mod copying;
pub mod detection;
pub mod frozen;
pub mod heal;
pub mod loss_window;
pub mod restarts;
pub mod steadiness;

use std::time::Duration;

use bytes::Bytes;

use crate::net::Net;
use crate::poll::{pass, time_until};
use crate::probes::Probes;

/// The sample of keys that must agree on all nodes before all keys are compared.
const SAMPLE: usize = 200;

/// The pause between two comparisons of all nodes' counts.
const POLL_PAUSE: Duration = Duration::from_millis(40);

/// Returns the time until the nodes `among` hold the same versions of all `keys`; none if they do
/// not within `bound`.
///
/// The moment is the one at which the counts of entries are the same everywhere and a sample
/// agrees; all keys are compared after that, and where some still differ the end of the comparison
/// counts.
///
/// # Panics
///
/// If a node does not answer.
pub fn time_to_agreement(
    net: &Net,
    among: &[usize],
    probes: &Probes,
    keys: &[Bytes],
    bound: Duration,
) -> Option<Duration> {
    let addresses: Vec<_> = among.iter().map(|n| net.address(*n)).collect();
    let step = (keys.len() / SAMPLE).max(1);
    let sample: Vec<Bytes> = keys.iter().step_by(step).cloned().collect();
    let counts_agree = || {
        let mut counts = among.iter().map(|n| net.cluster[*n].stat("entries"));
        let first = counts.next();
        counts.all(|count| Some(count) == first)
    };
    let sample_agrees = time_until(bound, || {
        // Looking costs the nodes as well.
        pass(POLL_PAUSE);
        counts_agree() && probes.disagreements(&addresses, &sample).is_empty()
    })?;
    let mut differing = probes.disagreements(&addresses, keys);
    if differing.is_empty() {
        return Some(sample_agrees);
    }
    let rest = time_until(bound.saturating_sub(sample_agrees), || {
        differing = probes.disagreements(&addresses, &differing);
        differing.is_empty()
    })?;
    Some(sample_agrees + rest)
}

/// The figure in the middle and the largest one, as text in milliseconds.
#[must_use]
pub fn median_and_max(figures: &[Duration]) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(middle), Some(most)) => {
            format!("median {} ms, most {} ms", middle.as_millis(), most.as_millis())
        }
        _ => "none".to_owned(),
    }
}
