//! One round with one partner, on the side of the one who asks.
//!
//! Digests of blocks, then of the seconds of those blocks that differ, then of the shards in those seconds;
//! a moment later the shards again, because what was just written differs until it has arrived. Then the
//! rows of the buckets that still differ, and the values that are newer there. Whoever finds out that it
//! is outdated then asks for the versions of all its older values.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use super::{
    Asked, Effect, Node, Repair,
    ages::{Partner, Verdict, is_older},
    fetch::KEYS_ASKED_MAX,
    serve::block_sums,
};
use crate::{
    call::CallResult,
    clock::AHEAD_MS_MAX,
    key::{KeyHash, SHARDS},
    node::{Call, CallId, Clocks, Event},
    store::{Backend, KeyVersion},
    time::{Instant, Now},
    version::Incarnation,
    wire::{
        BLOCK_SECONDS, Bucket, Digests, Lineage, NodeState, Request, Resolution, Response, Window,
    },
};

/// How long a question may take, in milliseconds; three round trips are added.
const QUESTION_TIMEOUT_MS: u64 = 1_500;

/// How long what differs is given to arrive by itself, in milliseconds.
const AGAIN_AFTER_MS: u64 = 150;

/// So many buckets do not differ because something is on its way.
const SURELY_DIFFERENT: usize = 1_024;

/// Most seconds of which one question asks for the shards, and is answered.
pub(super) const SECONDS_ASKED_MAX: usize = 256;

/// Most buckets of which one question asks for the rows.
const BUCKETS_ASKED_MAX: usize = 1_024;

/// With so many rows known to be newer at the partner, no more are asked for.
const WANTED_MAX: usize = 65_536;

/// Stamps that are further ahead of the clock are no matter of a moment, in milliseconds.
const AHEAD_OF_CLOCK_MS: u64 = 500;

/// Clocks of nodes in sync differ by this at most, in milliseconds: what is stamped up to so far ahead is
/// being written.
const CLOCKS_DIFFER_MS: u64 = 1_000;

/// What was written in so many seconds may still be on its way to a partner that does not know it.
const UNSETTLED_SECONDS: u64 = 10;

/// The window begins this much later than what is known begins, in seconds: that moves on while the
/// round goes on.
const MARGIN_SECONDS: u64 = 2;

/// What a round is about to ask, or has asked.
#[derive(Debug)]
enum Step {
    Blocks,
    Seconds(Vec<u64>),
    /// The shards of seconds: those still to be asked for, and the buckets found to differ.
    Shards {
        left: Vec<u64>,
        asked: Vec<u64>,
        differing: BTreeSet<Bucket>,
        /// What differed the first time, when this is the second.
        before: Option<BTreeSet<Bucket>>,
    },
    /// The rows of differing buckets: those still to be asked for, by shard.
    Rows(Vec<Bucket>),
    /// The versions of values older than the window: the next shard, and those of this one.
    Doubts {
        shard: usize,
        left: Vec<KeyVersion>,
        asked: Vec<KeyVersion>,
    },
    Done,
}

/// A round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) far: bool,
    begun: Instant,
    window: Window,
    /// What was stamped after this second comes with a later round, but for what a clock far ahead stamped.
    over: u64,
    /// The first second that is far ahead.
    ahead: u64,
    pub(super) partner: Partner,
    step: Step,
    question: Option<CallId>,
    /// Nothing is asked before.
    waits_until: Instant,
    pub(super) wanted: VecDeque<KeyVersion>,
    pub(super) fetches: BTreeMap<CallId, Vec<KeyVersion>>,
    /// Whether nothing was left to another round.
    pub(super) is_whole: bool,
    /// What this node is beside its partner, once that is judged.
    verdict: Option<Verdict>,
}

impl Round {
    /// The keys that are being fetched or about to be.
    pub(super) fn under_way(self) -> impl Iterator<Item = KeyHash> {
        self.wanted.into_iter().chain(self.fetches.into_values().flatten()).map(|row| row.0)
    }
}

/// What comes of an answer.
enum Next {
    Ask,
    Cut,
}

