//! Writes by clients: checked, stamped, stored, sent on, and answered.

use alloc::{collections::BTreeMap, format, vec::Vec};

use bytes::Bytes;

use super::{Effect, Node, RequestId, fanout::Waiting};
use crate::{
    cluster::{PLACEMENT, Placement},
    entry::{Change, Record},
    key::{Key, KeyHash},
    limits::METADATA_BYTES_MAX,
    store::{ApplyOutcome, Backend},
    time::{Instant, Now},
    ttl::Ttl,
    version::{Incarnation, Version},
    wire::{Ack, RefusalCode, Response, Status, Written},
};

/// How long a write waits for its replicas when the caller does not say, in milliseconds.
const ACK_WAIT_MS: u64 = 2_000;

/// The longest such wait, in milliseconds, whatever the caller says.
const ACK_WAIT_MS_MAX: u64 = 60_000;

/// A write answers this much before its caller stops waiting, in milliseconds.
const ACK_MARGIN_MS: u64 = 20;

/// Most writes that wait for replicas at once.
const PENDING_MAX: usize = 65_536;

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
    /// The delay of the request beyond the usual transit time, in milliseconds, subtracted from the TTL.
    pub delay_ms: u64,
    /// The lease token to write with; without one the node assigns the version.
    pub token: Option<Version>,
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
            token: None,
        }
    }
}

/// A write that waits for replicas.
#[derive(Debug)]
struct Pending {
    key: KeyHash,
    version: Version,
    deadline: Instant,
    have: u32,
    wanted: u32,
    outstanding: u32,
}

impl Pending {
    fn response(&self, held: Option<Version>) -> Response {
        let superseded = held.is_some_and(|held| held > self.version);
        Response::Written(Written {
            status: if superseded { Status::Superseded } else { Status::Stored },
            replicas: self.have,
            replicas_wanted: self.wanted,
            version: Some(self.version),
        })
    }
}

/// All writes that wait.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pending: BTreeMap<RequestId, Pending>,
}

impl Writes {
    /// A replica has the write, or never will; the response when nothing else is awaited.
    pub(super) fn settle(
        &mut self,
        id: RequestId,
        has_it: bool,
        held: impl FnOnce(KeyHash) -> Option<Version>,
    ) -> Option<Response> {
        let pending = self.pending.get_mut(&id)?;
        pending.have += u32::from(has_it);
        pending.outstanding -= 1;
        if pending.outstanding > 0 {
            return None;
        }
        let pending = self.pending.remove(&id)?;
        Some(pending.response(held(pending.key)))
    }

    /// The responses of writes whose time is up.
    pub(super) fn take_overdue(
        &mut self,
        now: Instant,
        held: impl Fn(KeyHash) -> Option<Version>,
    ) -> Vec<(RequestId, Response)> {
        let mut overdue = Vec::new();
        self.pending.retain(|id, pending| {
            let waits = pending.deadline > now;
            if !waits {
                overdue.push((*id, pending.response(held(pending.key))));
            }
            waits
        });
        overdue
    }

    /// When the first write stops waiting.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.deadline).min()
    }
}

impl<B: Backend> Node<B> {
    /// Carries out a write: the only way into the node for one.
    pub(super) fn write(&mut self, now: Now, id: RequestId, write: Write, out: &mut Vec<Effect>) {
        // One caller's writes keep their order, whichever nodes accept them.
        self.note_seen(now, Version::new(write.seen, Incarnation(0)));
        if !self.clocks.is_set() {
            return out.push(Effect::Respond { id, response: super::unset() });
        }
        if let Err(response) = self.check(&write) {
            return out.push(Effect::Respond { id, response });
        }
        let Write { key, op, ack, scope, timeout_ms, delay_ms, token, .. } = write;
        let version = match token {
            None => self.clock.stamp(now.wall_ms),
            Some(token) if self.accepts(now, token) => token,
            Some(_) => {
                return out.push(Effect::Respond { id, response: lost(Status::Refused, None) });
            }
        };
        let mut record = record_of(op, key, version, now.mono.minus_ms(delay_ms));
        let mut applied = self.apply(now, &record);
        let held = match applied {
            ApplyOutcome::Superseded(held) => Some(held),
            // A stamp that was given ahead of its time, for this key.
            ApplyOutcome::Duplicate => Some(record.version),
            // Something newer of this key may have been forgotten, from a clock ahead.
            ApplyOutcome::TooOld => Some(self.store.retention_floor(record.key.hash())),
            ApplyOutcome::Applied => None,
        };
        if let Some(held) = held.filter(|_| token.is_none()) {
            // From a clock further ahead than others may move this one: what is written now is later.
            record.version = self.clock.stamp_above(held, now.wall_ms);
            applied = self.apply(now, &record);
        }
        let version = record.version;
        let status = match applied {
            // Of two values that somebody writes with one token the first one counts.
            ApplyOutcome::Duplicate if token.is_some() && !self.holds(now, &record) => {
                Status::Superseded
            }
            ApplyOutcome::Applied | ApplyOutcome::Duplicate => Status::Stored,
            ApplyOutcome::Superseded(_) => Status::Superseded,
            ApplyOutcome::TooOld => Status::Refused,
        };
        if token.is_some() && status != Status::Stored {
            return out.push(Effect::Respond { id, response: lost(status, token) });
        }
        let (peers, relays) = match scope {
            WriteScope::Cluster => self.replicas_awaited(&record.key, ack),
            WriteScope::NodeOnly => (0, 0),
        };
        let wanted = peers + relays;
        let deadline = now.mono.plus_ms(wait_ms(timeout_ms));
        let key = record.key.hash();
        let pending =
            Pending { key, version, deadline, have: 1, wanted: 1 + wanted, outstanding: wanted };
        if wanted == 0 {
            out.push(Effect::Respond { id, response: pending.response(None) });
        } else {
            // Before anything is sent: a peer may fail at once.
            self.writes.pending.insert(id, pending);
            self.wake_by(Some(deadline));
        }
        if scope == WriteScope::Cluster {
            let waiting =
                Waiting { peers: (peers > 0).then_some(id), relays: (relays > 0).then_some(id) };
            self.fan_out(now, &record, waiting, out);
        }
    }

