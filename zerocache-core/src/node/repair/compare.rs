//! What one round compares: the digests of a window, step by step, down to the versions that differ.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use super::{
    fetch::KEYS_PER_REQUEST,
    serve::block_digests,
    sync_ages::{Partner, Verdict},
};
use crate::{
    key::{KeyHash, SHARDS},
    node::CallId,
    store::{Backend, KeyVersion, Store},
    time::{Instant, Now},
    version::Incarnation,
    wire::{BLOCK_SECONDS, Bucket, Digests, Lineage, Request, Resolution, Window},
};

/// How long differences get to disappear by themselves, in milliseconds.
const COMPARE_AGAIN_MS: u64 = 150;

/// With this many differing buckets, the cause is not that something is on its way.
const SURELY_DIFFERENT: usize = 1_024;

/// The most seconds whose shards are compared in one request.
pub(super) const SECONDS_PER_REQUEST: usize = 256;

/// The most buckets whose versions are requested at once.
const BUCKETS_PER_REQUEST: usize = 1_024;

/// The clocks of nodes in sync differ by this at most, in milliseconds: versions up to so far ahead are
/// being written.
pub(super) const CLOCKS_DIFFER_MS: u64 = 1_000;

/// What was written in the last seconds, so many, may still be on its way to a partner that lacks it.
pub(super) const IN_TRANSIT_SECONDS: u64 = 10;

/// The edge of a window: so many of its first seconds, but at most a quarter of it. Where one of the two nodes is
/// outdated, or may be, what is so old counts as older than the window: it could reach some nodes, and be too old for
/// rounds before it reaches all. Six region rounds.
const EDGE_SECONDS: u64 = 15;

/// The next step of a round, or the one in flight.
#[derive(Debug)]
pub(super) enum Step {
    Blocks,
    Seconds(Vec<u64>),
    /// The shards of seconds: those still to be compared, and the buckets found to differ.
    Shards {
        left: Vec<u64>,
        asked: Vec<u64>,
        differing: BTreeSet<Bucket>,
        /// The buckets that differed the first time, if this is the second.
        before: Option<BTreeSet<Bucket>>,
    },
    /// The versions in differing buckets: those still to be requested, by shard.
    Versions(Vec<Bucket>),
    /// The versions that are older than what is compared: the next shard, and those of this one.
    Verify {
        shard: usize,
        left: Vec<KeyVersion>,
        asked: Vec<KeyVersion>,
    },
    Done,
}

/// A round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) is_remote: bool,
    pub(super) began: Instant,
    pub(super) window: Window,
    /// Whether the edge of the window is compared.
    has_edge: bool,
    /// The last second to compare. Later versions are compared in a later round, except those of a clock
    /// that is far ahead.
    pub(super) last_second: u64,
    /// The first second that is far ahead.
    pub(super) ahead_from: u64,
    pub(super) partner: Partner,
    /// The placement for which the partner has offered everything.
    pub(super) placed: u64,
    pub(super) step: Step,
    pub(super) call: Option<CallId>,
    /// Nothing is requested before.
    pub(super) waits_until: Instant,
    pub(super) wanted: VecDeque<KeyVersion>,
    pub(super) fetches: BTreeMap<CallId, Vec<KeyVersion>>,
    /// Whether nothing was left to another round.
    pub(super) is_complete: bool,
    /// How this node compares with its partner, once that is judged.
    pub(super) verdict: Option<Verdict>,
    /// Whether this node, being outdated, has begun to drop what the partner does not know.
    pub(super) drops: bool,
}

impl Round {
    /// A round that has not begun to compare.
    pub(super) fn new(
        id: Incarnation,
        is_remote: bool,
        now: Now,
        (window, last_second): (Window, u64),
    ) -> Self {
        let lineage = Lineage { origin: id, age_ms: 0 };
        Self {
            is_remote,
            began: now.mono,
            window,
            has_edge: false,
            last_second,
            ahead_from: now.wall_ms.saturating_add(CLOCKS_DIFFER_MS) / 1_000 + 1,
            partner: Partner { id, lived_ms: 0, lineage, ages: Vec::new() },
            placed: 0,
            step: Step::Blocks,
            call: None,
            waits_until: now.mono,
            wanted: VecDeque::new(),
            fetches: BTreeMap::new(),
            is_complete: true,
            verdict: None,
            drops: false,
        }
    }

