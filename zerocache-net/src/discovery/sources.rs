//! What became of each source: whether it gives addresses, and whether nodes answer there.
//!
//! Sources say what they see, and the receiver of their proposals says where nodes answered. What is
//! missing is named in the log, not more often than every [`REPEAT_MS`], and told to whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{info, warn};
use zerocache_core::time::Instant;

use super::{HostPort, Source};
use crate::clock;

/// How long nobody has to have answered at a name before that is a fault, in milliseconds: nodes that
/// are started one after the other, or again, are there by then.
const SILENT_MS: u64 = 10_000;

/// How long nothing has to have been announced before that is a fault, in milliseconds: the daemon
/// looks for new addresses every 5 s.
const UNANNOUNCED_MS: u64 = 6_000;

/// The least time between two warnings about one source, in milliseconds.
const REPEAT_MS: u64 = 300_000;

/// A configured source, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// Which way of discovery it belongs to.
    pub source: Source,
    /// The name or seed as configured; for mDNS its interface, or `all`.
    pub name: String,
    /// What became of it.
    pub state: SourceState,
}

/// What became of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceState {
    /// It is not known yet, or what is wrong may pass by itself in a moment.
    Waiting,
    /// mDNS is in use; or a node of the cluster answered at an address of this name.
    Works,
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
    /// A word for it, as programs are told.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Works => "works",
            Self::Unresolved(_) => "unresolved",
            Self::Silent => "silent",
            Self::NoInterface => "no-interface",
            Self::Unusable(_) => "unusable",
            Self::NotAnnounced => "not-announced",
        }
    }

    /// What the system said of it.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Unresolved(why) | Self::Unusable(why) => Some(why),
            _ => None,
        }
    }

    /// How long it has to last before it is a fault, in milliseconds; none for what is no fault.
    const fn fault_after_ms(&self) -> Option<u64> {
        match self {
            Self::Waiting | Self::Works => None,
            Self::Unresolved(_) | Self::NoInterface | Self::Unusable(_) => Some(0),
            Self::Silent => Some(SILENT_MS),
            Self::NotAnnounced => Some(UNANNOUNCED_MS),
        }
    }
}

/// All configured sources: their number is bounded by the configuration, and their addresses by
/// [`ADDRESSES_PER_NAME_MAX`](super::ADDRESSES_PER_NAME_MAX).
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<Vec<Watched>>);

/// Names a source among all.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceId(usize);

#[derive(Debug)]
struct Watched {
    source: Source,
    name: String,
    /// What the source said last.
    said: SourceState,
    /// Whether a node answered at each of its addresses; none where that is not known yet.
    answers: BTreeMap<SocketAddr, Option<bool>>,
    state: SourceState,
    since: Instant,
    warned: Option<Instant>,
    /// Whether what was warned of still lasts.
    is_missing: bool,
}

impl Sources {
    pub(super) fn add(&self, source: Source, name: String) -> SourceId {
        let mut all = self.all();
        all.push(Watched {
            source,
            name,
            said: SourceState::Waiting,
            answers: BTreeMap::new(),
            state: SourceState::Waiting,
            since: clock::mono(),
            warned: None,
            is_missing: false,
        });
        SourceId(all.len() - 1)
    }

    pub(super) fn add_name(&self, source: Source, name: &HostPort) -> SourceId {
        self.add(source, name.to_string())
    }

    /// A source says how it is.
    pub(super) fn say(&self, id: SourceId, said: SourceState) {
        self.change(id, |watched| watched.said = said);
    }

    /// A name resolves to these addresses.
    pub(super) fn resolved(&self, id: SourceId, addresses: &[SocketAddr]) {
        self.change(id, |watched| {
            watched.said = SourceState::Works;
            let now: BTreeSet<_> = addresses.iter().collect();
            watched.answers.retain(|address, _| now.contains(address));
            for address in addresses {
                watched.answers.entry(*address).or_default();
            }
        });
    }

