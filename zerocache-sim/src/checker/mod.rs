//! The rules, checked against the simulator's own knowledge of every write.
//!
//! The checker knows the true time, the write that each value comes from, and the start of its
//! lifetime. It never asks the code under test for the expected result.

mod acks;
mod conditions;
mod excuses;
mod leases;
mod lifetimes;
mod membership;
mod near;
mod processes;
mod purges;

use std::collections::BTreeMap;

use zerocache_core::version::Version;

pub(crate) use self::{
    acks::{AcknowledgedWrite, WriteAnswer},
    conditions::MetWrite,
    excuses::{Path, is_disturbed},
    near::{NEAR_AGE_MS, NearHit},
};
use self::{
    conditions::MetWrites,
    leases::{AcknowledgedDelete, Grant},
    near::Reported,
    processes::Processes,
    purges::Purges,
};
use crate::{
    plan::Plan,
    workload::{Computation, Operation, WriteId, value, write_of},
};

/// A rule that a run can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A value that is served or held was written for that key, and is complete.
    Whole,
    /// No value outlives its TTL.
    Expiry,
    /// One process never goes back to an older version of a key, nor forgets one without a reason.
    Order,
    /// A version belongs to one write, and a write gets one version.
    Version,
    /// A write is above all that its client saw before.
    Seen,
    /// Stores stay within their budgets and their share of tombstones.
    Capacity,
    /// Queues for peers are bounded.
    Queue,
    /// A write goes to local peers and one relay of each other region, and no further.
    Hops,
    /// No node is removed from a rotation without a reason.
    Removal,
    /// A stranger silences no heartbeats, and no node that it invents is believed.
    Strangers,
    /// At the end each node knows exactly the running nodes.
    View,
    /// At the end no two nodes hold different versions of a key.
    Agreement,
    /// What was saved when all nodes stopped is known again at the end.
    Saved,
    /// At the end nothing is copied any more.
    Quiet,
    /// At the end the nodes of a region agree on who owns what, and each has offered the owners what it holds.
    Placed,
    /// A node grants the lease of a key to one caller at a time.
    Exclusive,
    /// A caller that waits for a lease is answered in time.
    Waits,
    /// A delete after the grant wins over what was computed.
    DeleteWins,
    /// A condition is judged by what its node holds, and met once for a version: at a node, and in a region while
    /// nothing goes wrong.
    Atomic,
    /// An acknowledgement is true, and the acknowledged value stays where it is.
    Acked,
    /// A client sees its own write for a while.
    Own,
    /// What is served near is not older than its age permits, nor than what the followed node reported.
    Near,
    /// What a purge ended is not served or given to others by those who know it; nothing else is gone.
    Purge,
    /// A write is sent to one node at a time: it is never hedged.
    Hedged,
    /// A batch has one outcome for each of its keys.
    Batch,
    /// An authoritative miss is a miss on all local peers.
    Authoritative,
    /// A node sends its writes to all others, or reports that they miss some.
    Sent,
    /// Nothing returns from disk that its node has acknowledged to be replaced or deleted, and nothing is lost there
    /// without a fault.
    Disk,
    /// While nothing goes wrong a write is everywhere at once.
    Prompt,
    /// Time advances: no process is busy without end.
    Progress,
    /// Messages decode, requests are answered once.
    Protocol,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in microseconds of the true time.
    pub at_us: u64,
    /// The violated rule.
    pub rule: Rule,
    /// A description.
    pub text: String,
}

/// A value as a node serves or holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredValue<'a> {
    pub(crate) key: usize,
    pub(crate) version: Version,
    pub(crate) value: &'a [u8],
    pub(crate) remaining_ms: u64,
}

/// A write as it was planned, and what became of it.
#[derive(Clone, Debug)]
struct Write {
    key: usize,
    bytes: usize,
    /// None for a delete.
    ttl_ms: Option<u64>,
    /// The time at which a node last accepted it, minus its lateness.
    taken_us: Option<u64>,
    version: Option<Version>,
    /// The time at which its client began.
    began_us: u64,
    /// The lease under which it was computed.
    grant: Option<Grant>,
}

/// All that is known of a run.
#[derive(Debug)]
pub(crate) struct Checker {
    /// Wall clocks may be wrong by more than nodes accept.
    wild_clocks: bool,
    now_us: u64,
    violation: Option<Violation>,
    writes: Vec<Write>,
    /// The write of each version of each key.
    versions: BTreeMap<(Version, usize), WriteId>,
    /// The permitted extension of a write's lifetime on a host beyond the accepting node, in
    /// microseconds.
    extensions: BTreeMap<(u32, WriteId), u64>,
    processes: Processes,
    /// Deletes that were acknowledged, by key.
    deletes: BTreeMap<usize, Vec<AcknowledgedDelete>>,
    /// The time at which each version was assigned.
    accepted: BTreeMap<Version, u64>,
    /// The last write of each client and key that was acknowledged.
    own: BTreeMap<(usize, usize), AcknowledgedWrite>,
    /// The highest version with which each client's writes of a key were answered.
    answered: BTreeMap<(usize, usize), Version>,
    /// The changes that were reported to each client.
    reported: BTreeMap<usize, Reported>,
    purges: Purges,
    met: MetWrites,
    /// Whether a node has evicted a value.
    makes_room: bool,
}

