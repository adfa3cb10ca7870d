//! Bounds how many TLS handshakes compute at a time: one costs about half a millisecond of a processor, and
//! anybody may ask for it.
//!
//! A permit is held while a handshake computes, and never while it waits for its caller. So callers that
//! stop half way lock nobody out, and a flood of handshakes leaves room between its steps for everything
//! else. A source has a share of the permits: a flood from one address waits for itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most handshakes that compute at a time: a moment's work for one processor.
const COMPUTING_MAX: usize = 128;
/// The most of these from one source.
const OF_SOURCE_MAX: usize = 16;

/// The permits of one listener.
#[derive(Debug)]
pub(super) struct HandshakePermits {
    all: Arc<Semaphore>,
    /// Sources that have or await a permit: at most one for each connection under the cap.
    sources: Arc<Sources>,
}

type Sources = Mutex<HashMap<IpAddr, SourcePermits>>;

/// The permits of one source.
#[derive(Debug)]
struct SourcePermits {
    permits: Arc<Semaphore>,
    /// Handshakes that have or await one of them.
    users: usize,
}

/// A permit to compute. Dropping it returns it.
#[derive(Debug)]
pub(super) struct HandshakePermit {
    _of_all: OwnedSemaphorePermit,
    _of_source: OwnedSemaphorePermit,
    _share: Share,
}

impl Default for HandshakePermits {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(COMPUTING_MAX)), sources: Arc::default() }
    }
}

impl HandshakePermits {
    /// Waits for a permit for a caller at `ip`.
    ///
    /// # Cancellation
    /// Dropping the future gives up the place in the queue.
    pub(super) async fn acquire(&self, ip: IpAddr) -> Option<HandshakePermit> {
        let share = Share::of(source(ip), &self.sources);
        // The semaphores are never closed.
        let of_source = Arc::clone(&share.permits).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(HandshakePermit { _of_all: of_all, _of_source: of_source, _share: share })
    }
}

/// Returns what counts as one source: an IPv4 address, or the 64 bits of an IPv6 network.
fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

/// The share of one source; forgotten when nobody uses it.
#[derive(Debug)]
struct Share {
    source: IpAddr,
    permits: Arc<Semaphore>,
    sources: Arc<Sources>,
}

impl Share {
    fn of(source: IpAddr, sources: &Arc<Sources>) -> Self {
        let new = || SourcePermits { permits: Arc::new(Semaphore::new(OF_SOURCE_MAX)), users: 0 };
        let mut known = sources.lock();
        let entry = known.entry(source).or_insert_with(new);
        entry.users += 1;
        Self { source, permits: Arc::clone(&entry.permits), sources: Arc::clone(sources) }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.sources.lock().entry(self.source) {
            entry.get_mut().users -= 1;
            if entry.get().users == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn now(permits: &HandshakePermits, ip: &str) -> Option<HandshakePermit> {
        let mut acquired = pin!(permits.acquire(ip.parse().expect("an address")));
        match acquired.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => permit,
            Poll::Pending => None,
        }
    }

    #[test]
    fn source_has_a_share_and_others_the_rest() {
        let permits = HandshakePermits::default();
        let mut held = Vec::new();
        for source in ["10.0.0.1", "::ffff:10.0.0.2", "2001:db8::1"] {
            for _ in 0..OF_SOURCE_MAX {
                held.push(now(&permits, source).expect("within the share"));
            }
        }
        for source in ["::ffff:10.0.0.1", "10.0.0.2", "2001:db8::2"] {
            assert!(now(&permits, source).is_none(), "{source}");
        }
        assert!(now(&permits, "2001:db8:0:1::1").is_some());
        assert_eq!(permits.sources.lock().len(), 3);
        held.truncate(1);
        assert!(now(&permits, "10.0.0.1").is_some());
        assert_eq!(permits.sources.lock().len(), 1);
        held.clear();
        assert!(permits.sources.lock().is_empty());
    }

    #[test]
    fn all_sources_together_are_bounded() {
        let permits = HandshakePermits::default();
        let ip = |number: usize| format!("10.0.{}.{}", number / 8, number % 8);
        let held: Vec<_> = (0..2 * COMPUTING_MAX).filter_map(|n| now(&permits, &ip(n))).collect();
        assert_eq!(held.len(), COMPUTING_MAX);
        assert_eq!(permits.sources.lock().len(), COMPUTING_MAX);
    }
}
