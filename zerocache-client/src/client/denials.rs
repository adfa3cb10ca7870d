//! What becomes of operations that nodes deny this client, or for which no node can be asked.

use std::{
    net::SocketAddr,
    sync::{
        Once,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
};

use zerocache_core::{access::Denial, client::Obstacle};
use zerocache_net::clock;

use super::engine::Engine;
use crate::Error;

impl Engine {
    /// Counts an operation that a node denied, and returns its error.
    pub(super) fn denied(&self, denial: Denial, text: String) -> Error {
        self.counters.denied();
        self.warn_of_denial(denial, &text);
        Error::Denied { reason: denial.into(), text }
    }

    /// Counts an operation for which no node could be asked, or none answered, and returns its error.
    pub(super) fn unreachable(&self, timed_out: bool) -> Error {
        let error = self.why_unreachable(timed_out);
        match &error {
            Error::Denied { .. } => self.counters.denied(),
            _ => self.counters.unreachable(),
        }
        error
    }

    /// Returns the error for a client without a node. It says what stands between the client and nodes that
    /// are there.
    pub(super) fn why_unreachable(&self, timed_out: bool) -> Error {
        match self.obstacle() {
            Some(Obstacle::Denied(denial, text)) => {
                self.warn_of_denial(denial, &text);
                Error::Denied { reason: denial.into(), text }
            }
            Some(Obstacle::Unverified(address)) => Error::Unverified { address },
            _ => Error::Unreachable { timed_out },
        }
    }

    /// What stands between this client and the nodes, if that is why none can be asked.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        self.state.lock().obstacle(clock::mono()).cloned()
    }

    /// Logs that a node could not be verified, once in a process.
    pub(super) fn warn_of_unverified(&self, address: SocketAddr) {
        static LOGGED: Once = Once::new();
        LOGGED.call_once(|| {
            let (region, cluster) = (&self.config.region, &self.config.cluster);
            tracing::warn!(
                region,
                cluster,
                %address,
                "cannot verify a node: it is of another cluster or has other secrets, does not accept this \
                 client's certificate, or speaks no TLS"
            );
        });
    }

    /// Logs that nodes deny this client something, once in a process for each reason: every operation would
    /// say it again.
    pub(super) fn warn_of_denial(&self, denial: Denial, text: &str) {
        static LOGGED: AtomicU8 = AtomicU8::new(0);
        let bit = 1 << denial as u8;
        if LOGGED.fetch_or(bit, Relaxed) & bit != 0 {
            return;
        }
        let (region, cluster) = (&self.config.region, &self.config.cluster);
        tracing::warn!(
            region,
            cluster,
            reason = denial.as_str(),
            text,
            "a node denies this client what it asks for: memoized functions compute what they may not read"
        );
    }
}