    /// Whether this very value is stored.
    fn holds(&self, now: Now, record: &Record) -> bool {
        let held = self.store.peek(&record.key, now).hit();
        match &record.change {
            Change::Put { value, metadata, .. } => {
                held.is_none_or(|held| held.value == *value && held.metadata == *metadata)
            }
            Change::Delete => held.is_none(),
        }
    }

    /// How many local peers and relays of other regions a write waits for.
    fn replicas_awaited(&self, key: &Key, ack: Ack) -> (u32, u32) {
        let (view, region) = (&self.view, &self.config.info.region);
        let peers = match ack {
            Ack::Local => 0,
            Ack::Region | Ack::All => PLACEMENT.receivers(key, view, region).count(),
        };
        let relays = if ack == Ack::All { PLACEMENT.regions(key, view).len() } else { 0 };
        (peers as u32, relays as u32)
    }

    /// Whether a write may be done, or else the refusal.
    fn check(&self, write: &Write) -> Result<(), Response> {
        let limits = &self.config.limits;
        let key_bytes = write.key.as_bytes();
        Key::new(key_bytes.clone(), limits)
            .map_err(|error| Response::refused(RefusalCode::BadKey, format!("{error}")))?;
        let WriteOp::Put { value, metadata, .. } = &write.op else {
            return self.check_load(write);
        };
        let too_large = |text| Err(Response::refused(RefusalCode::TooLarge, text));
        if value.len() > limits.value_bytes_max {
            let (bytes, most) = (value.len() as u64, limits.value_bytes_max as u64);
            return Err(Response::value_too_large(bytes, most));
        }
        if metadata.len() > METADATA_BYTES_MAX {
            return too_large(format!(
                "the metadata has {} bytes; at most {METADATA_BYTES_MAX} are allowed",
                metadata.len()
            ));
        }
        let payload = key_bytes.len() + value.len() + metadata.len();
        if !self.store.fits(payload) {
            return too_large(format!("the entry of {payload} bytes exceeds this node's budget"));
        }
        self.check_load(write)
    }

    fn check_load(&self, write: &Write) -> Result<(), Response> {
        if write.ack != Ack::Local && self.writes.pending.len() >= PENDING_MAX {
            let text = format!("{PENDING_MAX} writes wait for their replicas already");
            return Err(Response::refused(RefusalCode::Overloaded, text));
        }
        Ok(())
    }
}

/// How long to wait for replicas, so that the answer arrives before the caller gives up.
fn wait_ms(timeout_ms: u64) -> u64 {
    match timeout_ms {
        0 => ACK_WAIT_MS,
        most => most.saturating_sub(ACK_MARGIN_MS.min(most / 10)).clamp(1, ACK_WAIT_MS_MAX),
    }
}

/// The answer to a value that was written with a token and is not stored here; who has a newer one has
/// told the others.
fn lost(status: Status, token: Option<Version>) -> Response {
    let superseded = status == Status::Superseded;
    Response::Written(Written {
        status,
        replicas: u32::from(superseded),
        replicas_wanted: 1,
        version: token.filter(|_| superseded),
    })
}

fn record_of(op: WriteOp, key: Key, version: Version, sent: Instant) -> Record {
    let change = match op {
        WriteOp::Delete => Change::Delete,
        WriteOp::Put { value, metadata, ttl } => {
            Change::Put { value, metadata, expires: sent.plus_ms(ttl.as_millis()) }
        }
    };
    Record { key, version, change }
}
