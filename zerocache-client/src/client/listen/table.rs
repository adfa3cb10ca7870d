//! The listeners of a client, and which changes concern them.
//!
//! All of them share one sequence of changes, that of the node which the client follows. A change of a key is found
//! by its hash, one of a tag or namespace by its identity, however many listeners there are.

use std::{collections::HashMap, mem, sync::Arc, task::Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use zerocache_core::{access::Denial, client::near_hash, purge::TargetId, wire::ChangeRow};

use super::{Change, Subject, queue::Queue};
use crate::Error;

/// The listeners of a client.
#[derive(Debug, Default)]
pub(in crate::client) struct Listeners {
    table: Mutex<Table>,
    joined: Notify,
}

/// How the client asks a node for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client) enum Mode {
    /// Nobody listens.
    Follow,
    /// Somebody listens; `at_once` if somebody waits for that to begin.
    Listen { at_once: bool },
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    queues: HashMap<u64, Arc<Queue>>,
    keys: HashMap<u64, Vec<Listener>>,
    /// Those who listen to a tag or namespace.
    targets: HashMap<TargetId, Vec<Listener>>,
    /// Those who listen to a key of a namespace or function.
    owners: HashMap<TargetId, Vec<Listener>>,
    /// All changes are reported, since the last response of a node.
    is_on: bool,
    /// What the node says that does not allow it.
    forbidden: Option<String>,
    /// The last change: rows that say to what an entry belongs are about it.
    row: Option<ChangeRow>,
}

/// A listener, and what it listens to.
#[derive(Clone, Debug)]
struct Listener {
    number: u64,
    queue: Arc<Queue>,
    subject: Subject,
}

/// The place of a listener; without it nothing is reported.
#[derive(Debug)]
pub(super) struct Subscription {
    number: u64,
    listeners: Arc<Listeners>,
    pub(super) queue: Arc<Queue>,
    subjects: Vec<Subject>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.listeners.table.lock().remove(self.number, &self.subjects);
    }
}

/// The following of a node. When it ends, listeners hear of it.
pub(in crate::client) struct FollowGuard(Arc<Listeners>);

impl Drop for FollowGuard {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

impl Listeners {
    /// Adds a listener.
    pub(super) fn join(self: &Arc<Self>, subjects: Vec<Subject>) -> Subscription {
        let queue = Arc::new(Queue::default());
        let number = {
            let mut table = self.table.lock();
            table.last += 1;
            let number = table.last;
            table.queues.insert(number, Arc::clone(&queue));
            for subject in &subjects {
                let (queue, subject) = (Arc::clone(&queue), subject.clone());
                table.add(&Listener { number, queue, subject });
            }
            if let Some(text) = &table.forbidden {
                queue.fail(forbidden(text.clone()));
            } else if table.is_on {
                queue.begin();
            }
            number
        };
        self.joined.notify_one();
        Subscription { number, listeners: Arc::clone(self), queue, subjects }
    }

    /// Whether somebody listens, as far as that is allowed.
    pub(in crate::client) fn are_wanted(&self) -> bool {
        self.table.lock().are_wanted()
    }

    /// How the next changes are asked for.
    pub(in crate::client) fn mode(&self) -> Mode {
        let mut table = self.table.lock();
        if table.are_wanted() {
            return Mode::Listen { at_once: !table.is_on };
        }
        (table.is_on, table.row) = (false, None);
        Mode::Follow
    }

    /// Waits for another listener.
    pub(in crate::client) async fn joined(&self) {
        self.joined.notified().await;
    }

    /// A node is followed until the result is dropped.
    pub(in crate::client) fn followed(self: &Arc<Self>) -> FollowGuard {
        FollowGuard(Arc::clone(self))
    }

