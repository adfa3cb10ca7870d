//! Browsing of mDNS records. It also decides when silence means that there is no record.
//!
//! The daemon reports its own records, and silently ends a browse whose receiver is slow; both are handled
//! here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use mdns_sd::{ResolvedService, ServiceEvent};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, Sleep, sleep};
use tracing::debug;

use super::event_sender::{Closed, EventSender};
use super::mdns::{Mdns, MdnsEvents};
use super::record::{self, Reject};
use super::{Proposal, RECORDS_MAX};

/// Silence counts once this many questions were sent. Nobody repeats a record within a second (RFC 6762,
/// section 6), so that the first question stays without an answer where somebody else asked, or a node
/// announced itself, just before this process listened. The daemon sends the second one a second later:
/// by then every record was repeated, or may be.
const QUESTIONS: u32 = 2;

/// The daemon says once that it browses, and then with each question.
const SEARCHES: u32 = 1 + QUESTIONS;

/// How long answers to the last question are waited for. Responders wait at random up to 120 ms
/// (RFC 6762, section 6); the rest is for machines with much to do.
const ANSWER_MAX: Duration = Duration::from_millis(400);

/// How often records that were found are checked for completeness.
const RESOLVE_PAUSE: Duration = Duration::from_millis(50);

/// The pause before a browse that ended is restarted.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// How often the daemon and its interface are checked.
const MAINTAIN_EVERY: Duration = Duration::from_secs(1);