impl<B: Backend> Node<B> {
    pub(super) fn begin_round(
        &mut self,
        now: Now,
        id: Incarnation,
        far: bool,
        out: &mut Vec<Effect>,
    ) {
        let mut from = self.store.first_complete_second(now) + MARGIN_SECONDS;
        if !self.repair.start.is_done() {
            // What is older it copies.
            let starting_ms = now.mono.since_ms(self.warm_since);
            let begun = now.wall_ms.saturating_sub(starting_ms) / 1_000;
            from = from.max(begun.saturating_sub(UNSETTLED_SECONDS));
        }
        // To the last second that was over half a second ago. While stamps run ahead of the clock, because
        // it went back, they are all of one second that will not be over for long.
        let stamped_ms = self.clock.last().wall_ms();
        let to = match stamped_ms > now.wall_ms + AHEAD_OF_CLOCK_MS {
            true => stamped_ms / 1_000,
            false => now.wall_ms.saturating_sub(1_499) / 1_000,
        };
        let over = to.max(from);
        // What a clock ahead stamped is not over for up to a minute, and may be lacked already.
        let last = now.wall_ms.saturating_add(AHEAD_MS_MAX) / 1_000 + 1;
        let window = Window { from, to: over.max(last) };
        let ahead = now.wall_ms.saturating_add(CLOCKS_DIFFER_MS) / 1_000 + 1;
        let line = Lineage { origin: id, age_ms: 0 };
        let partner = Partner { id, lived_ms: 0, line, ages: Vec::new() };
        let round = Round {
            far,
            begun: now.mono,
            window,
            over,
            ahead,
            partner,
            step: Step::Blocks,
            question: None,
            waits_until: now.mono,
            wanted: VecDeque::new(),
            fetches: BTreeMap::new(),
            is_whole: true,
            verdict: None,
        };
        self.repair.rounds.insert(id, round);
        self.go_on(now, id, out);
    }

    /// Asks what is to be asked next.
    pub(super) fn go_on(&mut self, now: Now, id: Incarnation, out: &mut Vec<Effect>) {
        let Some(mut round) = self.repair.rounds.remove(&id) else { return };
        if !self.view.member(id).is_some_and(|member| self.is_partner(member)) {
            return self.cut(now, round);
        }
        self.fetch(now, &mut round, out);
        while round.question.is_none() && round.waits_until <= now.mono {
            if round.wanted.len() > WANTED_MAX {
                break;
            }
            let Some(request) = self.next_question(&mut round) else { break };
            let purpose = Call::Repair { member: id, asked: Asked::Question };
            let timeout_ms = QUESTION_TIMEOUT_MS;
            round.question = self.ask(id, purpose, request, timeout_ms, out);
            if round.question.is_none() {
                return self.cut(now, round);
            }
        }
        if round.question.is_none() && round.waits_until > now.mono {
            self.repair_by(round.waits_until);
        }
        let over = matches!(round.step, Step::Done) && round.question.is_none();
        if over && round.wanted.is_empty() && round.fetches.is_empty() {
            return self.finish(now, round, out);
        }
        self.repair.rounds.insert(id, round);
    }

    pub(super) fn ask(
        &mut self,
        id: Incarnation,
        purpose: Call,
        request: Request,
        timeout_ms: u64,
        out: &mut Vec<Effect>,
    ) -> Option<CallId> {
        let member = self.view.member(id)?;
        let to = (member.address, Some(id));
        let timeout_ms = timeout_ms + 3 * member.latency.micros().unwrap_or(0) / 1_000;
        Some(self.call(purpose, to, request, timeout_ms, out))
    }

    fn next_question(&mut self, round: &mut Round) -> Option<Request> {
        loop {
            match &mut round.step {
                Step::Blocks => {
                    let had = self.repair.ages.of(round.partner.id);
                    let had_ms = had.map(|at| round.begun.since_ms(at));
                    let window = round.window;
                    return Some(Request::Digests {
                        window,
                        resolution: Resolution::Blocks,
                        last_sync_ms: had_ms,
                    });
                }
                Step::Seconds(blocks) => {
                    let resolution = Resolution::Seconds(blocks.clone());
                    return Some(Request::Digests {
                        window: round.window,
                        resolution,
                        last_sync_ms: None,
                    });
                }
                Step::Shards { left, asked, .. } => {
                    let most = left.len().min(SECONDS_ASKED_MAX);
                    *asked = left.drain(..most).collect();
                    let resolution = Resolution::Shards(asked.clone());
                    return Some(Request::Digests {
                        window: round.window,
                        resolution,
                        last_sync_ms: None,
                    });
                }
                Step::Rows(buckets) if buckets.is_empty() => {
                    round.step = match round.verdict == Some(Verdict::Outdated) {
                        true => Step::Doubts { shard: 0, left: Vec::new(), asked: Vec::new() },
                        false => Step::Done,
                    };
                }
                Step::Rows(buckets) => {
                    let most = buckets.len().min(BUCKETS_ASKED_MAX);
                    return Some(Request::BucketVersions(buckets[..most].to_vec()));
                }
                Step::Doubts { shard, left, asked } => {
                    while left.is_empty() && *shard < SHARDS {
                        // Nothing that may still be on its way to the partner.
                        let settled = round.over.saturating_sub(UNSETTLED_SECONDS);
                        let before = round.window.from.min(settled);
                        *left = self.store.values_before(*shard, before);
                        *shard += 1;
                    }
                    if left.is_empty() {
                        round.step = Step::Done;
                        return None;
                    }
                    let most = left.len().min(KEYS_ASKED_MAX);
                    *asked = left.drain(..most).collect();
                    return Some(Request::KeyVersions(asked.iter().map(|row| row.0).collect()));
                }
                Step::Done => return None,
            }
        }
    }

