//! A capacity for each host, so that a slow one does not take the places of all others.

use std::collections::HashMap;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::capacity::Capacity;
use crate::failure::Failure;

/// The capacity of each host. Hosts are known by name, while they are in use: there are never more than requests.
#[derive(Debug)]
pub struct HostCapacity {
    size: usize,
    queue: usize,
    hosts: Mutex<HashMap<String, Host>>,
}

#[derive(Debug)]
struct Host {
    capacity: Capacity,
    users: usize,
}

impl HostCapacity {
    /// Creates capacities for `size` at once for each host, and `queue` that wait.
    #[must_use]
    pub fn new(size: usize, queue: usize) -> Self {
        Self { size, queue, hosts: Mutex::default() }
    }

    /// Waits for a place of a host until `deadline`.
    ///
    /// # Errors
    /// As [`Capacity::acquire`].
    pub async fn acquire(&self, host: &str, deadline: Instant) -> Result<HostPermit<'_>, Failure> {
        // "a.org." is "a.org".
        let (mut permit, capacity) = self.enter(host.trim_end_matches('.'));
        permit.permit = Some(capacity.acquire(deadline).await?);
        Ok(permit)
    }

    fn enter(&self, name: &str) -> (HostPermit<'_>, Capacity) {
        let new = || Host { capacity: Capacity::new(self.size, self.queue), users: 0 };
        let mut hosts = self.hosts.lock();
        let host = hosts.entry(name.to_owned()).or_insert_with(new);
        host.users += 1;
        (HostPermit { hosts: self, name: name.to_owned(), permit: None }, host.capacity.clone())
    }

    /// The number of callers that wait, for all hosts.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.hosts.lock().values().map(|host| host.capacity.waiting()).sum()
    }
}

/// A place of a host, until it is dropped.
#[derive(Debug)]
pub struct HostPermit<'a> {
    hosts: &'a HostCapacity,
    name: String,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for HostPermit<'_> {
    fn drop(&mut self) {
        self.permit = None;
        let mut hosts = self.hosts.hosts.lock();
        if let Some(host) = hosts.get_mut(&self.name) {
            host.users -= 1;
            if host.users == 0 {
                hosts.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::now;

    #[tokio::test]
    async fn full_host_is_busy_and_others_are_not() {
        let hosts = HostCapacity::new(1, 0);
        let deadline = now() + Duration::from_secs(60);
        let first = hosts.acquire("a", deadline).await.expect("a place");
        for same in ["a", "a."] {
            assert_eq!(hosts.acquire(same, deadline).await.map(drop), Err(Failure::Busy));
        }
        let other = hosts.acquire("b", deadline).await.expect("a place");
        drop(first);
        assert!(hosts.acquire("a", deadline).await.is_ok());
        drop(other);
        assert!(hosts.hosts.lock().is_empty());
    }
}