/// Browses until the receiver of the events is gone.
pub(super) async fn run(
    mdns: Arc<Mdns>,
    cluster: String,
    interval: Duration,
    (events, first_answer): (EventSender, mpsc::Sender<()>),
) {
    let first_answer = FirstAnswer { awaited: Some(first_answer), ..FirstAnswer::default() };
    let (records, next) = (BTreeMap::new(), String::new());
    let mut browse = Browse { mdns, cluster, records, next, events, first_answer };
    let mut times = Intervals { again: every(interval), maintain: every(MAINTAIN_EVERY) };
    times.again.tick().await;
    loop {
        if let Some(heard) = browse.mdns.browse() {
            if browse.listen(&heard, &mut times).await.is_err() {
                return;
            }
            // The daemon ended this browse. A new one reports all valid records again.
            browse.records.clear();
            browse.first_answer.restart();
            browse.events.counters.browse_restarts.add(1);
            sleep(RESTART_PAUSE).await;
        } else {
            tokio::select! {
                _ = times.maintain.tick() => browse.mdns.maintain(),
                () = browse.events.closed() => return,
            }
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The periodic work.
struct Intervals {
    /// Proposing everything that is known.
    again: Interval,
    /// Maintaining the daemon.
    maintain: Interval,
}

/// When the first answer has come: after [`QUESTIONS`] questions, and once everything that was found by
/// then is whole.
#[derive(Default)]
struct FirstAnswer {
    /// Dropped when it has come.
    awaited: Option<mpsc::Sender<()>>,
    searches: u32,
    due: Option<Pin<Box<Sleep>>>,
    /// Records of which address or text are still missing.
    unresolved: BTreeSet<String>,
}

impl FirstAnswer {
    fn restart(&mut self) {
        (self.searches, self.due) = (0, None);
        self.unresolved.clear();
    }

    fn note(&mut self, event: &ServiceEvent, can_query: bool) {
        if self.awaited.is_none() {
            return;
        }
        match event {
            ServiceEvent::SearchStarted(_) if can_query => {
                self.searches += 1;
                if self.searches == SEARCHES {
                    self.due = Some(Box::pin(sleep(ANSWER_MAX)));
                }
            }
            ServiceEvent::ServiceFound(_, name) if self.unresolved.len() < RECORDS_MAX => {
                self.unresolved.insert(name.clone());
            }
            ServiceEvent::ServiceResolved(service) => {
                self.unresolved.remove(service.get_fullname());
            }
            ServiceEvent::ServiceRemoved(_, name) => {
                self.unresolved.remove(name);
            }
            _ => {}
        }
    }

    /// Ends the wait for answers, once everything that was found is complete.
    fn time_passed(&mut self) {
        let is_late = self.awaited.as_ref().is_none_or(mpsc::Sender::is_closed);
        if is_late || self.unresolved.is_empty() {
            (self.awaited, self.due) = (None, None);
            self.unresolved.clear();
        } else {
            self.due = Some(Box::pin(sleep(RESOLVE_PAUSE)));
        }
    }
}

/// Waits for a timer, or for ever without one.
async fn wait_for(time: &mut Option<Pin<Box<Sleep>>>) {
    match time {
        Some(time) => time.await,
        None => std::future::pending().await,
    }
}

/// A browse, with the valid records by their full names.
struct Browse {
    mdns: Arc<Mdns>,
    cluster: String,
    records: BTreeMap<String, Proposal>,
    /// The record to begin with when all are proposed again.
    next: String,
    events: EventSender,
    first_answer: FirstAnswer,
}

impl Browse {
    /// Listens until the browse ends.
    async fn listen(&mut self, heard: &MdnsEvents, times: &mut Intervals) -> Result<(), Closed> {
        let mut daemon_runs = true;
        loop {
            tokio::select! {
                event = heard.services.recv_async() => match event {
                    Ok(event) => self.take(event)?,
                    Err(_) => return Ok(()),
                },
                _ = times.again.tick() => self.propose_again()?,
                _ = times.maintain.tick() => self.mdns.maintain(),
                event = heard.daemon.recv_async(), if daemon_runs => match event {
                    Ok(event) => self.mdns.note(&event),
                    Err(_) => daemon_runs = false,
                },
                () = wait_for(&mut self.first_answer.due) => self.first_answer.time_passed(),
                () = self.events.closed() => return Err(Closed),
            }
        }
    }

    fn take(&mut self, event: ServiceEvent) -> Result<(), Closed> {
        self.first_answer.note(&event, self.mdns.can_query());
        match event {
            ServiceEvent::ServiceResolved(service) => self.resolved(&service),
            ServiceEvent::ServiceRemoved(_, name) => match self.records.remove(&name) {
                Some(proposal) => self.events.withdraw(proposal),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn resolved(&mut self, service: &ResolvedService) -> Result<(), Closed> {
        let name = service.get_fullname();
        let counters = &self.events.counters;
        let proposal = match record::proposal(service, &self.cluster) {
            Ok(proposal) if self.mdns.is_own(&proposal) => return Ok(()),
            Ok(proposal) => proposal,
            Err(reject) => {
                match reject {
                    Reject::OtherCluster => counters.other_cluster.add(1),
                    _ => counters.malformed.add(1),
                }
                debug!(name, ?reject, "mDNS record ignored");
                self.records.remove(name);
                return Ok(());
            }
        };
        if self.records.len() >= RECORDS_MAX && !self.records.contains_key(name) {
            counters.over_limit.add(1);
            self.forget_one();
        }
        self.records.insert(name.to_owned(), proposal.clone());
        self.events.propose(proposal).map(drop)
    }

    /// Makes room by forgetting the record that had its turn last, so that a flood of forged records
    /// does not keep a real one out.
    fn forget_one(&mut self) {
        let before = (Bound::Unbounded, Bound::Excluded(&self.next[..]));
        let last = self.records.range::<str, _>(before).next_back();
        if let Some(name) = last.or(self.records.last_key_value()).map(|(name, _)| name.clone()) {
            self.records.remove(&name);
        }
    }

    /// Proposes all records until the channel is full, and the rest first the next time: with more
    /// records than the channel holds, each still has its turn.
    fn propose_again(&mut self) -> Result<(), Closed> {
        let from = self.next.clone();
        let first = self.records.range::<str, _>((Bound::Included(&from[..]), Bound::Unbounded));
        let then = self.records.range::<str, _>((Bound::Unbounded, Bound::Excluded(&from[..])));
        for (name, proposal) in first.chain(then) {
            if !self.events.propose(proposal.clone())? {
                self.next.clone_from(name);
                break;
            }
        }
        Ok(())
    }
}
