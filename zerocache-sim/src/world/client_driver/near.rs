//! The near cache of a client, and the node whose changes it follows. The rules are the core's; here are the
//! entries.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
};

use bytes::Bytes;
use zerocache_core::{
    call::CallResult,
    client::{
        Attachment, ClientVariant, FOLLOW_TIMEOUT_MS, FeedEnd, FeedFollower, FillPermit, NearItem,
        NearRules, NearStorage, NearTimes, RecentWrites, near_hash,
    },
    key::Key,
    metadata::Metadata,
    time::Instant,
    version::{Incarnation, Version},
    wire::Response,
};

use super::{
    super::{World, trace},
    Purpose, RunningRead,
};
use crate::checker::{NEAR_AGE_MS, NearHit, StoredValue};

/// The near cache of a client.
pub(super) struct ClientNear {
    rules: NearRules<Entries>,
    attachment: Attachment,
    following: Option<Following>,
    /// The number of the last following.
    number: u64,
    lookups: u64,
    /// A lookup found that no node is followed.
    is_wanted: bool,
}

/// The following of one node.
struct Following {
    number: u64,
    node: Incarnation,
    address: SocketAddr,
    follower: FeedFollower,
}

/// The begin of a read or write whose value may be kept.
#[derive(Clone, Copy, Debug)]
pub(in crate::world) struct NearFill {
    permit: FillPermit,
    began_us: u64,
}

/// A value that may be kept, and how long it lives from the begin of its read or write on.
pub(super) struct NearValue {
    pub(super) value: Bytes,
    pub(super) metadata: Bytes,
    pub(super) version: Version,
    pub(super) remaining_ms: u64,
    pub(super) node: Incarnation,
}

struct Entry {
    key: Key,
    times: NearTimes,
    value: Bytes,
    metadata: Bytes,
    version: Version,
    expiry: Instant,
    node: Incarnation,
    began_us: u64,
    kept_us: u64,
}

impl NearItem for Entry {
    fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }

    fn version(&self) -> Version {
        self.version
    }

    fn metadata(&self) -> &[u8] {
        &self.metadata
    }

    fn times(&self) -> &NearTimes {
        &self.times
    }
}

#[derive(Default)]
struct Entries {
    all: RefCell<BTreeMap<u64, Rc<Entry>>>,
    recent_writes: RefCell<RecentWrites>,
    epoch: Cell<u64>,
    valid_until: Cell<Instant>,
    latest_purge: Cell<u64>,
}

impl NearStorage for Entries {
    type Item = Rc<Entry>;

    fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    fn begin_epoch(&self) {
        self.epoch.set(self.epoch.get() + 1);
        self.all.borrow_mut().clear();
    }

    fn valid_until(&self) -> Instant {
        self.valid_until.get()
    }

    fn set_valid_until(&self, until: Instant) {
        self.valid_until.set(until);
    }

    fn with_recent_writes<R>(&self, _: u64, act: impl FnOnce(&mut RecentWrites) -> R) -> R {
        act(&mut self.recent_writes.borrow_mut())
    }

    fn with_item<R>(&self, hash: u64, act: impl FnOnce(&Rc<Entry>) -> R) -> Option<R> {
        self.all.borrow().get(&hash).map(act)
    }

    fn insert(&self, hash: u64, entry: Rc<Entry>) {
        self.all.borrow_mut().insert(hash, entry);
    }

    fn remove_if(&self, hash: u64, condition: impl FnOnce(&Rc<Entry>) -> bool) {
        let mut all = self.all.borrow_mut();
        if all.get(&hash).is_some_and(condition) {
            all.remove(&hash);
        }
    }

    fn remove_all(&self, condition: impl Fn(&Rc<Entry>) -> bool) {
        self.all.borrow_mut().retain(|_, entry| !condition(entry));
    }

    fn filling<R>(&self, act: impl FnOnce(u64) -> R) -> R {
        act(self.latest_purge.get())
    }

    fn purging(&self, stamp: u64, act: impl FnOnce()) {
        self.latest_purge.set(self.latest_purge.get().max(stamp));
        act();
    }
}

