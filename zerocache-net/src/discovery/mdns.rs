//! The mDNS source: one daemon, one browse, at most two records of our own.
//!
//! The daemon is a thread with a socket on port 5353. It hears its own records, ends a browse whose
//! receiver is slow without a word, and lives on when its handle is dropped; all three are dealt
//! with here.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mdns_sd::{DaemonEvent, Error, IfKind, Receiver, ResolvedService, ServiceDaemon, ServiceEvent};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, sleep, timeout};
use tracing::{debug, info, warn};

use super::outlet::{Closed, Outlet};
use super::record::{self, Reject, TYPE_LEN_MAX, TYPE_NATIVE};
use super::{Announcement, DiscoveryError, MdnsConfig, Proposal, RECORDS_MAX};

/// The longest wait for the daemon to say that a goodbye is sent.
pub(super) const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// The longest wait for the daemon's thread to end.
const EXIT_MAX: Duration = Duration::from_secs(1);

/// Silence has no end, so the first answer is what came within this time. A record that exists is
/// found in 50 to 75 ms where both sides wait at random up to 120 ms (RFC 6762, sections 5.2 and 6).
/// A node that announced itself less than a second ago does not answer; it is found when it
/// announces itself the second time, after a good second.
const FIRST_ANSWER: Duration = Duration::from_millis(300);

/// Pause before a browse that ended is begun again.
const RESTART_PAUSE: Duration = Duration::from_millis(100);

/// The daemon and what was announced through it.
pub(super) struct Mdns {
    daemon: ServiceDaemon,
    own: Mutex<Own>,
}

#[derive(Default)]
struct Own {
    /// Kept after the withdrawal: our own record may still come in late.
    incarnation: Option<u64>,
    /// Full names of the records that are registered.
    announced: Vec<String>,
}

impl Mdns {
    /// Starts the daemon on the chosen interface; `None` if this machine cannot.
    pub(super) fn start(config: &MdnsConfig) -> Option<Self> {
        match start_daemon(config) {
            Ok(daemon) => Some(Self { daemon, own: Mutex::default() }),
            Err(error) => {
                warn!(%error, "mDNS cannot be used here");
                None
            }
        }
    }

    pub(super) fn announce(
        &self,
        cluster: &str,
        announcement: &Announcement,
    ) -> Result<(), DiscoveryError> {
        let mut services = vec![record::native(cluster, announcement)?];
        if announcement.python {
            match record::python(announcement)? {
                Some(service) => services.push(service),
                None => {
                    warn!("no IPv4 address to announce: Python clients will not find this node")
                }
            }
        }
        let mut own = self.own();
        own.incarnation = Some(announcement.incarnation);
        let before = std::mem::take(&mut own.announced);
        for service in services {
            own.announced.push(service.get_fullname().to_owned());
            self.daemon.register(service)?;
        }
        for gone in before.iter().filter(|name| !own.announced.contains(*name)) {
            self.daemon.unregister(gone)?;
        }
        info!(
            region = announcement.region,
            port = announcement.port,
            addresses = ?announcement.addresses,
            "announced by mDNS"
        );
        Ok(())
    }

    pub(super) async fn withdraw(&self) {
        let announced = std::mem::take(&mut self.own().announced);
        let sent: Vec<_> =
            announced.iter().filter_map(|name| self.daemon.unregister(name).ok()).collect();
        let all = async {
            for status in &sent {
                let _ = status.recv_async().await;
            }
        };
        if timeout(GOODBYE_MAX, all).await.is_err() {
            debug!("the mDNS goodbye may not have been sent");
        }
    }

    pub(super) async fn shutdown(&self) {
        let mut ended = self.daemon.shutdown();
        while matches!(ended, Err(Error::Again)) {
            sleep(Duration::from_millis(10)).await;
            ended = self.daemon.shutdown();
        }
        if let Ok(ended) = ended {
            let _ = timeout(EXIT_MAX, ended.recv_async()).await;
        }
    }

    fn is_own(&self, proposal: &Proposal) -> bool {
        proposal.incarnation.is_some() && proposal.incarnation == self.own().incarnation
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        let _ = self.daemon.shutdown();
    }
}

impl std::fmt::Debug for Mdns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mdns").field("announced", &self.own().announced).finish_non_exhaustive()
    }
}

fn start_daemon(config: &MdnsConfig) -> Result<ServiceDaemon, Error> {
    let daemon = ServiceDaemon::new()?;
    let configure = || {
        daemon.set_service_name_len_max(TYPE_LEN_MAX)?;
        if let Some(interface) = &config.interface {
            if !interface.is_present() {
                warn!(%interface, "mDNS waits for an interface that is not here");
            }
            daemon.disable_interface(IfKind::All)?;
            daemon.enable_interface(interface.kind())?;
        }
        Ok(())
    };
    configure().inspect_err(|_| drop(daemon.shutdown()))?;
    Ok(daemon)
}

