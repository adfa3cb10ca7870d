//! A number of things at once, and a queue of bounded length and time for more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

use crate::failure::Failure;

/// The capacity for one kind of work.
#[derive(Clone, Debug)]
pub struct Capacity {
    permits: Arc<Semaphore>,
    size: usize,
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    length: AtomicUsize,
    most: usize,
}

impl Capacity {
    /// Creates a capacity for `size` at once (at most [`Semaphore::MAX_PERMITS`]), and `queue` that wait.
    #[must_use]
    pub fn new(size: usize, queue: usize) -> Self {
        let queue = Arc::new(Queue { length: AtomicUsize::new(0), most: queue });
        let size = size.min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(size)), size, queue }
    }

    /// Waits for a place until `deadline`. Work that may outlive its caller takes the permit with it.
    ///
    /// # Errors
    /// [`Failure::Busy`] if too many wait already, or none became free in time.
    pub async fn acquire(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Failure> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(&self.queue).ok_or(Failure::Busy)?;
        let free = Arc::clone(&self.permits).acquire_owned();
        let permit = timeout_at(deadline.into(), free).await.map_err(|_| Failure::Busy)?;
        permit.map_err(|_| Failure::Internal)
    }

    /// The number of places that are taken.
    #[must_use]
    pub fn used(&self) -> usize {
        self.size - self.permits.available_permits().min(self.size)
    }

    /// The number of callers that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.length.load(Ordering::Relaxed)
    }
}

/// A place in the queue.
struct Place<'a>(&'a Queue);

impl<'a> Place<'a> {
    fn take(queue: &'a Queue) -> Option<Self> {
        let more = |length| (length < queue.most).then_some(length + 1);
        queue.length.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(queue))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.length.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::now;

    fn later() -> Instant {
        now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn wait_for_a_place_has_an_end() {
        let capacity = Capacity::new(1, 1);
        let _first = capacity.acquire(later()).await.expect("a place");
        let waited = capacity.acquire(now() + Duration::from_millis(20)).await;
        assert_eq!(waited.map(drop), Err(Failure::Busy));
        assert_eq!((capacity.used(), capacity.waiting()), (1, 0));
    }

    #[tokio::test]
    async fn queue_is_bounded_and_moves_on() {
        let capacity = Capacity::new(1, 2);
        let first = capacity.acquire(later()).await.expect("a place");
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let capacity = capacity.clone();
                tokio::spawn(async move { capacity.acquire(later()).await.map(drop) })
            })
            .collect();
        while capacity.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(capacity.acquire(later()).await.map(drop), Err(Failure::Busy));
        assert_eq!(capacity.used(), 1);
        drop(first);
        for one in waiting {
            assert_eq!(one.await.expect("no panic"), Ok(()));
        }
        assert_eq!((capacity.used(), capacity.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn caller_that_gives_up_leaves_the_queue() {
        let capacity = Capacity::new(1, 1);
        let _first = capacity.acquire(later()).await.expect("a place");
        let waiting = tokio::spawn({
            let capacity = capacity.clone();
            async move { capacity.acquire(later()).await.map(drop) }
        });
        while capacity.waiting() < 1 {
            tokio::task::yield_now().await;
        }
        waiting.abort();
        let _aborted = waiting.await;
        assert_eq!(capacity.waiting(), 0);
    }
}