impl ClientNear {
    pub(super) fn new(variant: Option<ClientVariant>) -> Self {
        let mut rules = NearRules::new(Entries::default());
        rules.break_rule(variant);
        let attachment = Attachment::default();
        Self { rules, attachment, following: None, number: 0, lookups: 0, is_wanted: false }
    }

    /// Looks for a key, or begins to read it.
    fn find(
        &mut self,
        key: &Key,
        now: Instant,
        now_us: u64,
    ) -> Result<Rc<Entry>, Option<NearFill>> {
        self.lookups += 1;
        let entries = self.rules.storage();
        let entry = entries.with_item(near_hash(key.as_bytes()), Clone::clone);
        let serves = |entry: &Rc<Entry>| {
            entry.key == *key && self.rules.is_servable(&entry.times, now, NEAR_AGE_MS)
        };
        if let Some(entry) = entry.filter(serves).filter(|_| self.rules.is_followed(now)) {
            return Ok(entry);
        }
        let permit = self.rules.begin_fill(now);
        self.is_wanted |= permit.is_none();
        Err(permit.map(|permit| NearFill { permit, began_us: now_us }))
    }
}

impl World {
    /// Serves a read from the near cache of its client, or returns the read for the nodes.
    pub(super) fn read_near(
        &mut self,
        client: usize,
        mut read: RunningRead,
    ) -> Option<RunningRead> {
        let (now, now_us, key) = (self.client_now(client), self.now_us, read.key);
        let Some(near) = &mut self.clients[client].near else { return Some(read) };
        let entry = match near.find(&self.keys[key], now, now_us) {
            Ok(entry) => entry,
            Err(fill) => {
                read.near = fill;
                return Some(read);
            }
        };
        self.counts.near_hits += 1;
        let Entry { ref value, version, expiry, node, began_us, kept_us, .. } = *entry;
        trace!(self, "client {client} finds {version} of key {key} near");
        let hash = near_hash(self.keys[key].as_bytes());
        self.checker.near_hit(&NearHit { client, key, hash, version, value, began_us, kept_us });
        if let Some(host) = self.checker.host_of(node) {
            let remaining_ms = expiry.since_ms(now);
            self.checker.held(host, &StoredValue { key, version, value, remaining_ms });
        }
        self.check_own(client, &read, Some(version));
        None
    }

    /// The rules of the near cache of a client.
    pub(super) fn near_rules(&self, client: usize) -> Option<&NearRules<impl NearStorage + use<>>> {
        self.clients[client].near.as_ref().map(|near| &near.rules)
    }

    /// Checks at the end that no near cache serves what a purge had ended that a node knows.
    pub(in crate::world) fn check_near_purged(&mut self, latest: &[Option<Version>]) {
        for client in 0..self.clients.len() {
            let now = self.client_now(client);
            let Some(near) = &self.clients[client].near else { continue };
            if !near.rules.is_followed(now) {
                continue;
            }
            let entries = near.rules.storage();
            let serves =
                |entry: &&Rc<Entry>| near.rules.is_servable(&entry.times, now, NEAR_AGE_MS);
            let all: Vec<_> = entries.all.borrow().values().filter(serves).map(Rc::clone).collect();
            for entry in all {
                let Some(key) = self.number_of(&entry.key) else { continue };
                let (value, version) = (&entry.value[..], entry.version);
                let remaining_ms = entry.expiry.since_ms(now);
                let held = StoredValue { key, version, value, remaining_ms };
                let holder = format!("the near cache of client {client}");
                self.checker.check_purged_at_last(&holder, &held, |number| latest[number]);
            }
        }
    }

    /// A write of a client begins, and what it writes may be kept.
    pub(super) fn begin_near_write(&mut self, client: usize, key: usize) -> Option<NearFill> {
        let (now, began_us) = (self.client_now(client), self.now_us);
        let rules = &self.clients[client].near.as_ref()?.rules;
        let permit = rules.begin_fill(now);
        rules.begin_write(self.keys[key].as_bytes());
        permit.map(|permit| NearFill { permit, began_us })
    }