    /// The answer to a question of a round.
    pub(super) fn question_answered(
        &mut self,
        now: Now,
        call: CallId,
        id: Incarnation,
        result: CallResult,
    ) {
        let asked = |round: &mut Round| round.question.take_if(|question| *question == call);
        let Some((mut round, _)) = self.repair.take_if(id, asked) else { return };
        let next = match result {
            Ok(Response::Digests(sums)) => self.take_sums(now, &mut round, sums),
            Ok(Response::Versions { versions: rows, covered }) => {
                self.take_rows(&mut round, rows, covered)
            }
            Ok(_) | Err(_) => Next::Cut,
        };
        match next {
            Next::Ask => drop(self.repair.rounds.insert(id, round)),
            Next::Cut => self.cut(now, round),
        }
    }

    fn take_sums(&mut self, now: Now, round: &mut Round, told: Digests) -> Next {
        // Digests of what was not asked for would size what they are compared with; and those of somebody of
        // another time say nothing.
        if told.from_second < round.window.from || !Clocks::is_of_now(now, told.from_second) {
            return Next::Cut;
        }
        let step = core::mem::replace(&mut round.step, Step::Done);
        // Traces may have been forgotten meanwhile: older seconds are not compared, because one of the two
        // does not know everything of them.
        round.window.from =
            round.window.from.max(told.from_second).max(self.store.first_complete_second(now));
        match step {
            Step::Blocks => {
                let line = told.lineage.unwrap_or(round.partner.line);
                round.partner = Partner {
                    lived_ms: told.lived_ms,
                    line,
                    ages: told.sync_ages,
                    id: round.partner.id,
                };
                self.judge(now, round);
                if round.window.from > round.window.to {
                    round.step = Step::Rows(Vec::new());
                    return Next::Ask;
                }
                // The partner's sums begin where it knows everything; what is before both know it is left out.
                let theirs = Window { from: told.from_second, ..round.window };
                let own = block_sums(theirs, &self.store.digests_by_second(theirs.from, theirs.to));
                if own.len() != told.digests.len() {
                    return Next::Cut;
                }
                let first = round.window.from / BLOCK_SECONDS;
                let mut blocks = differing(theirs.blocks(), &own, &told.digests);
                blocks.retain(|block| *block >= first);
                round.step =
                    if blocks.is_empty() { Step::Rows(Vec::new()) } else { Step::Seconds(blocks) };
            }
            Step::Seconds(blocks) => {
                let theirs = Window { from: told.from_second, ..round.window };
                let windows = blocks.iter().map(|block| theirs.of_block(*block));
                let own: Vec<_> = windows
                    .clone()
                    .flat_map(|w| self.store.digests_by_second(w.from, w.to))
                    .collect();
                if own.len() != told.digests.len() {
                    return Next::Cut;
                }
                let mut left = differing(windows.flat_map(|w| w.from..=w.to), &own, &told.digests);
                let is_compared = |second: u64| second <= round.over || second >= round.ahead;
                left.retain(|second| *second >= round.window.from && is_compared(*second));
                round.step = shards_of(left, None);
            }
            Step::Shards { left, asked, mut differing, before } => {
                if told.digests.len() != asked.len() * SHARDS {
                    return Next::Cut;
                }
                let own = self.store.digests_by_shard(&asked);
                let both = own.chunks_exact(SHARDS).zip(told.digests.chunks_exact(SHARDS));
                let both = asked.iter().zip(both);
                for (second, (own, theirs)) in both.filter(|(s, _)| **s >= round.window.from) {
                    let shards = (0..SHARDS).filter(|shard| own[*shard] != theirs[*shard]);
                    differing
                        .extend(shards.map(|shard| Bucket { second: *second, shard: shard as u8 }));
                }
                round.step = match before {
                    _ if !left.is_empty() => {
                        Step::Shards { left, asked: Vec::new(), differing, before }
                    }
                    None if differing.len() < SURELY_DIFFERENT && !differing.is_empty() => {
                        round.waits_until = now.mono.plus_ms(AGAIN_AFTER_MS);
                        let seconds: BTreeSet<_> = differing.iter().map(|c| c.second).collect();
                        shards_of(seconds.into_iter().collect(), Some(differing))
                    }
                    before => {
                        let is_old =
                            |bucket: &Bucket| before.as_ref().is_none_or(|b| b.contains(bucket));
                        let mut buckets: Vec<_> = differing.into_iter().filter(is_old).collect();
                        // By shard: the partner searches each of its shards once.
                        buckets.sort_unstable_by_key(|bucket| (bucket.shard, bucket.second));
                        Step::Rows(buckets)
                    }
                };
            }
            Step::Rows(_) | Step::Doubts { .. } | Step::Done => return Next::Cut,
        }
        Next::Ask
    }

