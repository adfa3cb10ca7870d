//! The credentials of a process, and their replacement.

use std::{fmt, sync::Arc, time::Duration};

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
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Seen {
    stamps: Stamps,
    /// The last reload failed.
    is_broken: bool,
    /// How long ago an expiry was warned of, in looks.
    looks_since_warning: Option<u32>,
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
        Ok(Self::new(inputs, key, state, stamps))
    }

    fn new(first: Inputs, key: Option<ProcessKey>, state: State, stamps: Stamps) -> Self {
        Self {
            first,
            key,
            current: RwLock::new(Arc::new(state)),
            reload: Mutex::new(Seen { stamps, ..Seen::default() }),
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
            Self::new(inputs, key, state, Stamps::default())
        })
    }

    fn replace(&self, state: State) {
        *self.current.write() = Arc::new(state);
        self.changes.send_modify(|changes| *changes += 1);
    }
}

impl Security {
    /// Returns the credentials of a process without any: its connections are plain.
    #[must_use]
    pub fn plain() -> Self {
        let process = Process::new(
            Inputs::default(),
            None,
            State::plain(Inputs::default()),
            Stamps::default(),
        );
        Self::new(SecurityConfig::default(), TlsMode::Off, WallClock::default(), process)
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

    /// Reads all files again, and uses what they contain now. Returns whether that is different.
    ///
    /// # Errors
    /// [`SecurityError`] if something cannot be used; then nothing changes.
    pub fn reload(&self) -> Result<bool, SecurityError> {
        let process = self.process();
        self.reload_locked(process, &mut process.reload.lock())
    }

    fn reload_locked(&self, process: &Process, seen: &mut Seen) -> Result<bool, SecurityError> {
        let Shared { config, clock, .. } = &*self.0;
        // What changes from here on is seen the next time.
        seen.stamps = Stamps::take(config);
        seen.is_broken = true;
        let inputs = Inputs::read(config)?;
        let is_changed = process.current.read().inputs != inputs;
        if is_changed {
            process.replace(State::new(config, inputs, process.key.as_ref(), *clock)?);
            config.warn_of_readable_files();
        }
        seen.is_broken = false;
        Ok(is_changed)
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
        let was_broken = seen.is_broken;
        // What is broken is tried again: the file may be whole, or the time have come.
        if is_new || was_broken {
            match self.reload_locked(process, &mut seen) {
                Ok(true) => tracing::info!("credentials reloaded"),
                Err(error) if is_new || !was_broken => {
                    tracing::error!(%error, "cannot reload credentials; the old ones stay in use");
                }
                Ok(false) | Err(_) => {}
            }
        }
        self.warn_of_expiry(&mut seen);
        if self.state().tls().is_some_and(Tls::must_renew) {
            self.renew(process);
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
    fn renew(&self, process: &Process) {
        let Shared { config, clock, .. } = &*self.0;
        let inputs = process.current.read().inputs.clone();
        match State::new(config, inputs, process.key.as_ref(), *clock) {
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

    /// Returns how often the credentials have changed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        *self.process().changes.borrow()
    }

    /// Returns the identity of a process with a secret: the first 64 bits (big-endian) of BLAKE3 of its public
    /// key (`SubjectPublicKeyInfo`). It stays the same as long as the process lives, and only this process
    /// can prove it. None without a secret, with certificates from files, and without TLS.
    #[must_use]
    pub fn identity(&self) -> Option<u64> {
        let process = self.process();
        let is_of_secret = self.0.config.secret.is_some() && self.0.config.files.is_none();
        let key = process.key.as_ref().filter(|_| is_of_secret)?;
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