/// Browses until the receiver of the events or the daemon is gone.
pub(super) async fn run(
    mdns: Arc<Mdns>,
    cluster: String,
    interval: Duration,
    outlet: Outlet,
    first_answer: mpsc::Sender<()>,
) {
    let mut browse =
        Browse { mdns, cluster, records: BTreeMap::new(), turn: String::new(), outlet };
    let mut first_answer = Some(first_answer);
    let mut monitor = browse.mdns.daemon.monitor().ok();
    let mut again = tokio::time::interval(interval);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    again.tick().await;
    let mut first_wait = std::pin::pin!(sleep(FIRST_ANSWER));
    loop {
        let events = match browse.mdns.daemon.browse(TYPE_NATIVE) {
            Ok(events) => events,
            Err(Error::Again) => {
                sleep(RESTART_PAUSE).await;
                continue;
            }
            Err(error) => {
                debug!(%error, "mDNS browsing ended");
                return;
            }
        };
        loop {
            let went_on = tokio::select! {
                event = events.recv_async() => match event {
                    Ok(event) => browse.take(event),
                    Err(_) => break,
                },
                _ = again.tick() => browse.propose_again(),
                event = next_of(&monitor) => {
                    match event {
                        Some(event) => report(&event),
                        None => monitor = None,
                    }
                    Ok(())
                }
                () = &mut first_wait, if first_answer.is_some() => {
                    drop(first_answer.take());
                    Ok(())
                }
                () = browse.outlet.closed() => Err(Closed),
            };
            if went_on.is_err() {
                return;
            }
        }
        // The daemon gave this browse up. A new one hears everything again that still stands.
        browse.records.clear();
        browse.outlet.counters.browse_restarts.add(1);
        sleep(RESTART_PAUSE).await;
    }
}

/// The next event of the daemon itself, or `None` once it speaks no more; waits for ever without it.
async fn next_of(monitor: &Option<Receiver<DaemonEvent>>) -> Option<DaemonEvent> {
    match monitor {
        Some(monitor) => monitor.recv_async().await.ok(),
        None => std::future::pending().await,
    }
}

fn report(event: &DaemonEvent) {
    match event {
        DaemonEvent::Error(error) => warn!(%error, "mDNS"),
        DaemonEvent::NameChange(change) => {
            warn!(from = change.original, to = change.new_name, "mDNS name was taken");
        }
        other => debug!(?other, "mDNS"),
    }
}

/// What is known by browsing: the records that stand, by their full name.
struct Browse {
    mdns: Arc<Mdns>,
    cluster: String,
    records: BTreeMap<String, Proposal>,
    /// The record to begin with when all are proposed again.
    turn: String,
    outlet: Outlet,
}

impl Browse {
    fn take(&mut self, event: ServiceEvent) -> Result<(), Closed> {
        match event {
            ServiceEvent::ServiceResolved(service) => self.resolved(&service),
            ServiceEvent::ServiceRemoved(_, name) => match self.records.remove(&name) {
                Some(proposal) => self.outlet.withdraw(proposal),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn resolved(&mut self, service: &ResolvedService) -> Result<(), Closed> {
        let name = service.get_fullname();
        let counters = &self.outlet.counters;
        let proposal = match record::proposal(service, &self.cluster) {
            Ok(proposal) if self.mdns.is_own(&proposal) => return Ok(()),
            Ok(proposal) => proposal,
            Err(reject) => {
                match reject {
                    Reject::OtherCluster => counters.other_cluster.add(1),
                    _ => counters.malformed.add(1),
                }
                debug!(name, ?reject, "mDNS record not taken");
                self.records.remove(name);
                return Ok(());
            }
        };
        if self.records.len() >= RECORDS_MAX && !self.records.contains_key(name) {
            counters.over_limit.add(1);
            self.forget_one();
        }
        self.records.insert(name.to_owned(), proposal.clone());
        self.outlet.propose(proposal).map(drop)
    }

    /// Makes room by forgetting the record that had its turn last, so that a flood of forged records
    /// does not keep a real one out.
    fn forget_one(&mut self) {
        let before = (Bound::Unbounded, Bound::Excluded(&self.turn[..]));
        let last = self.records.range::<str, _>(before).next_back();
        if let Some(name) = last.or(self.records.last_key_value()).map(|(name, _)| name.clone()) {
            self.records.remove(&name);
        }
    }

    /// Proposes all records until the channel is full, and the rest first the next time: with more
    /// records than the channel holds, each still has its turn.
    fn propose_again(&mut self) -> Result<(), Closed> {
        let from = self.turn.clone();
        let first = self.records.range::<str, _>((Bound::Included(&from[..]), Bound::Unbounded));
        let then = self.records.range::<str, _>((Bound::Unbounded, Bound::Excluded(&from[..])));
        for (name, proposal) in first.chain(then) {
            if !self.outlet.propose(proposal.clone())? {
                self.turn.clone_from(name);
                break;
            }
        }
        Ok(())
    }
}