    /// The keys that are being fetched, or about to be.
    pub(super) fn keys_in_flight(self) -> impl Iterator<Item = KeyHash> {
        let in_flight = self.fetches.into_values().flatten();
        self.wanted.into_iter().chain(in_flight).map(|version| version.0)
    }

    /// Whether everything is compared that the window covers, and this node is to drop what the partner does not know
    /// of the rest.
    pub(super) fn is_about_to_drop(&self) -> bool {
        let has_compared = matches!(self.step, Step::Verify { .. } | Step::Done);
        has_compared && self.verdict == Some(Verdict::Outdated) && !self.drops
    }

    /// Has the whole window compared: neither of the two nodes is outdated.
    pub(super) fn compare_edge(&mut self) {
        self.has_edge = true;
    }

    /// The first second of versions that are compared. Of what is older the source of an outdated node decides, but for
    /// what may still be on its way to that source.
    fn first_compared(&self) -> u64 {
        let from = self.window.from;
        let edge = EDGE_SECONDS.min(self.last_second.saturating_sub(from) / 4);
        if self.has_edge { from } else { from.saturating_add(edge) }
    }

    /// The first second of versions that an outdated node keeps, whatever its source knows.
    fn first_dropped(&self) -> u64 {
        self.first_compared().min(self.last_second.saturating_sub(IN_TRANSIT_SECONDS))
    }

    /// The first second of versions about which an outdated node remembers deletes.
    pub(super) fn first_known(&self) -> u64 {
        self.window.from.min(self.last_second.saturating_sub(IN_TRANSIT_SECONDS))
    }

    /// The next request; `None` if the round has nothing more to ask.
    pub(super) fn next_request<B: Backend>(
        &mut self,
        store: &Store<B>,
        last_sync: Option<Instant>,
    ) -> Option<Request> {
        let window = self.window;
        let (known, first) = (self.first_known(), self.first_dropped());
        let digests =
            |resolution, last_sync_ms| Some(Request::Digests { window, resolution, last_sync_ms });
        loop {
            match &mut self.step {
                Step::Blocks => {
                    let last_sync_ms = last_sync.map(|at| self.began.since_ms(at));
                    return digests(Resolution::Blocks, last_sync_ms);
                }
                Step::Seconds(blocks) => return digests(Resolution::Seconds(blocks.clone()), None),
                Step::Shards { left, asked, .. } => {
                    let most = left.len().min(SECONDS_PER_REQUEST);
                    *asked = left.drain(..most).collect();
                    return digests(Resolution::Shards(asked.clone()), None);
                }
                Step::Versions(buckets) if buckets.is_empty() => {
                    self.step = match self.verdict == Some(Verdict::Outdated) {
                        true => Step::Verify { shard: 0, left: Vec::new(), asked: Vec::new() },
                        false => Step::Done,
                    };
                }
                Step::Versions(buckets) => {
                    let most = buckets.len().min(BUCKETS_PER_REQUEST);
                    return Some(Request::BucketVersions(buckets[..most].to_vec()));
                }
                Step::Verify { shard, left, asked } => {
                    while left.is_empty() && *shard < SHARDS {
                        *left = store.versions_before(*shard, first, known);
                        *shard += 1;
                    }
                    if left.is_empty() {
                        self.step = Step::Done;
                        return None;
                    }
                    let most = left.len().min(KEYS_PER_REQUEST);
                    *asked = left.drain(..most).collect();
                    let keys = asked.iter().map(|version| version.0);
                    return Some(Request::KeyVersions(keys.collect()));
                }
                Step::Done => return None,
            }
        }
    }

