//! The mDNS daemon and the records announced through it.
//!
//! The daemon is a thread with a socket on port 5353. It survives its handle. It announces explicit addresses
//! only on the interfaces that it knows when it receives them, so the records are passed to it again when the
//! interfaces change. A daemon that could not start, or ended, is started again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mdns_sd::{DaemonEvent, Error, IfKind, Receiver, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::record::{self, TYPE_LEN_MAX, TYPE_NATIVE};
use super::sources::{SourceId, SourceState, Sources};
use super::{Announcement, DiscoveryError, Interface, MdnsConfig, Proposal, PythonRecord, Source};

/// The longest wait for the daemon to say that a goodbye is sent.
pub(super) const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// The longest wait for the daemon's thread to end.
const EXIT_MAX: Duration = Duration::from_secs(1);

/// The daemon and the records announced through it.
pub(super) struct Mdns {
    /// The one interface to use; none for all.
    interface: Option<Interface>,
    sources: Arc<Sources>,
    id: SourceId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    daemon: Option<Daemon>,
    /// Whether the interface was there when it was last looked for.
    has_interface: bool,
    /// Kept after the withdrawal: our own record may still come in late.
    incarnation: Option<u64>,
    /// The records that are to be announced.
    services: Vec<ServiceInfo>,
    /// Whether one of them is for this host only.
    needs_loopback: bool,
    /// Whether they are to be given to the daemon again.
    is_stale: bool,
    /// Whether the daemon said that it announced one of them since then.
    is_announced: bool,
    /// Whether that was logged.
    is_logged: bool,
}

#[derive(Clone)]
struct Daemon {
    handle: ServiceDaemon,
    events: Receiver<DaemonEvent>,
}

/// The events of the daemon.
pub(super) struct MdnsEvents {
    pub(super) services: Receiver<ServiceEvent>,
    pub(super) daemon: Receiver<DaemonEvent>,
}

impl Mdns {
    /// Starts the daemon on the chosen interface. Where it cannot, [`maintain`](Self::maintain) tries again.
    pub(super) fn start(config: MdnsConfig, sources: Arc<Sources>) -> Self {
        let interface = config.interface;
        let name = interface.as_ref().map_or("all".to_owned(), Interface::to_string);
        let id = sources.add(Source::Mdns, name);
        let mdns = Self { interface, sources, id, state: Mutex::default() };
        mdns.maintain();
        mdns
    }

    /// Adapts to changes: starts a missing daemon, and registers the records again when interfaces or their
    /// addresses changed.
    pub(super) fn maintain(&self) {
        let mut state = self.state();
        if state.daemon.is_none() {
            match self.start_daemon() {
                Ok(daemon) => {
                    state.daemon = Some(daemon);
                    (state.has_interface, state.is_stale) = (false, true);
                }
                Err(error) => {
                    return self
                        .sources
                        .set_state(self.id, SourceState::Unusable(error.to_string()));
                }
            }
        }
        let is_present = self.interface.as_ref().is_none_or(Interface::is_present);
        let was_present = std::mem::replace(&mut state.has_interface, is_present);
        if is_present && !was_present {
            state.interface_appeared(self.interface.as_ref());
        }
        if state.is_stale {
            state.register();
        }
        self.sources.set_state(self.id, state.source_state());
    }

    /// Starts a browse; none if the daemon does not run, or is overloaded.
    pub(super) fn browse(&self) -> Option<MdnsEvents> {
        let mut state = self.state();
        let daemon = state.daemon.clone()?;
        match daemon.handle.browse(TYPE_NATIVE) {
            Ok(services) => Some(MdnsEvents { services, daemon: daemon.events }),
            Err(Error::Again) => None,
            Err(error) => {
                debug!(%error, "mDNS daemon ended");
                state.daemon = None;
                None
            }
        }
    }

    /// Whether queries reach anybody.
    pub(super) fn can_query(&self) -> bool {
        self.state().has_interface
    }

    pub(super) fn announce(
        &self,
        cluster: &str,
        announcement: &Announcement,
    ) -> Result<(), DiscoveryError> {
        let mut services = vec![record::native(cluster, announcement)?];
        match record::python(announcement)? {
            Some(service) => services.push(service),
            None if announcement.python == PythonRecord::None => {}
            None => warn!("no IPv4 address to announce: Python clients will not find this node"),
        }
        let mut state = self.state();
        if matches!(announcement.python, PythonRecord::Loopback(_)) {
            state.needs_loopback = true;
        }
        state.incarnation = Some(announcement.incarnation);
        let names: Vec<_> = services.iter().map(|service| service.get_fullname()).collect();
        for gone in state.services.iter().filter(|old| !names.contains(&old.get_fullname())) {
            if let Some(daemon) = &state.daemon {
                daemon.handle.unregister(gone.get_fullname())?;
            }
        }
        state.services = services;
        state.is_logged = false;
        state.register();
        Ok(())
    }

