//! The lookup of a key, alone for all callers in this process.
//!
//! Everything here is `Send + 'static` whatever the function is: it needs the key, not the call.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use zerocache_core::metadata::Freshness;
use zerocache_net::clock;

use super::BoxFuture;
use super::flight::{self, Follower, Leader, Progress, Role, WaitExpired, Waiting};
use super::outage;
use super::rule::SharedError;
use super::stored::{BaseEntry, Payload, StoredEntry};
use crate::client::{ExplainedGet, ReadAnswer, ReadReport};
use crate::counters::count;
use crate::wait::or_forever;
use crate::{Error, ErrorKind, ZerocacheClient};

/// The bound of a caller's wait in all, whoever leads meanwhile, as a multiple of the bound of one wait: five
/// minutes by default.
const WAITS_MAX: u32 = 30;

/// Returns the bound of a caller's wait in all, for a bound of one wait.
pub(super) fn wait_in_all(wait: Duration) -> Duration {
    wait.saturating_mul(WAITS_MAX)
}

/// The outcome of a lookup.
pub(crate) enum LookupOutcome {
    /// An entry; a leader must find out if it decodes.
    Entry(StoredEntry),
    /// A value that another caller computed meanwhile, or serves while it computes.
    Coalesced { payload: Payload, is_stale: bool },
    /// A value of the near cache, because no node answers.
    Outage(Payload),
    /// An error that another caller's computation returned meanwhile.
    Failed(SharedError),
    /// No servable entry. An entry here may be served if computing fails.
    Miss(Option<StoredEntry>),
}

/// A finished lookup.
pub(crate) struct Lookup {
    pub(crate) outcome: LookupOutcome,
    /// The right to compute the value for all callers.
    pub(crate) leader: Option<Leader>,
    pub(crate) report: Option<ReadReport>,
    /// The base entry, if this was the lookup of a shape entry.
    pub(crate) base: Option<Box<BaseEntry>>,
    /// The highest stamp of a version that was in force before; 0 if none is known.
    pub(crate) known: u64,
}

impl Lookup {
    fn without_leader(outcome: LookupOutcome) -> Self {
        Lookup { outcome, leader: None, report: None, base: None, known: 0 }
    }
}

/// Options of a lookup.
#[derive(Clone, Copy, Default)]
pub(crate) struct LookupOptions {
    /// Where the caller waits for leaders.
    pub(crate) waiting: Waiting,
    /// The near cache is used, up to an age of its own if one is given.
    pub(crate) near: Option<Option<Duration>>,
    /// For how long the near cache serves values while no node answers, in milliseconds; 0 for not at all.
    pub(crate) outage_ms: u64,
    /// How long a leader may itself wait for another process that has a lease.
    pub(crate) lease_wait: Duration,
    /// The time that nodes may take, instead of the client's own bound.
    pub(crate) deadline: Option<Duration>,
    /// The wait for a leader after which an entry is taken that may be served if computing fails.
    pub(crate) soft_wait: Option<Duration>,
    /// The read is reported.
    pub(crate) explain: bool,
}

/// What a caller that waits for another one comes to.
pub(super) enum Followed {
    /// Another caller's value, or that there is none.
    Done(Lookup),
    /// The other caller is gone, or takes too long: this one reads the key, with an entry that may be served if
    /// reading and computing fail.
    Read { leader: Option<Leader>, fallback: Option<StoredEntry> },
}

/// Reads the key as its leader, or waits for the leader's value.
pub(crate) async fn lookup(client: ZerocacheClient, key: Bytes, options: LookupOptions) -> Lookup {
    let group = client.memo_counters().flight_group();
    let (leader, fallback) = match flight::join_from(group, &key, options.waiting) {
        Role::Leader(leader) => (Some(leader), None),
        Role::Unshared => (None, None),
        // Boxed: few calls wait, and the state of the others stays small.
        Role::Follower(follower) => {
            match Box::pin(follow(follower, &client, &key, options)).await {
                Followed::Done(lookup) => return lookup,
                Followed::Read { leader, fallback } => (leader, fallback),
            }
        }
    };
    read(&client, key, options, leader, fallback).await
}

/// Waits for the value of a key that another caller reads or computes.
pub(super) async fn follow(
    mut follower: Follower,
    client: &ZerocacheClient,
    key: &Bytes,
    options: LookupOptions,
) -> Followed {
    let counters = client.memo_counters();
    let wait = counters.flight_wait().saturating_add(options.lease_wait);
    let (mut timer, mut left) = (pin!(None), wait);
    let (mut soft_timer, mut is_overdue) = (None::<BoxFuture<()>>, false);
    // One bound holds for all leaders after each other.
    let waiting_since = clock::elapsed();
    loop {
        let progress = loop {
            if timer.is_none() {
                timer.set(Some(client.sleep(left)));
            }
            if soft_timer.is_none() {
                soft_timer = options.soft_wait.map(|wait| Box::pin(client.sleep(wait)) as _);
            }
            tokio::select! {
                biased;
                progress = follower.wait(is_overdue) => break progress,
                () = or_forever(soft_timer.as_mut().map(Pin::new)), if !is_overdue => {
                    is_overdue = true;
                    continue;
                }
                () = or_forever(timer.as_mut().as_pin_mut()) => {}
            }
            timer.set(None);
            let waited = clock::elapsed().saturating_sub(waiting_since);
            // A client with an invalid configuration has no timer either.
            if waited >= wait_in_all(wait) || client.runtime().is_none() {
                count(&counters.wait_timeouts);
                let outcome = LookupOutcome::Miss(follower.fallback());
                return Followed::Done(Lookup::without_leader(outcome));
            }
            match follower.wait_expired(wait) {
                WaitExpired::Lead(leader) => {
                    count(&counters.wait_timeouts);
                    let fallback = follower.fallback();
                    return Followed::Read { leader: Some(leader.after_wait(waited)), fallback };
                }
                WaitExpired::WaitFor(time) => left = time,
                WaitExpired::Ended => {
                    left = Duration::ZERO;
                    break None;
                }
            }
        };
        if let Some(outcome) = progress.and_then(|progress| published(client, progress)) {
            return Followed::Done(Lookup::without_leader(outcome));
        }
        // The leaders are gone and have published nothing; this caller may lead now.
        let leader = match flight::join_from(counters.flight_group(), key, options.waiting) {
            Role::Leader(leader) => {
                Some(leader.after_wait(clock::elapsed().saturating_sub(waiting_since)))
            }
            Role::Unshared => None,
            Role::Follower(next) => {
                follower = next;
                continue;
            }
        };
        return Followed::Read { leader, fallback: None };
    }
}

