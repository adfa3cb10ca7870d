//! A node as a state machine: `handle(now, input) -> effects` and `next_deadline()`.
//!
//! [`Node`] dispatches inputs to its parts, which own their state, and composes what one part brings about
//! in another: `Membership` reports changes of members, which `Replication` and `Repair` act on; the
//! `Replica` holds the data with the observers of its changes, leases and the feed. Reads need none of
//! that and go to the shared [`Store`] directly, by [`read`].
//!
//! Invariants: an input is handled without waiting; every call made ends with exactly one
//! `Input::CallCompleted`; every request gets exactly one `Effect::Respond`; all queues are bounded.

mod clocks;
mod conditions;
mod cost;
mod feed;
mod forward;
mod gather;
mod io;
mod leases;
mod loads;
mod local;
mod locate;
mod membership;
mod quota;
mod readiness;
mod reads;
mod repair;
mod replica;
mod replication;
mod requests;
mod status;
#[cfg(test)]
mod tests;
mod watchers;
mod writes;

use alloc::{sync::Arc, vec::Vec};

pub use self::{
    cost::Cost,
    feed::FeedCounts,
    io::{CallId, Caller, ConnectionId, Effect, Event, Input, NodeConfig, RequestId},
    leases::LeaseCounts,
    membership::DatagramCounts,
    quota::RefusalCounts,
    reads::{Identity, ReadPolicy, read},
    repair::{HandoverCounts, PersistedState, RepairCounts},
    replication::{DELAY_REGIONS_MAX, DELAYS_MS, DelayCounts},
    status::{ClusterStatus, NodeStatus, PlacementStatus, RefusedPeer, RegionStatus},
    writes::{Write, WriteOp, WriteScope},
};
use self::{
    forward::Forwards,
    gather::Gatherings,
    loads::Loads,
    local::{CallPurpose, Context, Local},
    locate::Searches,
    membership::{MemberChange, Membership},
    repair::Repair,
    replica::Replica,
    replication::{BatchOutcome, Replication, Waiters},
    watchers::Watchers,
};
use crate::{
    call::CallResult,
    cluster::Member,
    entry::Record,
    store::{Backend, Store},
    time::{Instant, Now},
    version::Incarnation,
    wire::{RefusalCode, Response, features},
};

/// The most expired entries and old tombstones that one tick drops: half a millisecond at worst. While there
/// are more, the next tick is due at once, and other inputs come between.
const SWEEP_MAX: usize = 128;

/// A node that handled nothing for longer was suspended, in milliseconds: it ticks much more often.
pub const PAUSE_MS_MAX: u64 = 2_000;

/// How often expired entries are swept, in milliseconds.
const SWEEP_EVERY_MS: u64 = 250;

/// The most entries that a step of the sweep of purged entries looks at: less than a millisecond even if all of
/// them are dropped.
const PURGE_SWEEP_MAX: usize = 320;

/// The pause between two of these steps, in milliseconds: a million entries take 8 seconds, and a few percent
/// of a core.
const PURGE_SWEEP_EVERY_MS: u64 = 3;

/// A node.
pub struct Node<B: Backend> {
    local: Local,
    replica: Replica<B>,
    membership: Membership,
    watchers: Watchers,
    replication: Replication,
    repair: Repair,
    searches: Searches,
    forwards: Forwards,
    gatherings: Gatherings,
    loads: Loads,
    next_sweep: Instant,
    next_purge_sweep: Instant,
}

/// The parts of a node, borrowed separately, with the context that they work in.
struct Parts<'a, B: Backend> {
    cx: Context<'a, B>,
    membership: &'a mut Membership,
    watchers: &'a mut Watchers,
    replication: &'a mut Replication,
    repair: &'a mut Repair,
    searches: &'a mut Searches,
    forwards: &'a mut Forwards,
    gatherings: &'a mut Gatherings,
}

