//! The one door for writes by clients: a write is checked, stamped, stored, replicated and answered.

use alloc::{boxed::Box, format, vec::Vec};

use bytes::Bytes;

use super::{
    Effect, Node, Parts, RequestId,
    replication::{AwaitedReplicas, PENDING_MAX, PendingWrite, Replication, Waiters},
};
use crate::{
    condition::{Condition, ConditionalOp, ConditionalWrite},
    entry::{Change, Record},
    key::Key,
    limits::METADATA_BYTES_MAX,
    purge::{HOLD_MS_MAX, PurgeMode, PurgeTarget, PurgeValue},
    store::{ApplyOutcome, Backend},
    time::Now,
    ttl::Ttl,
    version::{Basis, Incarnation, Version, VersionSource},
    wire::{Ack, RefusalCode, Response, Status, Written},
};

/// How long a write waits for its replicas if the caller states no timeout, in milliseconds.
const ACK_WAIT_MS: u64 = 2_000;

/// The longest such wait, in milliseconds, whatever the caller states.
const ACK_WAIT_MS_MAX: u64 = 60_000;

/// A response leaves this long before its caller's timeout, in milliseconds, or a tenth of that timeout if that is
/// less: callers of a write may be in another region.
const ACK_MARGIN_MS: u64 = 250;

/// The most by which the wall clocks of two nodes differ, in milliseconds (contract, section 3).
const CLOCK_DIFFERENCE_MS_MAX: u64 = 1_000;

/// A purge came before a computation if it was applied this much before its begin, in milliseconds: the begin is
/// known to within the time on the way.
const BEGIN_MARGIN_MS: u64 = 500;

/// The text of a refusal.
const REPLAY_REFUSED: &str =
    "a purge is repeated with the version of a past one, within the retention (an hour at most)";

/// How far a write is replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteScope {
    /// To the local peers and to one relay in each other region.
    Cluster,
    /// To nobody: the caller sends the write to the other nodes itself.
    NodeOnly,
}

/// The change that a write makes to its key.
#[derive(Clone, Debug)]
pub enum WriteOp {
    /// Stores a value.
    Put {
        /// The value.
        value: Bytes,
        /// Tagged fields, forwarded unchanged.
        metadata: Bytes,
        /// How long the value lives.
        ttl: Ttl,
    },
    /// Deletes the value.
    Delete,
    /// Stores the held value again. Only with a condition under which there is one.
    Touch {
        /// The new fresh time.
        ttl: Ttl,
    },
    /// Deletes the value, and returns it. Only with a condition under which there is one.
    Take,
    /// Stores the held value again with a new idle time. Only with the condition of its version.
    Use,
    /// Ends the values of a group of keys. See [`Write::purge`].
    Purge {
        /// How much later than the purge a value that it ends may be stamped, in milliseconds, at most
        /// [`HOLD_MS_MAX`].
        hold_ms: u64,
    },
}

/// A client's write. Every write enters the node as one, whichever interface accepted it.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key to write.
    pub key: Key,
    /// The change to make.
    pub op: WriteOp,
    /// The replicas that must have the write before its response.
    pub ack: Ack,
    /// How far the write is replicated.
    pub scope: WriteScope,
    /// The stamp of the highest version that the caller has seen, 0 if none. The write gets a higher one.
    pub seen: u64,
    /// How long the caller waits for the response, in milliseconds; 0 if unknown.
    pub timeout_ms: u64,
    /// The delay of the request beyond its usual transit time, in milliseconds. It is subtracted from the
    /// TTL.
    pub delay_ms: u64,
    /// Where the version comes from; a given one is a lease token, or the version of a purge that is repeated.
    pub version: VersionSource,
    /// What must hold of the key so that the write is made.
    pub condition: Option<Box<Condition>>,
    /// Another node passed it on, because this one owns the key.
    pub is_forwarded: bool,
}

impl Write {
    /// A write to the whole cluster that is acknowledged by the accepting node alone.
    #[must_use]
    pub const fn new(key: Key, op: WriteOp) -> Self {
        Self {
            key,
            op,
            ack: Ack::Local,
            scope: WriteScope::Cluster,
            seen: 0,
            timeout_ms: 0,
            delay_ms: 0,
            version: VersionSource::Accepted,
            condition: None,
            is_forwarded: false,
        }
    }

