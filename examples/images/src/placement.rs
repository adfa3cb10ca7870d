//! The worker for an original: rendezvous hashing, so that all sizes of one original meet the memory of one worker,
//! and one worker more or fewer moves only its own share.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::source::SourceHash;

/// The shortest time for which a worker that did not answer is asked last.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest such time.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The most workers that are known.
pub const WORKERS_MAX: usize = 64;

/// A worker as gateways know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerAddress {
    /// Its name, which decides what it is asked for.
    pub name: String,
    /// Where it listens: `HOST:PORT`.
    pub address: String,
}

/// Returns the workers in the order in which they are asked for an original.
#[must_use]
pub fn ranked(workers: &[WorkerAddress], hash: SourceHash) -> Vec<&WorkerAddress> {
    let mut ranked: Vec<_> =
        workers.iter().map(|worker| (score(&worker.name, hash), worker)).collect();
    ranked.sort_by(|(a, worker), (b, other)| b.cmp(a).then_with(|| worker.name.cmp(&other.name)));
    ranked.into_iter().map(|(_, worker)| worker).collect()
}

fn score(name: &str, hash: SourceHash) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&hash.0).update(name.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(bytes)
}

/// The workers that a gateway knows, and those that did not answer.
#[derive(Debug, Default)]
pub struct Workers {
    known: Vec<WorkerAddress>,
    /// The times until which workers are asked last.
    paused: HashMap<String, Instant>,
}

impl Workers {
    /// Replaces the workers.
    pub fn set(&mut self, mut known: Vec<WorkerAddress>) {
        known.truncate(WORKERS_MAX);
        self.paused.retain(|name, _| known.iter().any(|worker| worker.name == *name));
        self.known = known;
    }

    /// Returns the workers.
    #[must_use]
    pub fn known(&self) -> &[WorkerAddress] {
        &self.known
    }

    /// Returns the workers in the order in which they are asked; those that did not answer lately come last.
    #[must_use]
    pub fn for_original(&self, hash: SourceHash, now: Instant) -> Vec<WorkerAddress> {
        let mut ranked = ranked(&self.known, hash);
        let is_paused =
            |worker: &&WorkerAddress| self.paused.get(&worker.name).is_some_and(|end| now < *end);
        ranked.sort_by_key(is_paused);
        ranked.into_iter().cloned().collect()
    }

    /// Notes that a worker did not answer within the time that was waited: it is asked last for as long again, so that
    /// one that is frozen delays half of the time at most.
    pub fn note_failure(&mut self, name: &str, now: Instant, waited: Duration) {
        if self.known.iter().any(|worker| worker.name == name) {
            self.paused.insert(name.to_owned(), now + waited.clamp(PAUSE, PAUSE_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;
    use crate::source::Source;

    fn workers(count: usize) -> Vec<WorkerAddress> {
        let worker =
            |n| WorkerAddress { name: format!("worker-{n}"), address: format!("10.0.0.{n}:8080") };
        (1..=count).map(worker).collect()
    }

    fn originals(count: usize) -> Vec<SourceHash> {
        let source = |n| Source::parse(&format!("https://example.org/{n}.jpg")).expect("a source");
        (0..count).map(|n| source(n).hash()).collect()
    }

    #[test]
    fn originals_are_spread_evenly() {
        let (workers, originals) = (workers(3), originals(20_000));
        let mut counts: HashMap<_, usize> = HashMap::new();
        for hash in &originals {
            *counts.entry(&ranked(&workers, *hash)[0].name).or_default() += 1;
        }
        let most = counts.values().max().expect("a worker");
        assert!(*most as f64 <= 1.05 * originals.len() as f64 / 3.0, "{counts:?}");
    }

    #[test]
    fn one_worker_more_takes_its_share_and_moves_nothing_else() {
        let (three, four) = (workers(3), workers(4));
        let originals = originals(10_000);
        let moved: Vec<_> = originals
            .iter()
            .filter(|hash| ranked(&three, **hash)[0] != ranked(&four, **hash)[0])
            .collect();
        assert!((2_200..2_800).contains(&moved.len()), "{} moved", moved.len());
        assert!(moved.iter().all(|hash| ranked(&four, **hash)[0].name == "worker-4"));
    }

    #[test]
    fn worker_that_did_not_answer_is_asked_last_for_a_while() {
        let mut known = Workers::default();
        known.set(workers(3));
        let (hash, begin) = (originals(1)[0], now());
        let first = known.for_original(hash, begin)[0].clone();
        known.note_failure(&first.name, begin, Duration::ZERO);
        known.note_failure("nobody", begin, Duration::ZERO);
        let order = known.for_original(hash, begin + PAUSE / 2);
        assert_eq!((order.len(), &order[2]), (3, &first));
        assert_eq!(known.for_original(hash, begin + PAUSE)[0], first);
        // The longer it was waited for, the longer it is avoided.
        known.note_failure(&first.name, begin, 30 * PAUSE);
        assert_eq!(known.for_original(hash, begin + 29 * PAUSE)[2], first);
        assert_eq!(known.for_original(hash, begin + 30 * PAUSE)[0], first);
    }
}
