//! Values from the near cache while no node can be reached.

use bytes::Bytes;
use zerocache_net::clock;

use super::flight::{Leader, Progress};
use super::report::{CallOutcome, LeaseOutcome};
use super::rule::Policy;
use super::run::{Run, Steps};
use super::stage::Step;
use super::stored::Payload;
use crate::ZerocacheClient;
use crate::counters::count;
use crate::near::UnstoredPermit;

/// Returns for how long a call of `client` is served values while no node can be reached, in milliseconds: its own
/// time, or the client's; 0 for not at all.
pub(super) fn outage_ms(client: &ZerocacheClient, own_ms: u64) -> u64 {
    client.local_state().near.as_ref().map_or(0, |near| near.outage_ms(own_ms))
}

/// Returns the value of `key`, if it may be served while no node answers.
pub(super) fn payload(client: &ZerocacheClient, key: &[u8], outage_ms: u64) -> Option<Payload> {
    let near = client.local_state().near.as_ref().filter(|_| outage_ms > 0)?;
    let bytes = near.in_outage(key, outage_ms, |entry| Bytes::copy_from_slice(entry.value()))?;
    Some(Payload::value(bytes))
}

/// Returns the value of `key`, if it was set aside during an outage and has not been read again since.
pub(super) fn payload_set_aside(
    client: &ZerocacheClient,
    key: &[u8],
    outage_ms: u64,
) -> Option<Payload> {
    let near = client.local_state().near.as_ref()?;
    if near.near.has_stranded() { payload(client, key, outage_ms) } else { None }
}

/// Returns the permission to keep a value near that is computed from now on, if it cannot be stored.
pub(super) fn begin_unstored(
    client: &ZerocacheClient,
    key: &[u8],
    outage_ms: u64,
) -> Option<UnstoredPermit> {
    let near = client.local_state().near.as_ref().filter(|_| outage_ms > 0)?;
    Some(near.near.begin_unstored(key, clock::mono()))
}

/// As [`payload`], decoded and counted.
pub(super) fn find_key<T>(
    client: &ZerocacheClient,
    key: &[u8],
    outage_ms: u64,
    policy: &Policy<T>,
) -> Option<T> {
    let near = client.local_state().near.as_ref()?;
    let decode = |entry: &crate::near::NearEntry| (policy.decode)(entry.value()).ok();
    let value = near.in_outage(key, outage_ms, decode).flatten()?;
    count(&client.memo_counters().outage_served);
    Some(value)
}

impl<T> Steps<'_, T> {
    /// Returns for how long this call is served values while no node can be reached; 0 for not at all.
    pub(super) fn outage_ms(&self) -> u64 {
        let run = self.run.filter(|_| self.options.near.is_some());
        run.map_or(0, |run| outage_ms(&run.client, self.options.near_outage_ms))
    }

    /// Returns the value of a call if it is known that no node can be reached, before one is asked.
    pub(super) fn serve_outage(&mut self, run: &Run) -> Option<T> {
        let outage_ms = self.outage_ms();
        if outage_ms == 0 || !run.client.is_cut_off() {
            return None;
        }
        let value = find_key(&run.client, &run.key, outage_ms, self.policy)?;
        self.set_outcome(CallOutcome::Outage);
        Some(value)
    }

    /// Uses a value after no node has answered.
    pub(super) fn after_outage(
        &mut self,
        run: &Run,
        payload: Payload,
        leader: Option<Leader>,
    ) -> Step<T> {
        let counters = run.client.memo_counters();
        match payload.decode(self.policy) {
            Ok(value) => {
                count(&counters.outage_served);
                self.set_outcome(CallOutcome::Outage);
                if let Some(mut leader) = leader {
                    leader.publish(Progress::Outage(payload));
                }
                Step::Value(value)
            }
            Err(_) => {
                count(&counters.misses);
                self.after_miss(leader, (None, 0), None)
            }
        }
    }

    /// Returns true if no node can be asked for a lease, which is noted.
    pub(super) fn goes_without_lease(&mut self, run: &Run) -> bool {
        let is_cut_off = run.client.is_cut_off();
        if is_cut_off {
            count(&run.client.memo_counters().lease_unavailable);
            self.note(|report| report.lease = Some(LeaseOutcome::Unavailable));
        }
        is_cut_off
    }
}