impl Checker {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            wild_clocks: plan.profile.has_wild_clocks(),
            now_us: 0,
            violation: None,
            writes: Vec::new(),
            versions: BTreeMap::new(),
            extensions: BTreeMap::new(),
            processes: Processes::default(),
            deletes: BTreeMap::new(),
            accepted: BTreeMap::new(),
            own: BTreeMap::new(),
            answered: BTreeMap::new(),
            reported: BTreeMap::new(),
            purges: Purges::new(plan),
            met: MetWrites::default(),
            makes_room: false,
        }
    }

    pub(crate) fn advance_to(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Returns whether a rule was violated: a run ends with its first violation.
    pub(crate) fn is_over(&self) -> bool {
        self.violation.is_some()
    }

    pub(crate) fn into_violation(self) -> Option<Violation> {
        self.violation
    }

    pub(crate) fn violate(&mut self, rule: Rule, text: impl Into<String>) {
        let at_us = self.now_us;
        self.violation.get_or_insert_with(|| Violation { at_us, rule, text: text.into() });
    }

    /// Records an event that must be impossible on any network.
    pub(crate) fn protocol_error(&mut self, text: &str) {
        self.violate(Rule::Protocol, text);
    }

    /// A client is about to do this; returns the name of the write.
    pub(crate) fn planned(&mut self, key: usize, operation: &Operation) -> WriteId {
        let (bytes, ttl_ms) = match operation {
            Operation::Put { bytes, ttl, .. }
            | Operation::Compute(Computation { bytes, ttl, .. }) => (*bytes, Some(ttl.as_millis())),
            Operation::WriteIf(plan) if plan.kind.is_put() => {
                (plan.bytes, Some(plan.ttl.as_millis()))
            }
            Operation::Get
            | Operation::WriteIf(_)
            | Operation::Delete { .. }
            | Operation::Purge(_)
            | Operation::GetMany(_)
            | Operation::WriteMany(_) => (0, None),
        };
        let (taken_us, version, began_us, grant) = (None, None, self.now_us, None);
        self.writes.push(Write { key, bytes, ttl_ms, taken_us, version, began_us, grant });
        self.writes.len() as WriteId
    }

    fn write(&mut self, id: WriteId) -> Option<&mut Write> {
        self.writes.get_mut(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    /// The lifetime of a put.
    pub(crate) fn ttl_ms(&self, id: WriteId) -> Option<u64> {
        self.writes.get(usize::try_from(id).ok()?.checked_sub(1)?)?.ttl_ms
    }

    /// A node answers a read with this.
    pub(crate) fn served(&mut self, host: u32, held: &StoredValue<'_>) {
        self.check_purged(host, "serves", held);
        self.held(host, held);
        self.observed(host, held.key, Some(held.version));
    }

    /// A node holds this.
    pub(crate) fn held(&mut self, host: u32, held: &StoredValue<'_>) {
        if let Some(id) = self.whole(held.key, held.value, held.version) {
            self.check_lifetime(host, id, held.remaining_ms);
        }
    }

    /// A client was given this.
    pub(crate) fn received(&mut self, key: usize, version: Version, value: &[u8]) {
        self.whole(key, value, version);
    }

    /// The write of a value, if it is whole.
    fn whole(&mut self, key: usize, found: &[u8], version: Version) -> Option<WriteId> {
        let Some(id) = write_of(found) else {
            self.violate(Rule::Whole, format!("key {key}: {} bytes", found.len()));
            return None;
        };
        let Some(write) = self.write(id).cloned() else {
            self.violate(Rule::Whole, format!("key {key}: a value without a write, {id}"));
            return None;
        };
        if write.key != key || found != value(id, write.bytes) {
            let bytes = found.len();
            let text = format!("key {key}: {bytes} bytes of write {id}, which was {write:?}");
            self.violate(Rule::Whole, text);
            return None;
        }
        self.stamped(id, version);
        Some(id)
    }

    /// A write has this version.
    fn stamped(&mut self, id: WriteId, version: Version) {
        let before = self.write(id).and_then(|write| write.version.replace(version));
        // A node that puts its clock right gives what it has other versions.
        let before = before.filter(|_| !self.wild_clocks);
        if let Some(before) = before.filter(|before| *before != version) {
            self.violate(Rule::Version, format!("write {id} has {before} and {version}"));
        }
        let Some(key) = self.write(id).map(|write| write.key) else { return };
        // A write over a stamp far ahead moves no clock: the clock reaches that stamp later, with
        // another key.
        let of_key = (version, key)..=(version, key);
        let of_all = (version, 0)..=(version, usize::MAX);
        let of = if self.wild_clocks { of_key } else { of_all };
        let other = self.versions.range(of).map(|(_, other)| *other).find(|other| *other != id);
        self.versions.insert((version, key), id);
        if let Some(other) = other {
            let text = format!("{version} is that of writes {other} and {id}");
            self.violate(Rule::Version, text);
        }
    }

    /// A client's write was answered with this version; before it the client had `seen` this stamp.
    pub(crate) fn written(&mut self, key: usize, id: WriteId, version: Version, seen: u64) {
        self.stamped(id, version);
        if version.stamp() <= seen && !self.wild_clocks {
            let text = format!("key {key}: write {id} got {version}, below {seen:016x}");
            self.violate(Rule::Seen, text);
        }
    }
}
