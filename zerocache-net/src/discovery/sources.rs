//! The state of each source: whether it gives addresses, and whether nodes answer there.
//!
//! Sources report their state, and the receiver of their proposals reports where nodes answered. A fault is
//! logged at most every [`REPEAT_MS`], and shown in the status.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};
use zerocache_core::time::Instant;

use super::{HostPort, Source};
use crate::clock;

/// A name without an answering node is a fault after this time, in milliseconds: nodes that are started one
/// after the other, or restarted, answer by then.
const SILENT_MS: u64 = 10_000;

/// A missing announcement is a fault after this time, in milliseconds: the daemon checks for new addresses
/// every 5 s.
const UNANNOUNCED_MS: u64 = 6_000;

/// The least time between two warnings about one source, in milliseconds.
const REPEAT_MS: u64 = 300_000;

/// The status of a configured source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// The kind of source.
    pub source: Source,
    /// The name or seed as configured; for mDNS its interface, or `all`.
    pub name: String,
    /// Its state.
    pub state: SourceState,
}

/// The state of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceState {
    /// Not known yet, or a fault that may pass by itself in a moment.
    Waiting,
    /// mDNS is in use; or a node of the cluster answered at an address of this name.
    Working,
    /// The name does not resolve.
    Unresolved(String),
    /// No node of the cluster answers at any address of the name.
    Silent,
    /// The interface that mDNS is to use is not here, is down, or has no address.
    NoInterface,
    /// mDNS cannot be used here.
    Unusable(String),
    /// mDNS announces nothing, because no announced address lies on an interface that it uses.
    NotAnnounced,
}

impl SourceState {
    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Working => "works",
            Self::Unresolved(_) => "unresolved",
            Self::Silent => "silent",
            Self::NoInterface => "no-interface",
            Self::Unusable(_) => "unusable",
            Self::NotAnnounced => "not-announced",
        }
    }

    /// The error of the system, if the state has one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Unresolved(why) | Self::Unusable(why) => Some(why),
            _ => None,
        }
    }

    /// The time after which the state is a fault, in milliseconds; none for states that are no fault.
    const fn fault_after_ms(&self) -> Option<u64> {
        match self {
            Self::Waiting | Self::Working => None,
            Self::Unresolved(_) | Self::NoInterface | Self::Unusable(_) => Some(0),
            Self::Silent => Some(SILENT_MS),
            Self::NotAnnounced => Some(UNANNOUNCED_MS),
        }
    }
}

/// All configured sources: their number is bounded by the configuration, and their addresses by
/// [`ADDRESSES_PER_NAME_MAX`](super::ADDRESSES_PER_NAME_MAX).
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<Vec<MonitoredSource>>);

/// The index of a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceId(usize);

#[derive(Debug)]
struct MonitoredSource {
    source: Source,
    name: String,
    /// The state that the source reported last.
    reported: SourceState,
    /// Whether a node answered at each of its addresses; none where that is unknown.
    answers: BTreeMap<SocketAddr, Option<bool>>,
    state: SourceState,
    since: Instant,
    logged: Option<Instant>,
    /// Whether the fault that was logged persists.
    is_faulty: bool,
}

impl Sources {
    pub(super) fn add(&self, source: Source, name: String) -> SourceId {
        let mut all = self.all();
        all.push(MonitoredSource {
            source,
            name,
            reported: SourceState::Waiting,
            answers: BTreeMap::new(),
            state: SourceState::Waiting,
            since: clock::mono(),
            logged: None,
            is_faulty: false,
        });
        SourceId(all.len() - 1)
    }

    pub(super) fn add_name(&self, source: Source, name: &HostPort) -> SourceId {
        self.add(source, name.to_string())
    }

    /// Sets the state that a source reports.
    pub(super) fn set_state(&self, id: SourceId, state: SourceState) {
        self.change(id, |watched| watched.reported = state);
    }

    /// Sets the addresses to which a name resolves.
    pub(super) fn resolved(&self, id: SourceId, addresses: &[SocketAddr]) {
        self.change(id, |watched| {
            watched.reported = SourceState::Working;
            let now: BTreeSet<_> = addresses.iter().collect();
            watched.answers.retain(|address, _| now.contains(address));
            for address in addresses {
                watched.answers.entry(*address).or_default();
            }
        });
    }

    /// Records whether a node of the cluster answered at an address.
    pub(super) fn record_answer(&self, address: SocketAddr, answered: bool) {
        let now = clock::mono();
        for watched in self.all().iter_mut() {
            if let Some(known) = watched.answers.get_mut(&address) {
                *known = Some(answered);
                watched.update(now);
            }
        }
    }

    pub(super) fn status(&self) -> Vec<SourceStatus> {
        let now = clock::mono();
        self.all().iter().map(|watched| watched.status(now)).collect()
    }