    /// Finds out whether this node is outdated, if it is not about to copy anyway and not still to hear
    /// of whom it has had everything.
    fn judge(&mut self, now: Now, round: &mut Round) {
        let id = round.partner.id;
        let base = self.base();
        if !self.repair.start.is_done() || base.is_some_and(|base| base.source != id) {
            return;
        }
        let member = self.view.member(id);
        let in_sync = member.is_some_and(|member| member.info.state == NodeState::InSync);
        let verdict = match base.is_none() && in_sync && self.store.detects_outdated() {
            true => {
                let from_ms = round.window.from.saturating_mul(1_000);
                self.itself(now).compare(&round.partner, now.wall_ms.saturating_sub(from_ms))
            }
            false => Verdict::Equal,
        };
        if verdict == Verdict::Outdated {
            self.owe(id);
        }
        round.verdict = Some(verdict);
    }

    fn take_rows(&mut self, round: &mut Round, rows: Vec<KeyVersion>, covered: u64) -> Next {
        let covered = usize::try_from(covered).unwrap_or(usize::MAX);
        match &mut round.step {
            Step::Rows(buckets) if covered > 0 && covered <= buckets.len() => {
                buckets.drain(..covered);
                for row in rows {
                    self.want(round, row);
                }
            }
            Step::Doubts { asked, .. } if covered == asked.len() => {
                let doubted = core::mem::take(asked);
                let known: BTreeMap<_, _> = rows.into_iter().collect();
                for (key, version) in doubted {
                    match known.get(&key) {
                        Some(theirs) => self.want(round, (key, *theirs)),
                        // Deleted or evicted, who knows: it cannot be told from what was deleted.
                        None => {
                            let gone = self.erase(key, version);
                            self.repair.counts.entries_dropped += u64::from(gone);
                        }
                    }
                }
            }
            _ => return Next::Cut,
        }
        Next::Ask
    }

    /// A round that ends early.
    pub(super) fn cut(&mut self, now: Now, round: Round) {
        self.repair.counts.rounds_aborted += 1;
        let (id, far) = (round.partner.id, round.far);
        self.no_longer_fetching(round.under_way());
        if far {
            self.turn_failed(now, id);
        }
    }

    /// A round that came to its end: what the partner knew when it began is known here, if this node is not
    /// outdated.
    fn finish(&mut self, now: Now, round: Round, out: &mut Vec<Effect>) {
        let id = round.partner.id;
        let starts = !self.repair.start.is_done();
        let Repair { peers, ages, counts, base, line, alone_since, .. } = &mut self.repair;
        match &round.verdict {
            // It has copied since.
            Some(Verdict::Outdated) if round.begun < *alone_since => counts.rounds_aborted += 1,
            Some(Verdict::Outdated) => {
                counts.full_resyncs += 1;
                let entries_dropped = counts.entries_dropped;
                out.push(Effect::Event(Event::FullResync { peer: id, entries_dropped }));
                self.copy_again(now, id, out);
            }
            verdict if round.is_whole && (starts || verdict.is_some()) => {
                counts.rounds_completed += 1;
                let peer = super::Peer { next: now.mono.plus_ms(1_000), completed: None };
                let peer = peers.entry(id).or_insert(peer);
                peer.completed = Some(round.begun);
                if let Some(verdict) = verdict {
                    let partner = &round.partner;
                    ages.merge(self.config.info.incarnation, (partner, verdict), round.begun);
                    let theirs = (partner.line.origin, round.begun.minus_ms(partner.line.age_ms));
                    let own = Lineage { origin: line.0, age_ms: round.begun.since_ms(line.1) };
                    let is_base = base.take_if(|base| base.source == id).is_some();
                    if is_base {
                        self.clocks.since = self.clocks.since.min(theirs.1);
                    }
                    // Both know the same now: they are of one line.
                    if is_base || is_older(partner.line, own) {
                        *line = theirs;
                    }
                }
            }
            _ => counts.rounds_aborted += 1,
        }
        if self.state != NodeState::Leaving {
            self.judge_misses(now);
        }
    }
}

fn differing(places: impl Iterator<Item = u64>, own: &[u64], theirs: &[u64]) -> Vec<u64> {
    let both = own.iter().zip(theirs);
    places.zip(both).filter(|(_, (own, theirs))| own != theirs).map(|(place, _)| place).collect()
}

fn shards_of(seconds: Vec<u64>, before: Option<BTreeSet<Bucket>>) -> Step {
    if seconds.is_empty() {
        return Step::Rows(Vec::new());
    }
    Step::Shards { left: seconds, asked: Vec::new(), differing: BTreeSet::new(), before }
}
