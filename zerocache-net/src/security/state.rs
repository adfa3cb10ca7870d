//! The credentials of a process, and their replacement.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use hyper::header::HeaderValue;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use zerocache_core::access::TokenKey;

use super::{
    PeerCertificate, SecurityConfig, SecurityError, TlsAcceptor, TlsMode,
    inputs::{Inputs, Stamps},
    peer,
    tls::{ProcessKey, Tls, WallClock},
};
use crate::process::PerProcess;

/// How often files are looked at, and certificates are checked for renewal.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How often in a day.
const LOOKS_A_DAY: u32 = (24 * 60 * 60 / LOOK_EVERY.as_secs()) as u32;

/// The credentials of a process. Cheap to clone.
///
/// A process that was forked reads its files again and has a key of its own.
#[derive(Clone)]
pub struct Security(Arc<Shared>);

struct Shared {
    config: SecurityConfig,
    mode: TlsMode,
    clock: WallClock,
    processes: PerProcess<Process>,
}

/// What one process has.
struct Process {
    /// What it began with: a child that cannot read the files uses it.
    first: Inputs,
    key: Option<ProcessKey>,
    current: RwLock<Arc<State>>,
    /// Held while credentials are replaced, with what was last seen of the files.
    reload: Mutex<Seen>,
    /// Changes of files that could not be used.
    failures: AtomicU64,
    /// How often `current` was replaced. Servers compare it for each request, without a lock.
    generation: AtomicU64,
    changes: watch::Sender<u64>,
}

struct Seen {
    /// The addresses of this process now.
    addresses: Vec<IpAddr>,
    stamps: Stamps,
    /// The last reload failed.
    is_broken: bool,
    /// How long ago an expiry was warned of, in looks.
    looks_since_warning: Option<u32>,
}

impl Seen {
    fn new(config: &SecurityConfig, stamps: Stamps) -> Self {
        let addresses = config.addresses.clone();
        Self { addresses, stamps, is_broken: false, looks_since_warning: None }
    }
}

/// One generation of credentials.
pub(crate) struct State {
    inputs: Inputs,
    token_keys: Arc<[TokenKey]>,
    authorization: Option<HeaderValue>,
    tls: Option<Tls>,
}

impl State {
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    fn new(
        config: &SecurityConfig,
        inputs: Inputs,
        key: Option<&ProcessKey>,
        clock: WallClock,
    ) -> Result<Self, SecurityError> {
        let tls = key.map(|key| Tls::new(config, &inputs, key, clock)).transpose()?;
        Ok(Self { tls, ..Self::plain(inputs) })
    }

    fn plain(inputs: Inputs) -> Self {
        let bearer = inputs.token.as_ref().and_then(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.as_text())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { token_keys: inputs.token_keys().into(), authorization: bearer, tls: None, inputs }
    }
}

impl Process {
    fn load(
        config: &SecurityConfig,
        mode: TlsMode,
        clock: WallClock,
    ) -> Result<Self, SecurityError> {
        let stamps = Stamps::take(config);
        let inputs = Inputs::read(config)?;
        let key = match mode {
            TlsMode::Off => None,
            TlsMode::Optional | TlsMode::Required => Some(ProcessKey::generate()?),
        };
        let state = State::new(config, inputs.clone(), key.as_ref(), clock)?;
        let seen = Seen::new(config, stamps);
        Ok(Self::new(inputs, key, state, seen))
    }

    fn new(first: Inputs, key: Option<ProcessKey>, state: State, seen: Seen) -> Self {
        Self {
            first,
            key,
            current: RwLock::new(Arc::new(state)),
            reload: Mutex::new(seen),
            failures: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }
    }

    /// Uses nothing of `parent` that could be locked.
    fn of_child(shared: &Shared, parent: Option<&Self>) -> Self {
        let Shared { config, mode, clock, .. } = shared;
        Self::load(config, *mode, *clock).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the credentials in a forked process");
            let inputs = parent.map_or_else(Inputs::default, |parent| parent.first.clone());
            let key = ProcessKey::generate().ok().filter(|_| *mode != TlsMode::Off);
            let state = State::new(config, inputs.clone(), key.as_ref(), *clock);
            let state = state.unwrap_or_else(|_| State::plain(inputs.clone()));
            Self::new(inputs, key, state, Seen::new(config, Stamps::default()))
        })
    }

    /// Called by whoever holds `reload`.
    fn replace(&self, state: State) {
        *self.current.write() = Arc::new(state);
        let before = self.generation.fetch_add(1, Ordering::Release);
        self.changes.send_replace(before + 1);
    }
}