    pub(super) async fn withdraw(&self) {
        let sent: Vec<_> = {
            let mut state = self.state();
            let services = std::mem::take(&mut state.services);
            let names = services.iter().map(ServiceInfo::get_fullname);
            let daemon = state.daemon.as_ref();
            names.filter_map(|name| daemon?.handle.unregister(name).ok()).collect()
        };
        let all = async {
            for status in &sent {
                let _ = status.recv_async().await;
            }
        };
        if timeout(GOODBYE_MAX, all).await.is_err() {
            debug!("mDNS goodbye may not have been sent");
        }
    }

    pub(super) async fn shutdown(&self) {
        let Some(Daemon { handle, .. }) = self.state().daemon.take() else { return };
        let mut ended = handle.shutdown();
        while matches!(ended, Err(Error::Again)) {
            sleep(Duration::from_millis(10)).await;
            ended = handle.shutdown();
        }
        if let Ok(ended) = ended {
            let _ = timeout(EXIT_MAX, ended.recv_async()).await;
        }
    }

    pub(super) fn is_own(&self, proposal: &Proposal) -> bool {
        proposal.incarnation.is_some() && proposal.incarnation == self.state().incarnation
    }

    /// Handles an event of the daemon.
    pub(super) fn note(&self, event: &DaemonEvent) {
        match event {
            DaemonEvent::Announce(name, _) => self.note_announced(name),
            // Addresses that are given to the daemon are announced on interfaces of that moment only.
            DaemonEvent::IpAdd(_) | DaemonEvent::IpDel(_) => self.state().is_stale = true,
            DaemonEvent::Error(error) => warn!(%error, "mDNS"),
            DaemonEvent::NameChange(change) => {
                warn!(from = change.original, to = change.new_name, "mDNS name was taken");
            }
            other => debug!(?other, "mDNS"),
        }
    }

    fn note_announced(&self, name: &str) {
        let mut state = self.state();
        let Some(service) = state.services.iter().find(|own| own.get_fullname() == name) else {
            return;
        };
        let region = service.get_property_val_str("region").unwrap_or_default().to_owned();
        let (port, addresses) = (service.get_port(), service.get_addresses().clone());
        state.is_announced = true;
        if !std::mem::replace(&mut state.is_logged, true) {
            info!(region, port, ?addresses, "announced by mDNS");
        }
        self.sources.set_state(self.id, state.source_state());
    }

    fn start_daemon(&self) -> Result<Daemon, Error> {
        let handle = ServiceDaemon::new()?;
        let configure = || {
            handle.set_service_name_len_max(TYPE_LEN_MAX)?;
            if self.interface.is_some() {
                handle.disable_interface(IfKind::All)?;
            }
            handle.monitor()
        };
        let events = configure().inspect_err(|_| drop(handle.shutdown()))?;
        Ok(Daemon { handle, events })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The interface is there, for the first time or again. The daemon takes an address for the
    /// interface that has it, once the daemon knows the interface.
    fn interface_appeared(&mut self, interface: Option<&Interface>) {
        let Some(daemon) = &self.daemon else { return };
        if let Some(interface) = interface
            && let Err(error) = daemon.handle.enable_interface(interface.kind())
        {
            debug!(%error, "mDNS daemon rejected the interface; retrying");
            self.has_interface = false;
        }
        (self.is_stale, self.is_logged) = (true, false);
    }

    /// Gives the daemon what is to be announced.
    fn register(&mut self) {
        (self.is_stale, self.is_announced) = (false, false);
        let Some(daemon) = &self.daemon else { return };
        // The daemon leaves the loopback interface out by default.
        if self.needs_loopback
            && let Err(error) = daemon.handle.enable_interface(IfKind::LoopbackV4)
        {
            debug!(%error, "mDNS daemon rejected the loopback interface; retrying");
            self.is_stale = true;
        }
        for service in &self.services {
            if let Err(error) = daemon.handle.register(service.clone()) {
                debug!(%error, "mDNS daemon rejected the record; retrying");
                self.is_stale = true;
            }
        }
    }

    fn source_state(&self) -> SourceState {
        match self {
            Self { has_interface: false, .. } => SourceState::NoInterface,
            Self { is_announced: false, services, .. } if !services.is_empty() => {
                SourceState::NotAnnounced
            }
            _ => SourceState::Working,
        }
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        if let Some(daemon) = &self.state().daemon {
            let _ = daemon.handle.shutdown();
        }
    }
}

impl std::fmt::Debug for Mdns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state();
        let announced: Vec<_> = state.services.iter().map(ServiceInfo::get_fullname).collect();
        f.debug_struct("Mdns").field("announced", &announced).finish_non_exhaustive()
    }
}