    /// Reports changes. With `lost` some before them are missing.
    pub(in crate::client) fn report(&self, rows: &[ChangeRow], lost: bool) {
        let mut wakers = Vec::new();
        {
            let mut table = self.table.lock();
            if lost || !table.is_on {
                table.row = None;
                table.to_all(&Change::Gap, &mut wakers);
            }
            rows.iter().for_each(|row| table.report(*row, &mut wakers));
            // Who comes new hears what comes after these.
            if !table.queues.is_empty() && !mem::replace(&mut table.is_on, true) {
                wakers.extend(table.queues.values().filter_map(|queue| queue.begin()));
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Changes are missed from here on.
    pub(in crate::client) fn interrupt(&self) {
        let mut wakers = Vec::new();
        {
            let mut table = self.table.lock();
            if mem::take(&mut table.is_on) {
                table.row = None;
                table.to_all(&Change::Interrupted, &mut wakers);
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// No node reports changes to this client, with its present credentials.
    pub(in crate::client) fn forbid(&self, text: &str) {
        let wakers: Vec<_> = {
            let mut table = self.table.lock();
            table.forbidden = Some(text.to_owned());
            let error = forbidden(text.to_owned());
            table.queues.values().filter_map(|queue| queue.fail(error.clone())).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nodes may report changes to this client again, as far as it knows: it has other credentials.
    pub(in crate::client) fn permit(&self) {
        self.table.lock().forbidden = None;
    }
}

fn forbidden(text: String) -> Error {
    Error::Denied { reason: Denial::Forbidden.into(), text }
}

impl Table {
    fn are_wanted(&self) -> bool {
        !self.queues.is_empty() && self.forbidden.is_none()
    }

    fn add(&mut self, listener: &Listener) {
        let place = |list: &mut Vec<Listener>| list.push(listener.clone());
        match &listener.subject {
            Subject::Key(key) => {
                place(self.keys.entry(near_hash(key)).or_default());
                for owner in owners(key) {
                    place(self.owners.entry(owner).or_default());
                }
            }
            subject => place(self.targets.entry(subject.target()).or_default()),
        }
    }

    fn remove(&mut self, number: u64, subjects: &[Subject]) {
        self.queues.remove(&number);
        for subject in subjects {
            match subject {
                Subject::Key(key) => {
                    leave(&mut self.keys, &near_hash(key), number);
                    for owner in owners(key) {
                        leave(&mut self.owners, &owner, number);
                    }
                }
                subject => leave(&mut self.targets, &subject.target(), number),
            }
        }
        for map in [&mut self.targets, &mut self.owners] {
            if map.is_empty() {
                map.shrink_to_fit();
            }
        }
        if self.keys.is_empty() {
            self.keys.shrink_to_fit();
        }
    }

    fn to_all(&self, change: &Change, wakers: &mut Vec<Waker>) {
        wakers.extend(self.queues.values().filter_map(|queue| queue.push(change.clone())));
    }

    /// Reports one change to those whom it concerns.
    fn report(&mut self, row: ChangeRow, wakers: &mut Vec<Waker>) {
        let none = &Vec::new();
        let (about, lists) = match row {
            ChangeRow::Written { key, .. } | ChangeRow::Deleted { key, .. } => {
                (row, [self.keys.get(&key), None])
            }
            ChangeRow::Purged { target: TargetId::EVERYTHING, .. } => {
                self.row = Some(row);
                let subject = Subject::Everything;
                return self.to_all(&Change::Purged { subject }, wakers);
            }
            ChangeRow::Purged { target, .. } => {
                (row, [self.targets.get(&target), self.owners.get(&target)])
            }
            ChangeRow::Target(target) => {
                let Some(about) = self.row else { return };
                (about, [self.targets.get(&target), None])
            }
        };
        for listener in lists.into_iter().flat_map(|list| list.unwrap_or(none)) {
            wakers.extend(listener.queue.push(change(about, listener.subject.clone())));
        }
        self.row = Some(about);
    }
}

/// What a row says of a subject that it concerns.
fn change(row: ChangeRow, subject: Subject) -> Change {
    match row {
        ChangeRow::Written { version, .. } => Change::Written { subject, version },
        ChangeRow::Deleted { version, .. } => Change::Deleted { subject, version },
        ChangeRow::Purged { .. } | ChangeRow::Target(_) => Change::Purged { subject },
    }
}

/// The namespace and the function that a memoized key is of.
fn owners(key: &Bytes) -> impl Iterator<Item = TargetId> + use<> {
    TargetId::of_key(key).into_iter().flatten()
}

fn leave<K: std::hash::Hash + Eq>(map: &mut HashMap<K, Vec<Listener>>, at: &K, number: u64) {
    let Some(list) = map.get_mut(at) else { return };
    // In the order of their numbers, because that is how they came.
    let first = list.partition_point(|listener| listener.number < number);
    let count = list[first..].iter().take_while(|listener| listener.number == number).count();
    list.drain(first..first + count);
    if list.is_empty() {
        map.remove(at);
    }
}