    /// Whether a node of the cluster answered at an address.
    pub(super) fn answered(&self, address: SocketAddr, answered: bool) {
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

    /// Warns of what is missing at `now`, and says when it is there again.
    pub(super) fn check(&self, now: Instant) {
        for watched in self.all().iter_mut() {
            watched.check(now);
        }
    }

    fn change(&self, SourceId(at): SourceId, change: impl FnOnce(&mut Watched)) {
        if let Some(watched) = self.all().get_mut(at) {
            change(watched);
            watched.update(clock::mono());
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn update(&mut self, now: Instant) {
        let answered = |wanted| self.answers.values().any(|known| *known == wanted);
        let state = match &self.said {
            SourceState::Works if self.answers.is_empty() || answered(Some(true)) => {
                SourceState::Works
            }
            SourceState::Works if answered(None) => SourceState::Waiting,
            SourceState::Works => SourceState::Silent,
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
        if self.state == SourceState::Works && self.is_missing {
            self.is_missing = false;
            info!(way = self.source.as_str(), name = self.name, "a way of discovery works again");
        }
        let lately = self.warned.is_some_and(|at| now.since_ms(at) < REPEAT_MS);
        if lately || !self.is_fault(now) {
            return;
        }
        (self.warned, self.is_missing) = (Some(now), true);
        let name = &self.name;
        match &self.state {
            SourceState::Waiting | SourceState::Works => {}
            SourceState::Unresolved(error) => {
                warn!(name, error, "name does not resolve; tried again")
            }
            SourceState::Silent => {
                let (way, addresses) = (self.source.as_str(), self.answers.keys());
                let addresses: Vec<_> = addresses.collect();
                warn!(way, name, ?addresses, "no node of the cluster answers there; tried again");
            }
            SourceState::NoInterface => {
                warn!(
                    interface = name,
                    "mDNS waits for an interface that is not here, is down, or has no address"
                );
            }
            SourceState::Unusable(error) => warn!(error, "mDNS cannot be used here; tried again"),
            SourceState::NotAnnounced => warn!(
                interface = name,
                "mDNS announces nothing: no announced address lies on an interface that it uses"
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
    fn a_name_at_which_nobody_answers_is_silent_after_a_while() {
        let (sources, id) = sources();
        sources.resolved(id, &[address(1), address(2)]);
        sources.answered(address(1), false);
        assert_eq!(state(&sources, SILENT_MS), SourceState::Waiting, "one was not tried yet");
        sources.answered(address(2), false);
        assert_eq!(state(&sources, 0), SourceState::Waiting);
        assert_eq!(state(&sources, SILENT_MS), SourceState::Silent);
        sources.answered(address(2), true);
        assert_eq!(state(&sources, SILENT_MS), SourceState::Works);
        // Where a node answered the name leads no more.
        sources.resolved(id, &[address(1)]);
        assert_eq!(state(&sources, SILENT_MS), SourceState::Silent);
        sources.say(id, SourceState::Unresolved("gone".into()));
        assert_eq!(state(&sources, 0), SourceState::Unresolved("gone".into()));
    }

    #[test]
    fn warnings_about_one_source_are_few() {
        let (sources, id) = sources();
        sources.say(id, SourceState::Unresolved("gone".into()));
        let start = clock::mono();
        let warned = |sources: &Sources| sources.all()[0].warned;
        sources.check(start);
        assert_eq!(warned(&sources), Some(start));
        sources.check(start.plus_ms(REPEAT_MS - 1));
        assert_eq!(warned(&sources), Some(start));
        sources.resolved(id, &[]);
        sources.check(start.plus_ms(REPEAT_MS));
        assert!(!sources.all()[0].is_missing);
        sources.say(id, SourceState::Unresolved("gone".into()));
        sources.check(start.plus_ms(2 * REPEAT_MS));
        assert_eq!(warned(&sources), Some(start.plus_ms(2 * REPEAT_MS)));
    }
}