    /// A write to the whole cluster that is made if its condition holds.
    #[must_use]
    pub fn conditional(write: ConditionalWrite) -> Self {
        let ConditionalWrite { key, condition, op, ack } = write;
        let op = match op {
            ConditionalOp::Put { value, metadata, ttl } => WriteOp::Put { value, metadata, ttl },
            ConditionalOp::Delete => WriteOp::Delete,
            ConditionalOp::Touch { ttl } => WriteOp::Touch { ttl },
            ConditionalOp::Take => WriteOp::Take,
            ConditionalOp::Use => WriteOp::Use,
        };
        Self { ack, condition: Some(Box::new(condition)), ..Self::new(key, op) }
    }

    /// A purge of `target`, which ends all its entries of lower versions. With the given version of an
    /// earlier purge, it is that purge again.
    #[must_use]
    pub fn purge(target: &PurgeTarget, mode: PurgeMode, hold_ms: u64) -> Self {
        Self::new(target.key(mode), WriteOp::Purge { hold_ms })
    }
}

impl<B: Backend> Node<B> {
    /// Carries out a write.
    pub(super) fn write(&mut self, now: Now, id: RequestId, write: Write, out: &mut Vec<Effect>) {
        match write.condition {
            None => self.write_plain(now, id, write, out),
            Some(_) if self.is_witness(&write.key) => self.forward_write(now, id, write, out),
            Some(_) => self.write_if(now, id, write, out),
        }
    }

    /// Carries out a write without asking for its condition.
    pub(super) fn write_plain(
        &mut self,
        now: Now,
        id: RequestId,
        write: Write,
        out: &mut Vec<Effect>,
    ) {
        // One caller's writes keep their order, whichever nodes accept them.
        let seen = Version::new(write.seen, Incarnation(0));
        self.replica.note_seen(now, seen, &mut self.local.refused);
        if let Err(response) = self.check(&write) {
            return out.push(Effect::Respond { id, response });
        }
        let Write { key, op, ack, scope, timeout_ms, delay_ms, version: source, .. } = write;
        let is_purge = matches!(op, WriteOp::Purge { .. });
        let refused = || match is_purge {
            true => Response::refused(RefusalCode::BadMessage, REPLAY_REFUSED),
            false => lost(Status::Refused, None),
        };
        let Some(version) = self.version_for(now, source, delay_ms, is_purge) else {
            return out.push(Effect::Respond { id, response: refused() });
        };
        let mut record = self.record_of(now, (op, key, version), delay_ms);
        if !self.outlives_purges(now, &mut record, source, delay_ms) {
            if let VersionSource::Given(token) = source {
                self.release(now, (&record.key, token), false, out);
            }
            // No node has a value of this version.
            let response = lost(Status::Superseded, None);
            return out.push(Effect::Respond { id, response });
        }
        let status = self.store_write(now, &mut record, source);
        if source != VersionSource::Accepted && status != Status::Stored {
            let response = match status {
                Status::Refused => refused(),
                status => lost(status, Some(record.version)),
            };
            return out.push(Effect::Respond { id, response });
        }
        let Parts { mut cx, membership, replication, repair, .. } = self.parts(now, out);
        let view = &membership.view;
        if record.change != Change::Delete && !view.keeps(cx.local.id(), &record.key) {
            repair.note_guest(record.key.hash(), now.mono);
        }
        let AwaitedReplicas { peers, witnesses, relays } = match scope {
            WriteScope::Cluster => Replication::replicas_awaited(&cx, view, &record, ack),
            WriteScope::NodeOnly => AwaitedReplicas::default(),
        };
        let outstanding = peers + relays;
        let deadline = now.mono.plus_ms(wait_ms(timeout_ms));
        let pending = PendingWrite {
            key: record.key.hash(),
            version: record.version,
            deadline,
            replicas: 1,
            replicas_wanted: 1 + outstanding - witnesses,
            outstanding,
        };
        if outstanding == 0 {
            cx.out.push(Effect::Respond { id, response: pending.response(None) });
        } else {
            // Before anything is sent: a peer may fail at once.
            replication.await_replicas(id, pending);
            cx.local.wake_by(Some(deadline));
        }
        if scope == WriteScope::Cluster {
            let peers = (peers > 0).then_some(id);
            let relays = (relays > 0).then_some(id);
            replication.fan_out(&mut cx, view, &record, Waiters { peers, relays });
        }
    }

