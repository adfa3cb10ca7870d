//! What is left of TLS in a build without it: types that have no values.

use std::{convert::Infallible, io, time::SystemTime};

use tokio::net::TcpStream;

use super::{PeerCertificate, SecurityConfig, SecurityError, inputs::Inputs};
use crate::transport::Stream;

/// Takes TLS connections. There is none in this build.
#[derive(Clone, Debug)]
pub struct TlsAcceptor(Infallible);

/// The first message of a caller. There is none in this build.
#[derive(Debug)]
pub struct ClientHello(Infallible);

impl TlsAcceptor {
    /// Never called.
    ///
    /// # Errors
    /// None.
    pub async fn accept(&self, _tcp: TcpStream) -> io::Result<(Stream, Option<PeerCertificate>)> {
        match self.0 {}
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub async fn read_hello(&self, _tcp: TcpStream) -> io::Result<ClientHello> {
        match self.0 {}
    }
}

impl ClientHello {
    /// Never called.
    ///
    /// # Errors
    /// None.
    pub async fn shake_hands(self) -> io::Result<(Stream, Option<PeerCertificate>)> {
        match self.0 {}
    }
}

pub(super) struct ProcessKey(Infallible);

impl ProcessKey {
    pub(super) fn generate() -> Result<Self, SecurityError> {
        Err(SecurityError::NotBuilt)
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        match self.0 {}
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WallClock(());

pub(crate) struct Tls(Infallible);

impl Tls {
    pub(super) fn new(
        _config: &SecurityConfig,
        _inputs: &Inputs,
        key: &ProcessKey,
        _clock: WallClock,
    ) -> Result<Self, SecurityError> {
        match key.0 {}
    }

    pub(super) fn must_renew(&self) -> bool {
        match self.0 {}
    }

    pub(super) fn expires_soon(&self) -> Option<String> {
        match self.0 {}
    }

    pub(super) fn own_end(&self) -> Option<(SystemTime, bool)> {
        match self.0 {}
    }

    pub(super) fn trusts(&self, _certificate: &PeerCertificate) -> bool {
        match self.0 {}
    }
}