    /// Logs the faults at `now`, and the end of those that were logged.
    pub(super) fn check(&self, now: Instant) {
        for watched in self.all().iter_mut() {
            watched.check(now);
        }
    }

    fn change(&self, SourceId(at): SourceId, change: impl FnOnce(&mut MonitoredSource)) {
        if let Some(watched) = self.all().get_mut(at) {
            change(watched);
            watched.update(clock::mono());
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<MonitoredSource>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MonitoredSource {
    fn update(&mut self, now: Instant) {
        let answered = |wanted| self.answers.values().any(|known| *known == wanted);
        let state = match &self.reported {
            SourceState::Working if self.answers.is_empty() || answered(Some(true)) => {
                SourceState::Working
            }
            SourceState::Working if answered(None) => SourceState::Waiting,
            SourceState::Working => SourceState::Silent,
            other => other.clone(),
        };
        if state.as_str() != self.state.as_str() {
            self.since = now;
        }
        self.state = state;
    }

    fn is_fault(&self, now: Instant) -> bool {
        self.state.fault_after_ms().is_some_and(|ms| now.since_ms(self.since) >= ms)
    }

    fn status(&self, now: Instant) -> SourceStatus {
        let passing = self.state.fault_after_ms().is_some() && !self.is_fault(now);
        let state = if passing { SourceState::Waiting } else { self.state.clone() };
        SourceStatus { source: self.source, name: self.name.clone(), state }
    }

    fn check(&mut self, now: Instant) {
        if self.state == SourceState::Working && self.is_faulty {
            self.is_faulty = false;
            info!(source = self.source.as_str(), name = self.name, "discovery source works again");
        }
        let lately = self.logged.is_some_and(|at| now.since_ms(at) < REPEAT_MS);
        if lately || !self.is_fault(now) {
            return;
        }
        (self.logged, self.is_faulty) = (Some(now), true);
        let name = &self.name;
        match &self.state {
            SourceState::Waiting | SourceState::Working => {}
            SourceState::Unresolved(error) => {
                warn!(name, error, "name does not resolve; retrying")
            }
            SourceState::Silent => {
                let (source, addresses) = (self.source.as_str(), self.answers.keys());
                let addresses: Vec<_> = addresses.collect();
                warn!(
                    source,
                    name,
                    ?addresses,
                    "no node of the cluster answers at these addresses; retrying"
                );
            }
            SourceState::NoInterface => {
                warn!(
                    interface = name,
                    "mDNS interface is missing, down, or without an address; waiting for it"
                );
            }
            SourceState::Unusable(error) => warn!(error, "mDNS cannot be used; retrying"),
            SourceState::NotAnnounced => warn!(
                interface = name,
                "mDNS announces nothing: none of the node's addresses is on an interface that mDNS uses"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> (Sources, SourceId) {
        let sources = Sources::default();
        let id = sources.add(Source::Seed, "cache:1".into());
        (sources, id)
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 1))
    }

    fn state(sources: &Sources, after_ms: u64) -> SourceState {
        let now = clock::mono().plus_ms(after_ms);
        sources.all()[0].status(now).state
    }

    #[test]
    fn name_without_an_answering_node_becomes_silent() {
        let (sources, id) = sources();
        sources.resolved(id, &[address(1), address(2)]);
        sources.record_answer(address(1), false);
        assert_eq!(
            state(&sources, SILENT_MS),
            SourceState::Waiting,
            "one address was not tried yet"
        );
        sources.record_answer(address(2), false);
        assert_eq!(state(&sources, 0), SourceState::Waiting);
        assert_eq!(state(&sources, SILENT_MS), SourceState::Silent);
        sources.record_answer(address(2), true);
        assert_eq!(state(&sources, SILENT_MS), SourceState::Working);
        // The name no longer resolves to the address where a node answered.
        sources.resolved(id, &[address(1)]);
        assert_eq!(state(&sources, SILENT_MS), SourceState::Silent);
        sources.set_state(id, SourceState::Unresolved("gone".into()));
        assert_eq!(state(&sources, 0), SourceState::Unresolved("gone".into()));
    }

    #[test]
    fn faults_of_one_source_are_logged_rarely() {
        let (sources, id) = sources();
        sources.set_state(id, SourceState::Unresolved("gone".into()));
        let start = clock::mono();
        let logged = |sources: &Sources| sources.all()[0].logged;
        sources.check(start);
        assert_eq!(logged(&sources), Some(start));
        sources.check(start.plus_ms(REPEAT_MS - 1));
        assert_eq!(logged(&sources), Some(start));
        sources.resolved(id, &[]);
        sources.check(start.plus_ms(REPEAT_MS));
        assert!(!sources.all()[0].is_faulty);
        sources.set_state(id, SourceState::Unresolved("gone".into()));
        sources.check(start.plus_ms(2 * REPEAT_MS));
        assert_eq!(logged(&sources), Some(start.plus_ms(2 * REPEAT_MS)));
    }
}