impl Security {
    /// Returns the credentials of a process without any: its connections are plain.
    #[must_use]
    pub fn plain() -> Self {
        let config = SecurityConfig::default();
        let (state, seen) =
            (State::plain(Inputs::default()), Seen::new(&config, Stamps::default()));
        let process = Process::new(Inputs::default(), None, state, seen);
        Self::new(config, TlsMode::Off, WallClock::default(), process)
    }

    /// Reads the credentials that `config` names.
    ///
    /// # Errors
    /// [`SecurityError`] says what cannot be used, and never shows a secret.
    pub fn load(config: SecurityConfig) -> Result<Self, SecurityError> {
        Self::load_at(config, WallClock::default())
    }

    pub(super) fn load_at(config: SecurityConfig, clock: WallClock) -> Result<Self, SecurityError> {
        let mode = config.mode();
        let process = Process::load(&config, mode, clock)?;
        config.warn_of_readable_files();
        Ok(Self::new(config, mode, clock, process))
    }

    fn new(config: SecurityConfig, mode: TlsMode, clock: WallClock, process: Process) -> Self {
        Self(Arc::new(Shared { config, mode, clock, processes: PerProcess::with_value(process) }))
    }

    fn process(&self) -> &Process {
        self.0.processes.get_or_init(|parent| Process::of_child(&self.0, parent))
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.process().current.read())
    }

    /// Returns whether connections are encrypted.
    #[must_use]
    pub fn mode(&self) -> TlsMode {
        self.0.mode
    }

    /// Returns the end of the own certificate, and whether the process replaces it in time, because it made it
    /// from a secret. None without a certificate.
    #[must_use]
    pub fn certificate_end(&self) -> Option<(SystemTime, bool)> {
        self.state().tls().and_then(Tls::own_end)
    }

    /// Returns whether the process may use a node at `peer`, on a connection from the own address `local`.
    pub(crate) fn may_use(&self, peer: SocketAddr, local: SocketAddr) -> bool {
        !self.0.config.own_host_only || is_same_host(peer, local)
    }

    /// Reads all files again, and uses what they contain now. Returns whether that is different. The result
    /// is logged, and a failure counted.
    ///
    /// # Errors
    /// [`SecurityError`] if something cannot be used; then nothing changes.
    pub fn reload(&self) -> Result<bool, SecurityError> {
        let process = self.process();
        self.reload_locked(process, &mut process.reload.lock(), true)
    }

    /// `is_new`: somebody has changed a file, or asks for this. A failure that is not new is neither logged
    /// nor counted again.
    fn reload_locked(
        &self,
        process: &Process,
        seen: &mut Seen,
        is_new: bool,
    ) -> Result<bool, SecurityError> {
        let was_broken = seen.is_broken;
        // What changes from here on is seen the next time.
        seen.stamps = Stamps::take(&self.0.config);
        let result = self.read_again(process, seen);
        seen.is_broken = result.is_err();
        match &result {
            Ok(true) => tracing::info!("credentials reloaded"),
            Err(error) if is_new || !was_broken => {
                process.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "cannot reload credentials; the old ones stay in use");
            }
            Ok(false) | Err(_) => {}
        }
        result
    }

    fn read_again(&self, process: &Process, seen: &Seen) -> Result<bool, SecurityError> {
        let inputs = Inputs::read(&self.0.config)?;
        let is_changed = process.current.read().inputs != inputs;
        if is_changed {
            process.replace(self.make_state(process, seen, inputs)?);
            self.0.config.warn_of_readable_files();
        }
        Ok(is_changed)
    }

    fn make_state(
        &self,
        process: &Process,
        seen: &Seen,
        inputs: Inputs,
    ) -> Result<State, SecurityError> {
        let Shared { config, clock, .. } = &*self.0;
        let config = SecurityConfig { addresses: seen.addresses.clone(), ..config.clone() };
        State::new(&config, inputs, process.key.as_ref(), *clock)
    }

    /// Reloads files when they change, and renews the certificate that the process made for itself, until
    /// the future is dropped. What cannot be used is logged once.
    ///
    /// Files are looked at every 10 seconds.
    pub async fn watch_files(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look();
        }
    }

    /// Looks at the files and the certificates once.
    pub(super) fn look(&self) {
        let process = self.process();
        let mut seen = process.reload.lock();
        let is_new = seen.stamps != Stamps::take(&self.0.config);
        // What is broken is tried again: the file may be whole, or the time have come.
        if is_new || seen.is_broken {
            let _logged = self.reload_locked(process, &mut seen, is_new);
        }
        self.warn_of_expiry(&mut seen);
        if self.state().tls().is_some_and(Tls::must_renew) {
            self.renew(process, &seen);
        }
    }

    /// Replaces the addresses of this process, which are in the certificate that it makes for itself.
    pub fn set_addresses(&self, addresses: &[IpAddr]) {
        let process = self.process();
        let mut seen = process.reload.lock();
        if seen.addresses == addresses {
            return;
        }
        seen.addresses = addresses.to_vec();
        if self.0.config.makes_certificates() {
            self.renew(process, &seen);
        }
    }

    /// Warns daily of a certificate from a file that expires soon, or has expired.
    fn warn_of_expiry(&self, seen: &mut Seen) {
        let state = self.state();
        let Some(until) = state.tls().and_then(Tls::expires_soon) else {
            return seen.looks_since_warning = None;
        };
        let looks = seen.looks_since_warning.map_or(0, |looks| (looks + 1) % LOOKS_A_DAY);
        seen.looks_since_warning = Some(looks);
        if looks == 0 {
            tracing::warn!(until, "the certificate of this process expires soon, or has expired");
        }
    }

    /// Makes the own certificate again.
    fn renew(&self, process: &Process, seen: &Seen) {
        let inputs = process.current.read().inputs.clone();
        match self.make_state(process, seen, inputs) {
            Ok(state) => {
                process.replace(state);
                tracing::debug!("certificate renewed");
            }
            Err(error) => tracing::error!(%error, "cannot renew the certificate"),
        }
    }

    /// Returns a number that grows each time the credentials change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.process().changes.subscribe()
    }

    /// Returns how often changes, or a [`reload`](Self::reload), could not be used.
    #[must_use]
    pub fn failed_reloads(&self) -> u64 {
        self.process().failures.load(Ordering::Relaxed)
    }

    /// Returns how often the credentials have changed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.process().generation.load(Ordering::Acquire)
    }

    /// Returns the identity of a process with a secret: the first 64 bits (big-endian) of BLAKE3 of its public
    /// key (`SubjectPublicKeyInfo`). It stays the same as long as the process lives, and only this process
    /// can prove it. None without a secret, with certificates from files, and without TLS.
    #[must_use]
    pub fn identity(&self) -> Option<u64> {
        let process = self.process();
        let key = process.key.as_ref().filter(|_| self.0.config.makes_certificates())?;
        Some(peer::identity(&key.hash()))
    }

    /// Returns the keys of all accepted secrets that tokens may be signed with.
    #[must_use]
    pub fn token_keys(&self) -> Arc<[TokenKey]> {
        Arc::clone(&self.state().token_keys)
    }

    /// Returns the value of the header that presents the token, marked as sensitive. None without a token.
    #[must_use]
    pub fn authorization(&self) -> Option<HeaderValue> {
        self.state().authorization.clone()
    }

    /// Returns what takes TLS connections. None for a client, and when TLS is off.
    #[must_use]
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        #[cfg(feature = "tls")]
        if self.0.mode != TlsMode::Off && self.0.config.kind.is_node() {
            return Some(TlsAcceptor(self.clone()));
        }
        None
    }

    /// Returns whether the accepted CAs of now accept `certificate`, and it is valid now: for connections
    /// that were opened before.
    #[must_use]
    pub fn still_trusts(&self, certificate: &PeerCertificate) -> bool {
        self.state().tls().is_some_and(|tls| tls.trusts(certificate))
    }
}

/// Returns whether the two ends of a connection are on one host, as far as addresses tell: a proxy on this host
/// that passes connections of others on looks the same.
#[must_use]
pub fn is_same_host(peer: SocketAddr, local: SocketAddr) -> bool {
    let peer = peer.ip().to_canonical();
    peer.is_loopback() || peer == local.ip().to_canonical()
}

impl Default for Security {
    fn default() -> Self {
        Self::plain()
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security").field("tls", &self.0.mode).finish_non_exhaustive()
    }
}