    /// Returns the version of a write; none if the one that its caller gives is not allowed.
    fn version_for(
        &mut self,
        now: Now,
        source: VersionSource,
        delay_ms: u64,
        is_purge: bool,
    ) -> Option<Version> {
        match source {
            VersionSource::Accepted => Some(self.replica.clock.stamp(now.wall_ms)),
            VersionSource::Computed(Basis { age_ms, known }) => {
                // From the begin of the computation, by the slowest of all clocks, so that what other nodes stamp
                // after that is newer. But above what was known then.
                let latest = self.replica.clock.stamp(now.wall_ms);
                let age_ms =
                    age_ms.saturating_add(delay_ms).saturating_add(CLOCK_DIFFERENCE_MS_MAX);
                // Values of one key that are accepted at different times differ in the lower bits.
                let accepted = latest.wall_ms() & ((1 << Version::COUNTER_BITS) - 1);
                let begun_ms = now.wall_ms.saturating_sub(age_ms);
                let begun = begun_ms << Version::COUNTER_BITS | accepted;
                // What is known is not of the future: no later stamp would be above it.
                let above = if known < latest.stamp() { known + 1 } else { 0 };
                let stamp = begun.max(above);
                Some(Version::new(stamp, latest.incarnation()))
            }
            VersionSource::Given(version) if is_purge => {
                // Not a future one: that would end what is written until then.
                let is_past =
                    version.wall_ms() <= now.wall_ms || version <= self.replica.clock.last();
                is_past.then_some(version)
            }
            VersionSource::Given(token) => self.accepts_token(now, token).then_some(token),
            VersionSource::Above(held) => held.successor(self.local.id()),
        }
    }

    /// Raises the version of a write above the purges that came before it. Returns whether the write counts: not
    /// if a purge came after its begin, or still holds, or if what came meanwhile may be forgotten.
    fn outlives_purges(
        &mut self,
        now: Now,
        record: &mut Record,
        source: VersionSource,
        delay_ms: u64,
    ) -> bool {
        let store = &self.replica.store;
        match source {
            VersionSource::Accepted => {
                // A purge may be from a clock further ahead than others may move this one: this write is later.
                store.raise_above_purges(record, now.mono);
                // The next write gets another version.
                let _too_far_ahead = self.replica.clock.observe(record.version, now.wall_ms);
            }
            VersionSource::Computed(Basis { age_ms, .. }) => {
                let age_ms = age_ms.saturating_add(delay_ms);
                if age_ms >= store.retention_ms_max() {
                    return false;
                }
                if let Some(begun) = now.mono.checked_minus_ms(age_ms + BEGIN_MARGIN_MS) {
                    let version = record.version;
                    store.raise_above_purges(record, begun);
                    if record.version >= self.replica.clock.last() {
                        // A later stamp would not be above it.
                        record.version = version;
                    }
                }
            }
            VersionSource::Given(_) | VersionSource::Above(_) => {}
        }
        !self.replica.store.is_purged(record, now)
    }

    /// Stores a record. A write that is later than all that the node knows gets a higher version if this one is
    /// superseded.
    fn store_write(&mut self, now: Now, record: &mut Record, source: VersionSource) -> Status {
        let mut outcome = self.replica.apply(now, record);
        let is_latest = source == VersionSource::Accepted;
        let held = match outcome {
            ApplyOutcome::Superseded(held) => Some(held).filter(|_| is_latest),
            ApplyOutcome::Purged => None,
            // A token for this key that was stamped ahead of its time.
            ApplyOutcome::Duplicate => Some(record.version).filter(|_| is_latest),
            // A newer record of this key may have been forgotten: from a clock ahead, or, while a value was
            // computed, for want of room.
            ApplyOutcome::TooOld => {
                let floor = self.replica.store.retention_floor(record.key.hash());
                let may_be_later =
                    matches!(source, VersionSource::Accepted | VersionSource::Computed(_));
                Some(floor).filter(|_| may_be_later)
            }
            ApplyOutcome::Applied => None,
        };
        if let Some(held) = held {
            // From a clock further ahead than others may move this one: this write is later.
            record.version = self.replica.clock.stamp_above(held, now.wall_ms);
            outcome = self.replica.apply(now, record);
        }
        match outcome {
            // Of two values written with one version the first one counts, also if it is gone, unless it was
            // written with a token, which is of one computation.
            ApplyOutcome::Duplicate if !is_latest && !self.holds(now, record, source) => {
                Status::Superseded
            }
            ApplyOutcome::Applied | ApplyOutcome::Duplicate => Status::Stored,
            ApplyOutcome::Superseded(_) | ApplyOutcome::Purged => Status::Superseded,
            ApplyOutcome::TooOld => Status::Refused,
        }
    }