impl<B: Backend> Node<B> {
    /// A node that starts at `now` and keeps its entries in `store`.
    pub fn new(config: NodeConfig, store: Arc<Store<B>>, now: Now) -> Self {
        let changes_every_ms = config.changes_every_ms;
        let local = Local::new(config, store.retention_ms_max(), now.mono);
        Self {
            replica: Replica::new(local.id(), store, changes_every_ms, now),
            membership: Membership::new(&local, now.mono),
            watchers: Watchers::default(),
            replication: Replication::default(),
            repair: Repair::new(local.id(), now.mono),
            searches: Searches::default(),
            forwards: Forwards::default(),
            gatherings: Gatherings::default(),
            loads: Loads::default(),
            next_sweep: now.mono,
            next_purge_sweep: now.mono,
            local,
        }
    }

    /// Handles one input; the effects are appended to `out`.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        self.handle_all(now, [input], out);
    }

    /// Handles inputs that came together; what they send to a peer goes in as few messages as possible.
    pub fn handle_all(
        &mut self,
        now: Now,
        inputs: impl IntoIterator<Item = Input>,
        out: &mut Vec<Effect>,
    ) {
        let read = now;
        self.note_active(self.local.clocks.adjust(read), out);
        for input in inputs {
            // An input may move the clock.
            self.handle_input(self.local.clocks.adjust(read), input, out);
        }
        let now = self.local.clocks.adjust(read);
        self.repair.scan(&self.replica.store, now, out);
        self.update_leases(now, out);
        let Parts { mut cx, membership, replication, .. } = self.parts(now, out);
        replication.flush_filled(&mut cx, &membership.view);
        let now = self.update_state(now, out);
        let Parts { mut cx, membership, watchers, .. } = self.parts(now, out);
        watchers.answer(&mut cx, &membership.view);
        cx.replica.feed.answer((now, cx.local), cx.out);
    }

    fn handle_input(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        if let Some(input) = self.await_disk(now, input, out) {
            self.carry_out(now, input, out);
        }
    }

    fn carry_out(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Write { id, write } => self.write(now, id, write, out),
            Input::Request { id, connection, caller, message } => {
                self.request(now, (id, connection, caller), message, out);
            }
            Input::ConnectionClosed(connection) => self.connection_closed(now, connection, out),
            Input::CallCompleted { call, result, elapsed_us } => {
                self.call_completed(now, call, result, elapsed_us, out);
            }
            Input::Datagram { from, bytes } => self.with_members(now, out, |membership, cx| {
                membership.datagram_received(cx, from, &bytes);
            }),
            Input::AddressesProposed { addresses, are_configured } => {
                self.with_members(now, out, |members, cx| {
                    members.discovered(cx, addresses, are_configured);
                });
            }
            Input::AddressesChanged(addresses) => {
                self.with_members(now, out, |members, cx| members.addresses_changed(cx, addresses));
            }
            Input::NodeWithdrawn(id) => {
                self.with_members(now, out, |members, cx| members.verify(cx, Some(id)));
            }
            Input::DiscoveryComplete => {
                self.local.readiness.discovery_complete = true;
                self.local.wake_by(Some(now.mono));
            }
            Input::RestoredItems(items) => {
                let Parts { mut cx, repair, .. } = self.parts(now, out);
                repair.restore(&mut cx, items);
            }
            Input::RestoreComplete(state) => {
                let Parts { mut cx, repair, .. } = self.parts(now, out);
                repair.restore_complete(&mut cx, state);
            }
            Input::Loaded(id) => self.loaded(now, id, out),
            Input::Tick => self.tick(now, out),
            Input::Drain => self.drain(now, out),
            Input::Undrain => self.undrain(now, out),
            Input::Shutdown => self.shut_down(now, out),
        }
    }

    /// When [`Input::Tick`] is due next.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        if self.repair.is_scanning() {
            return self.local.readiness.last_active();
        }
        let wake = self.local.wake().min(self.next_sweep).min(self.next_purge_sweep);
        self.replication.flush_at().map_or(wake, |at| at.min(wake))
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Parts { mut cx, membership, replication, .. } = self.parts(now, out);
        replication.tick_outboxes(&mut cx, &membership.view);
        if self.next_sweep <= now.mono {
            let is_swept = self.replica.store.sweep(now, SWEEP_MAX) < SWEEP_MAX;
            self.next_sweep = if is_swept { now.mono.plus_ms(SWEEP_EVERY_MS) } else { now.mono };
        }
        if self.next_purge_sweep <= now.mono {
            let has_more = self.replica.store.sweep_purged(now, PURGE_SWEEP_MAX);
            let soon = now.mono.plus_ms(PURGE_SWEEP_EVERY_MS);
            // Without purges it costs no wake-up of its own.
            self.next_purge_sweep = if has_more { soon } else { self.next_sweep.max(soon) };
        }
        if !self.local.take_tick(now.mono) {
            return;
        }
        self.with_members(now, out, Membership::tick);
        self.replication.report_missed(now, out);
        let now = self.check_clock(now, out);
        let Parts { mut cx, membership, watchers, replication, repair, .. } = self.parts(now, out);
        repair.tick(&mut cx, &membership.view);
        repair.judge_misses(cx.local, &membership.view, now);
        replication.tick(&mut cx);
        cx.local.wake_by(watchers.next_due());
        cx.local.wake_by(cx.replica.leases.next_deadline());
        cx.local.wake_by(cx.replica.feed.next_due());
        cx.local.wake_by(membership.view.candidates().next_dial());
    }

    fn call_completed(
        &mut self,
        now: Now,
        call: CallId,
        result: CallResult,
        elapsed_us: u64,
        out: &mut Vec<Effect>,
    ) {
        let Some(purpose) = self.local.end_call(call) else { return };
        match purpose {
            CallPurpose::Hello { address } => self.with_members(now, out, |members, cx| {
                members.hello_completed(cx, address, result, elapsed_us);
            }),
            CallPurpose::Greet { member } => self.with_members(now, out, |members, cx| {
                members.greet_completed(cx, member, result);
            }),
            CallPurpose::Ping { member } => self.with_members(now, out, |members, cx| {
                members.ping_completed(cx, member, result, elapsed_us);
            }),
            CallPurpose::Gossip { member } => self.with_members(now, out, |members, cx| {
                members.gossip_completed(cx, member, result);
            }),
            CallPurpose::Replicate { member } => {
                self.batch_completed(now, (member, call), result, out);
            }
            CallPurpose::Repair { member, call: kind } => {
                self.with_members(now, out, |members, cx| match &result {
                    Ok(Response::Refused(_)) => {}
                    Ok(_) => members.heard(cx, member),
                    Err(_) => members.suspect(cx, member),
                });
                let Parts { mut cx, membership, repair, .. } = self.parts(now, out);
                let view = &membership.view;
                repair.call_completed(&mut cx, view, (member, call, kind), result);
            }
            CallPurpose::Locate { request, member } => {
                let Parts { mut cx, membership, searches, .. } = self.parts(now, out);
                searches.call_completed(&mut cx, membership, (request, member), result);
            }
            CallPurpose::Forward { request } => {
                let Parts { mut cx, membership, forwards, repair, .. } = self.parts(now, out);
                let view = &membership.view;
                let found = forwards.call_completed(&mut cx, view, request, result);
                found.into_iter().for_each(|record| repair.note_read(&mut cx, record));
            }
            CallPurpose::Gather { request, keys } => {
                let Parts { mut cx, gatherings, .. } = self.parts(now, out);
                gatherings.call_completed(&mut cx, (request, keys), result);
            }
            CallPurpose::Release | CallPurpose::Goodbye => {}
        }
    }

    /// Handles the end of a batch: first as a sign of life of the peer, or of none.
    fn batch_completed(
        &mut self,
        now: Now,
        (peer, call): (Incarnation, CallId),
        result: CallResult,
        out: &mut Vec<Effect>,
    ) {
        let Some(batch) = self.replication.take_batch(peer, call) else { return };
        let outcome = BatchOutcome::of(result, batch.len());
        self.with_members(now, out, |members, cx| match &outcome {
            BatchOutcome::Received(_) => members.heard(cx, peer),
            BatchOutcome::TooLarge => {}
            BatchOutcome::Overloaded => members.overloaded(cx.now, peer),
            BatchOutcome::Failed => members.suspect(cx, peer),
        });
        let Parts { mut cx, membership, replication, .. } = self.parts(now, out);
        replication.batch_completed(&mut cx, &membership.view, peer, (batch, outcome));
    }

    fn connection_closed(&mut self, now: Now, connection: ConnectionId, out: &mut Vec<Effect>) {
        self.repair.connection_closed(connection, out);
        self.end_leases_of(now, connection, out);
        self.gatherings.connection_closed(connection);
        self.drop_loads(connection);
        let Parts { mut cx, membership, watchers, forwards, .. } = self.parts(now, out);
        forwards.connection_closed(&mut cx, &membership.view, connection);
        if !connection.is_single_use() {
            membership.view.candidates_mut().forget(connection.address_source());
        }
        watchers.connection_closed(&mut cx, &membership.view, connection);
        cx.replica.feed.connection_closed(connection, cx.out);
    }

    /// Sends a write to the other nodes that hold its key.
    fn fan_out(&mut self, now: Now, record: &Record, waiters: Waiters, out: &mut Vec<Effect>) {
        let Parts { mut cx, membership, replication, .. } = self.parts(now, out);
        replication.fan_out(&mut cx, &membership.view, record, waiters);
    }

    /// Has membership act, and the other parts act on the changes of members that follow.
    fn with_members<R>(
        &mut self,
        now: Now,
        out: &mut Vec<Effect>,
        act: impl FnOnce(&mut Membership, &mut Context<'_, B>) -> R,
    ) -> R {
        let Parts { mut cx, membership, replication, repair, .. } = self.parts(now, out);
        let result = act(membership, &mut cx);
        while let Some(change) = membership.take_change() {
            let view = &membership.view;
            match change {
                MemberChange::Up(id) => {
                    if let Some(member) = view.member(id).filter(|member| !judges_purges(member)) {
                        cx.out.push(Effect::Event(Event::PurgesIgnored(member.info.clone())));
                    }
                    replication.open(id);
                    repair.peer_up(cx.local, view, now, id);
                }
                MemberChange::Leaving(id) => replication.close(&mut cx, view, id),
                MemberChange::Down(id) => {
                    repair.peer_down(cx.local, view, now, id);
                    replication.close(&mut cx, view, id);
                }
                MemberChange::Placement => repair.placement_changed(&mut cx),
                MemberChange::Removed(id) => {
                    replication.close(&mut cx, view, id);
                    replication.forget(id);
                    repair.peer_down(cx.local, view, now, id);
                }
            }
        }
        result
    }

    fn parts<'a>(&'a mut self, now: Now, out: &'a mut Vec<Effect>) -> Parts<'a, B> {
        let Self { local, replica, membership, watchers, .. } = self;
        let Self { replication, repair, searches, forwards, gatherings, .. } = self;
        Parts {
            cx: Context { now, local, replica, out },
            membership,
            watchers,
            replication,
            repair,
            searches,
            forwards,
            gatherings,
        }
    }
}

/// Whether a member judges entries by purges.
fn judges_purges(member: &Member) -> bool {
    member.features & features::PURGES != 0
}

/// The response to writes before the node has set its clock: it could not judge or stamp them.
fn clock_unset() -> Response {
    Response::refused(RefusalCode::Overloaded, "the node has just started, and sets its clock")
}