    /// The step after the digests of blocks; `None` if the partner's are not comparable.
    pub(super) fn compare_blocks<B: Backend>(
        &self,
        store: &Store<B>,
        theirs: &Digests,
    ) -> Option<Step> {
        if self.window.from > self.window.to {
            return Some(Step::Versions(Vec::new()));
        }
        // The partner's digests begin where it knows everything; what is before both know it is left out.
        let window = Window { from: theirs.from_second, ..self.window };
        let own = block_digests(window, &store.digests_by_second(window.from, window.to));
        if own.len() != theirs.digests.len() {
            return None;
        }
        let first = self.first_compared() / BLOCK_SECONDS;
        let mut blocks = differing(window.blocks(), &own, &theirs.digests);
        blocks.retain(|block| *block >= first);
        let is_equal = blocks.is_empty();
        Some(if is_equal { Step::Versions(Vec::new()) } else { Step::Seconds(blocks) })
    }

    /// The step after the digests of the seconds of `blocks`.
    pub(super) fn compare_seconds<B: Backend>(
        &self,
        store: &Store<B>,
        blocks: &[u64],
        theirs: &Digests,
    ) -> Option<Step> {
        let window = Window { from: theirs.from_second, ..self.window };
        let windows = blocks.iter().map(|block| window.of_block(*block));
        let own = windows.clone().flat_map(|w| store.digests_by_second(w.from, w.to));
        let own: Vec<_> = own.collect();
        if own.len() != theirs.digests.len() {
            return None;
        }
        let mut left = differing(windows.flat_map(|w| w.from..=w.to), &own, &theirs.digests);
        let is_compared = |second: u64| second <= self.last_second || second >= self.ahead_from;
        let first = self.first_compared();
        left.retain(|second| *second >= first && is_compared(*second));
        Some(shards_of(left, None))
    }

    /// The step after the digests of the shards in the seconds `asked`.
    pub(super) fn compare_shards<B: Backend>(
        &mut self,
        (store, now): (&Store<B>, Instant),
        (left, asked): (Vec<u64>, Vec<u64>),
        (mut differing, before): (BTreeSet<Bucket>, Option<BTreeSet<Bucket>>),
        theirs: &Digests,
    ) -> Option<Step> {
        if theirs.digests.len() != asked.len() * SHARDS {
            return None;
        }
        let own = store.digests_by_shard(&asked);
        let both = own.chunks_exact(SHARDS).zip(theirs.digests.chunks_exact(SHARDS));
        let both = asked.iter().zip(both);
        let first = self.first_compared();
        for (second, (own, theirs)) in both.filter(|(s, _)| **s >= first) {
            let shards = (0..SHARDS).filter(|shard| own[*shard] != theirs[*shard]);
            let bucket = |shard| Bucket { second: *second, shard: shard as u8 };
            differing.extend(shards.map(bucket));
        }
        Some(match before {
            _ if !left.is_empty() => Step::Shards { left, asked: Vec::new(), differing, before },
            None if differing.len() < SURELY_DIFFERENT && !differing.is_empty() => {
                self.waits_until = now.plus_ms(COMPARE_AGAIN_MS);
                let seconds: BTreeSet<_> = differing.iter().map(|b| b.second).collect();
                shards_of(seconds.into_iter().collect(), Some(differing))
            }
            before => {
                let is_old = |bucket: &Bucket| before.as_ref().is_none_or(|b| b.contains(bucket));
                let mut buckets: Vec<_> = differing.into_iter().filter(is_old).collect();
                // By shard: the partner scans each of its shards once.
                buckets.sort_unstable_by_key(|bucket| (bucket.shard, bucket.second));
                Step::Versions(buckets)
            }
        })
    }
}

fn differing(places: impl Iterator<Item = u64>, own: &[u64], theirs: &[u64]) -> Vec<u64> {
    let both = own.iter().zip(theirs);
    places.zip(both).filter(|(_, (own, theirs))| own != theirs).map(|(place, _)| place).collect()
}

fn shards_of(seconds: Vec<u64>, before: Option<BTreeSet<Bucket>>) -> Step {
    if seconds.is_empty() {
        return Step::Versions(Vec::new());
    }
    Step::Shards { left: seconds, asked: Vec::new(), differing: BTreeSet::new(), before }
}
