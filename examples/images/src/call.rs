//! A request, as far as its work needs it: the time that is left, and its place among the requests at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::clock::now;

/// A request. Its place is free again when the last clone and the last bytes of its answer are dropped.
#[derive(Clone, Debug)]
pub struct Call {
    deadline: Instant,
    permit: Arc<OwnedSemaphorePermit>,
}

impl Call {
    /// Creates the call of a request with a place, which has until `deadline`.
    #[must_use]
    pub fn new(deadline: Instant, permit: OwnedSemaphorePermit) -> Self {
        Self { deadline, permit: Arc::new(permit) }
    }

    /// The time at which nobody waits for the answer any more.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The time that is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(now())
    }

    /// Returns the bytes of an answer, which keep the place until they are sent.
    #[must_use]
    pub fn hold(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Held { bytes, _permit: Arc::clone(&self.permit) })
    }
}

struct Held {
    bytes: Vec<u8>,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::Capacity;

    #[tokio::test]
    async fn place_is_free_when_the_last_part_of_the_answer_is_dropped() {
        let capacity = Capacity::new(1, 0);
        let deadline = now() + Duration::from_secs(60);
        let call = Call::new(deadline, capacity.acquire(deadline).await.expect("a place"));
        let part = call.hold(vec![1, 2, 3]).slice(1..2);
        drop(call);
        assert_eq!((&*part, capacity.used()), ([2].as_slice(), 1));
        drop(part);
        assert_eq!(capacity.used(), 0);
    }
}