    /// A write of a client has ended, with its version if that is known.
    pub(super) fn end_near_write(&self, client: usize, key: usize, version: Option<Version>) {
        let now = self.client_now(client);
        if let Some(near) = &self.clients[client].near {
            near.rules.end_write(self.keys[key].as_bytes(), version, now);
        }
    }

    /// Keeps what was read or written.
    pub(super) fn keep_near(
        &self,
        client: usize,
        (key, fill): (usize, Option<NearFill>),
        kept: NearValue,
    ) {
        let now = self.client_now(client);
        let Some((near, fill)) = self.clients[client].near.as_ref().zip(fill) else { return };
        let NearFill { permit, began_us } = fill;
        let NearValue { value, metadata, version, remaining_ms, node } = kept;
        let Ok(decoded) = Metadata::decode(&metadata) else { return };
        if let Some(times) = near.rules.times(permit, remaining_ms, &decoded) {
            let (key, expiry) = (self.keys[key].clone(), permit.started().plus_ms(remaining_ms));
            let kept_us = self.now_us;
            let entry =
                Entry { key, times, value, metadata, version, expiry, node, began_us, kept_us };
            near.rules.insert(Rc::new(entry), now);
        }
    }

    /// Sees to it that a node is followed while the client uses its near cache.
    pub(super) fn keep_following(&mut self, client: usize) {
        let now = self.client_now(client);
        let at = &mut self.clients[client];
        let Some(near) = &mut at.near else { return };
        let directory = at.state.directory_mut();
        let is_over = near.following.is_none();
        let is_due = near.attachment.is_due(now, is_over, |node| directory.can_follow(node));
        if near.attachment.node().is_none() && near.following.is_some() {
            self.end_following(client);
        }
        let at = &mut self.clients[client];
        let Some(near) = at.near.as_mut().filter(|near| is_due && near.is_wanted) else { return };
        let Some((node, address)) = at.state.directory_mut().next_feed_node(now) else { return };
        near.attachment.begin(node);
        near.number += 1;
        let (number, follower) = (near.number, FeedFollower::new(now));
        near.following = Some(Following { number, node, address, follower });
        trace!(self, "client {client} follows {node}");
        self.ask_for_changes(client);
    }

    fn ask_for_changes(&mut self, client: usize) {
        let (now, asked_us) = (self.client_now(client), self.now_us);
        let at = &mut self.clients[client];
        let Some(following) = at.near.as_mut().and_then(|near| near.following.as_mut()) else {
            return;
        };
        let Following { number, node, address, ref mut follower } = *following;
        let (request, seen) = (follower.ask(now), at.state.seen());
        let purpose = Purpose::Follow { number, asked_us };
        let timeout_ms = FOLLOW_TIMEOUT_MS;
        self.client_call(client, purpose, (address, Some(node)), request, (timeout_ms, seen));
    }

    /// A request for changes has ended.
    pub(super) fn follow_answered(
        &mut self,
        client: usize,
        (number, asked_us): (u64, u64),
        result: &CallResult,
    ) {
        let now = self.client_now(client);
        let Some(near) = &mut self.clients[client].near else { return };
        // The answer to an earlier following means nothing any more.
        let following = near.following.as_mut().filter(|following| following.number == number);
        let Some(following) = following else { return };
        if let Ok(Response::Changes { lost, changes, purges, .. }) = result {
            let node = following.node;
            self.checker.changes_reported(client, node, asked_us, (*lost, changes, purges));
        }
        let lookups = near.lookups;
        match following.follower.answered(result, || lookups, &near.rules, now) {
            Ok(()) => self.ask_for_changes(client),
            Err(end) => {
                near.is_wanted &= end == FeedEnd::Failed;
                self.end_following(client);
            }
        }
    }

    fn end_following(&mut self, client: usize) {
        let Some(near) = &mut self.clients[client].near else { return };
        near.following = None;
        near.rules.end_following();
        self.checker.following_ended(client);
    }
}
