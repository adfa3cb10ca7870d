//! Requests for values that are on disk: they wait until the values are in memory again.
//!
//! The node does no I/O. It names what is to be read ([`Effect::Load`]), and carries the request out when that has
//! been done, or has failed ([`Input::Loaded`]). Requests for values in memory overtake it.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{
    ConnectionId, Effect, Input, Node, RequestId, WriteOp, quota::Quota, repair::ITEMS_BYTES_MAX,
};
use crate::{
    key::{Key, KeyHash},
    store::{Backend, EntryOnDisk},
    time::{Instant, Now},
    wire::{RefusalCode, Request, RequestMessage, Response},
};

/// The most requests that wait for values from disk.
const LOADS_MAX: usize = 4_096;

/// The most values that one request has read, beyond the first one. What is left is asked for again.
const LOADED_MAX: usize = 128;

/// They take at most this fraction of the byte budget (1/32): less than what is kept of unread entries.
const LOADED_FRACTION: u64 = 32;

/// A request that waits, since then.
#[derive(Debug)]
struct WaitingRequest {
    input: Input,
    since: Instant,
    connection: ConnectionId,
}

/// The requests that wait for values from disk.
#[derive(Debug)]
pub(super) struct Loads {
    waiting: BTreeMap<RequestId, WaitingRequest>,
    quota: Quota,
}

impl Default for Loads {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), quota: Quota::of(LOADS_MAX) }
    }
}

impl<B: Backend> Node<B> {
    /// Returns an input, unless it waits for values from disk.
    pub(super) fn await_disk(
        &mut self,
        now: Now,
        input: Input,
        out: &mut Vec<Effect>,
    ) -> Option<Input> {
        if !self.replica.store.has_disk() {
            return Some(input);
        }
        let entries = self.values_on_disk(&input, now);
        let (id, connection) = match &input {
            Input::Write { id, .. } => (*id, ConnectionId(0).single_use()),
            Input::Request { id, connection, .. } => (*id, *connection),
            _ => return Some(input),
        };
        if entries.is_empty() {
            return Some(input);
        }
        if !self.loads.quota.has_room(connection, 1) {
            self.local.refused.over_quota += 1;
            let text = "as many values as possible are being read from disk";
            let response = Response::refused(RefusalCode::Overloaded, text);
            out.push(Effect::Respond { id, response });
            return None;
        }
        self.loads.quota.charge(connection, 1);
        let waiting = WaitingRequest { input, since: now.mono, connection };
        self.loads.waiting.insert(id, waiting);
        out.push(Effect::Load { id, entries });
        None
    }

    /// Returns what is on disk of the values that a request needs.
    fn values_on_disk(&self, input: &Input, now: Now) -> Vec<EntryOnDisk> {
        let store = &self.replica.store;
        let of_key = |key: &Key| store.find_on_disk(key.hash(), now).into_iter().collect();
        match input {
            Input::Write { write, .. } => {
                let needs_value = write.condition.is_some()
                    || matches!(write.op, WriteOp::Touch { .. } | WriteOp::Take | WriteOp::Use);
                if needs_value { of_key(&write.key) } else { Vec::new() }
            }
            Input::Request { message, .. } => match &message.request {
                Request::Get { key } | Request::Lease { key, .. } => of_key(key),
                Request::Conditional(write) => of_key(&write.key),
                Request::Fetch(keys) => {
                    let from = message.envelope.from;
                    let keys = keys.iter().copied();
                    self.first_on_disk(keys.filter(|key| self.fetches_value(from, *key)), now)
                }
                Request::Adopt(keys) => self.first_on_disk(keys.iter().copied(), now),
                Request::Locate { keys, digest: true, .. } => {
                    self.first_on_disk(keys.iter().map(Key::hash), now)
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    /// Returns those of the first keys that are on disk: as many as one response takes, and as memory holds without
    /// evicting the first ones for the last.
    fn first_on_disk(&self, keys: impl Iterator<Item = KeyHash>, now: Now) -> Vec<EntryOnDisk> {
        let share = self.replica.store.capacity().bytes_max / LOADED_FRACTION;
        let most = usize::try_from(share).unwrap_or(usize::MAX).min(ITEMS_BYTES_MAX);
        let mut bytes = 0;
        let found = keys.filter_map(|key| self.replica.store.find_on_disk(key, now));
        let is_within = |entry: &EntryOnDisk| {
            let is_within = bytes < most;
            bytes += entry.value_bytes as usize;
            is_within
        };
        found.take_while(is_within).take(LOADED_MAX).collect()
    }

    /// Carries out a request whose values have been read. What could not be read counts as missing.
    pub(super) fn loaded(&mut self, now: Now, id: RequestId, out: &mut Vec<Effect>) {
        let Some(waiting) = self.loads.waiting.remove(&id) else { return };
        let WaitingRequest { mut input, since, connection } = waiting;
        self.loads.quota.release(connection, 1);
        let waited_ms = now.mono.since_ms(since);
        match &mut input {
            Input::Request { message: RequestMessage { envelope, .. }, .. } => {
                envelope.delay_ms = envelope.delay_ms.saturating_add(waited_ms);
            }
            Input::Write { write, .. } => {
                write.delay_ms = write.delay_ms.saturating_add(waited_ms);
            }
            _ => {}
        }
        self.carry_out(now, input, out);
    }

    /// Drops the requests of a connection that ended.
    pub(super) fn drop_loads(&mut self, connection: ConnectionId) {
        if self.loads.quota.used_by(connection) == 0 {
            return;
        }
        let Loads { waiting, quota } = &mut self.loads;
        waiting.retain(|_, request| {
            let is_kept = request.connection != connection;
            if !is_kept {
                quota.release(connection, 1);
            }
            is_kept
        });
    }
}