    /// Whether exactly this value is stored, or was written before with the same token.
    fn holds(&self, now: Now, record: &Record, source: VersionSource) -> bool {
        let Some(held) = self.replica.store.peek(&record.key, now).hit() else {
            return matches!(source, VersionSource::Given(_));
        };
        match &record.change {
            Change::Put { value, metadata, .. } => {
                held.value == *value && held.metadata == *metadata
            }
            Change::Delete => false,
        }
    }

    /// Returns the refusal of a write that may not be carried out.
    pub(super) fn check(&self, write: &Write) -> Result<(), Response> {
        if !self.local.clocks.is_set() {
            return Err(super::clock_unset());
        }
        if matches!(write.op, WriteOp::Purge { .. }) {
            return self.check_purge(write);
        }
        let limits = &self.local.config.limits;
        let key_bytes = write.key.as_bytes();
        Key::new(key_bytes.clone(), limits)
            .map_err(|error| Response::refused(RefusalCode::BadKey, format!("{error}")))?;
        if let WriteOp::Put { value, metadata, .. } = &write.op {
            if value.len() > limits.value_bytes_max {
                let (bytes, most) = (value.len() as u64, limits.value_bytes_max as u64);
                return Err(Response::value_too_large(bytes, most));
            }
            let too_large = |text| Err(Response::refused(RefusalCode::TooLarge, text));
            if metadata.len() > METADATA_BYTES_MAX {
                return too_large(format!(
                    "the metadata has {} bytes; at most {METADATA_BYTES_MAX} are allowed",
                    metadata.len()
                ));
            }
            let payload = key_bytes.len() + value.len() + metadata.len();
            if !self.replica.store.fits(payload) {
                return too_large(format!(
                    "the entry of {payload} bytes exceeds this node's budget"
                ));
            }
        }
        self.check_room(write)
    }

    fn check_room(&self, write: &Write) -> Result<(), Response> {
        if write.ack != Ack::Local && self.replication.is_full() {
            let text = format!("{PENDING_MAX} writes wait for their replicas already");
            return Err(Response::refused(RefusalCode::Overloaded, text));
        }
        Ok(())
    }

    /// Returns the refusal of a purge that may not be carried out.
    fn check_purge(&self, write: &Write) -> Result<(), Response> {
        if PurgeTarget::of_key(write.key.as_bytes()).is_none() {
            return Err(Response::refused(RefusalCode::BadKey, "not the key of a purge"));
        }
        let store = &self.replica.store;
        if store.has_no_room_for_purges() && store.version(write.key.hash()).is_none() {
            let text = "the purges of the last hour fill their share of the byte budget (1/64)";
            return Err(Response::refused(RefusalCode::Overloaded, text));
        }
        self.check_room(write)
    }

    fn record_of(
        &self,
        now: Now,
        (op, key, version): (WriteOp, Key, Version),
        delay_ms: u64,
    ) -> Record {
        let sent = now.mono.minus_ms(delay_ms);
        let change = match op {
            // A touch and a use have become a put by now.
            WriteOp::Delete | WriteOp::Take | WriteOp::Touch { .. } | WriteOp::Use => {
                Change::Delete
            }
            WriteOp::Put { value, metadata, ttl } => {
                Change::Put { value, metadata, expires: sent.plus_ms(ttl.as_millis()) }
            }
            WriteOp::Purge { hold_ms } => {
                let hold_ms = hold_ms.min(HOLD_MS_MAX);
                let life_ms = self.replica.store.purge_life_ms();
                let age_ms = now.wall_ms.saturating_sub(version.wall_ms());
                let value = PurgeValue { hold_ms, life_ms }.encode();
                let expires = now.mono.plus_ms(life_ms.saturating_sub(age_ms));
                Change::Put { value, metadata: Bytes::new(), expires }
            }
        };
        Record { key, version, change }
    }
}

/// How long to wait for replicas, so that the response arrives before the caller's timeout.
fn wait_ms(timeout_ms: u64) -> u64 {
    match timeout_ms {
        0 => ACK_WAIT_MS,
        most => most.saturating_sub(ACK_MARGIN_MS.min(most / 10)).clamp(1, ACK_WAIT_MS_MAX),
    }
}

/// The response to a value that was written with a token and is not stored here. The newer
/// one is replicated by its own writer.
fn lost(status: Status, token: Option<Version>) -> Response {
    let is_superseded = status == Status::Superseded;
    Response::Written(Written {
        status,
        replicas: u32::from(is_superseded),
        replicas_wanted: 1,
        version: token.filter(|_| is_superseded),
    })
}