/// What a leader has published, for those who wait for it; `None` while that is nothing yet.
fn published(client: &ZerocacheClient, progress: Progress) -> Option<LookupOutcome> {
    Some(match progress {
        Progress::Computing(entry) => {
            // An entry that is refreshed ahead of its expiry is still fresh.
            let now = clock::mono();
            let is_stale = entry.freshness(now) != Freshness::Fresh;
            if !entry.is_servable(now) {
                count(&client.memo_counters().soft_timeouts);
            }
            LookupOutcome::Coalesced { payload: entry.payload, is_stale }
        }
        Progress::Value(payload) => LookupOutcome::Coalesced { payload, is_stale: false },
        Progress::Stale(payload) => LookupOutcome::Coalesced { payload, is_stale: true },
        Progress::Outage(payload) => LookupOutcome::Outage(payload),
        Progress::Failed(error) => LookupOutcome::Failed(error),
        Progress::Nothing => LookupOutcome::Miss(None),
        Progress::LookingUp => return None,
    })
}

/// Reads the key, whether other callers read it or not.
pub(crate) async fn lookup_unshared(
    client: ZerocacheClient,
    key: Bytes,
    options: LookupOptions,
) -> Lookup {
    read(&client, key, options, None, None).await
}

/// Reads the shape entry that belongs to a base entry of another shape.
pub(crate) async fn lookup_shape_entry(
    client: ZerocacheClient,
    mut base: Box<BaseEntry>,
    mut options: LookupOptions,
    leader: Option<Leader>,
) -> Lookup {
    // Nobody says whether it belongs to the base entry any more.
    options.outage_ms = 0;
    let mut lookup = read(&client, base.shape_key.clone(), options, leader, None).await;
    if let LookupOutcome::Entry(entry) = &lookup.outcome
        && !base.owns(entry)
    {
        base.replaces = Some(entry.version);
        lookup.outcome = LookupOutcome::Miss(None);
    }
    Lookup { base: Some(base), ..lookup }
}

/// Reads the key. `fallback` is the entry that may be served if reading and computing fail.
async fn read(
    client: &ZerocacheClient,
    key: Bytes,
    options: LookupOptions,
    leader: Option<Leader>,
    fallback: Option<StoredEntry>,
) -> Lookup {
    let mut get = client.raw_get(key.clone()).allow_stale().near_within(options.near);
    if let Some(deadline) = options.deadline {
        get = get.deadline(deadline);
    }
    let (answer, report) = if options.explain {
        match get.explain().await {
            Ok(ExplainedGet { result, report, known, is_doubtful }) => {
                (result.map(|entry| ReadAnswer { entry, known, is_doubtful }), Some(report))
            }
            Err(error) => (Err(error), None),
        }
    } else {
        (get.answer().await, None)
    };
    Lookup { report, ..answered(client, (&key, answer), options.outage_ms, leader, fallback) }
}

/// Returns the lookup of a key for which nodes gave this answer. Without an answer the near cache may serve a value
/// during an outage of so many milliseconds.
pub(super) fn answered(
    client: &ZerocacheClient,
    (key, answer): (&Bytes, Result<ReadAnswer, Error>),
    outage_ms: u64,
    leader: Option<Leader>,
    fallback: Option<StoredEntry>,
) -> Lookup {
    let known = answer.as_ref().map_or(0, |answer| answer.known);
    let outcome = match answer {
        Ok(ReadAnswer { entry: Some(entry), .. }) => {
            client.note_use(key, &entry);
            LookupOutcome::Entry(StoredEntry::read(entry, clock::mono()))
        }
        Ok(ReadAnswer { entry: None, is_doubtful, .. }) => {
            // Nodes that come back from an outage may not have yet what they had.
            let payload = is_doubtful.then(|| outage::payload_set_aside(client, key, outage_ms));
            payload.flatten().map_or(LookupOutcome::Miss(None), LookupOutcome::Outage)
        }
        Err(error) => {
            let counters = client.memo_counters();
            counters.count_error(&counters.read_errors, &error);
            tracing::debug!(%error, "cannot read a memoized value");
            let is_unreachable = error.kind() == ErrorKind::Unreachable;
            let payload = outage::payload(client, key, if is_unreachable { outage_ms } else { 0 });
            payload.map_or(LookupOutcome::Miss(fallback), LookupOutcome::Outage)
        }
    };
    Lookup { outcome, leader, report: None, base: None, known }
}
