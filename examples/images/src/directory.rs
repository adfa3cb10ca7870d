//! How gateways find workers: a fixed list, a DNS name, or entries in the cache.
//!
//! The service has no membership of its own. Each worker keeps one of 64 entries of the cache alive
//! (`SERVICE:workers:00` to `63`), and a gateway reads all of them in one round trip. A client of the cache cannot
//! list keys, and does not need to: the entries have known names. A worker takes a free one, and another one if it
//! sees that somebody has overwritten it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::lookup_host;
use tokio::time::{MissedTickBehavior, interval, timeout};
use zerocache_client::{Error, ZerocacheClient};

use crate::placement::{WORKERS_MAX, WorkerAddress, Workers};

/// The lifetime of a worker's entry.
const ENTRY_TTL: Duration = Duration::from_secs(5);

/// The interval in which a worker renews its entry.
const RENEWAL: Duration = Duration::from_secs(2);

/// The interval in which a gateway looks for workers.
const LOOKUP: Duration = Duration::from_secs(1);

/// The longest resolution of a name.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// Where a gateway finds workers.
#[derive(Clone, Debug)]
pub enum Directory {
    /// These, `HOST:PORT` each.
    Fixed(Vec<String>),
    /// All addresses of a name, `NAME:PORT`.
    Dns(String),
    /// The entries in the cache.
    Cache {
        /// The cache.
        cache: ZerocacheClient,
        /// The name of the service, with which its entries begin.
        service: String,
    },
}

impl Directory {
    /// Returns the workers that there are now.
    async fn list(&self) -> anyhow::Result<Vec<WorkerAddress>> {
        match self {
            Self::Fixed(addresses) => {
                Ok(addresses.iter().map(|address| by_address(address)).collect())
            }
            Self::Dns(name) => {
                let found = timeout(RESOLVE_MAX, lookup_host(name.as_str())).await??;
                let mut found: Vec<SocketAddr> = found.take(WORKERS_MAX).collect();
                found.sort_unstable();
                Ok(found.iter().map(|address| by_address(&address.to_string())).collect())
            }
            Self::Cache { cache, service } => {
                let slots = read_slots(cache, service).await?;
                Ok(slots.into_iter().flatten().collect())
            }
        }
    }

    /// Keeps a gateway's workers up to date. While none is found the last known ones stay: those that do not answer
    /// are passed over anyway, and a cache that is gone is not a reason to stop.
    pub async fn follow(self, workers: Arc<Mutex<Workers>>) {
        let mut ticks = every(LOOKUP);
        let mut were_found = true;
        loop {
            ticks.tick().await;
            let list = self.list().await;
            let are_found = list.as_ref().is_ok_and(|list| !list.is_empty());
            match list {
                Ok(list) if are_found => workers.lock().set(list),
                // Once, not every second.
                Ok(_) if were_found => {
                    tracing::warn!("no worker was found; keeping the known ones")
                }
                Err(error) if were_found => {
                    tracing::warn!(%error, "cannot look for workers; keeping the known ones");
                }
                Ok(_) | Err(_) => {}
            }
            were_found = are_found;
        }
    }
}

fn by_address(address: &str) -> WorkerAddress {
    WorkerAddress { name: address.to_owned(), address: address.to_owned() }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn slot_key(service: &str, slot: usize) -> String {
    format!("{service}:workers:{slot:02}")
}

async fn read_slots(
    cache: &ZerocacheClient,
    service: &str,
) -> Result<Vec<Option<WorkerAddress>>, Error> {
    let keys = (0..WORKERS_MAX).map(|slot| slot_key(service, slot));
    let found = cache.get_many(keys).deadline(LOOKUP).await?;
    Ok(found.into_iter().map(|value| serde_json::from_slice(&value?).ok()).collect())
}

/// Keeps the entry of a worker alive, as long as the worker is.
pub async fn announce(cache: ZerocacheClient, service: String, me: WorkerAddress) {
    let mut slot = None;
    let mut ticks = every(RENEWAL);
    loop {
        ticks.tick().await;
        let slots = match read_slots(&cache, &service).await {
            Ok(slots) => slots,
            Err(error) => {
                tracing::warn!(%error, "the worker could not read the directory of workers");
                continue;
            }
        };
        slot = choose_slot(&slots, slot, &me.name);
        let Some(slot) = slot else {
            tracing::error!(
                "{WORKERS_MAX} workers are announced already; this one is not found by gateways"
            );
            continue;
        };
        let value = serde_json::to_vec(&me).unwrap_or_default();
        let written = cache.put(slot_key(&service, slot), value, ENTRY_TTL).deadline(LOOKUP).await;
        if let Err(error) = written {
            tracing::warn!(%error, "the worker could not announce itself");
        }
    }
}

/// Takes back the entry of a worker that ends.
pub async fn withdraw(cache: &ZerocacheClient, service: &str, name: &str) {
    let Ok(slots) = read_slots(cache, service).await else { return };
    for slot in slots_of(&slots, name) {
        let _ends_by_itself = cache.delete(slot_key(service, slot)).deadline(LOOKUP).await;
    }
}

fn slots_of<'a>(
    slots: &'a [Option<WorkerAddress>],
    name: &'a str,
) -> impl Iterator<Item = usize> + 'a {
    let is_own =
        move |held: &Option<WorkerAddress>| held.as_ref().is_some_and(|held| held.name == name);
    slots.iter().enumerate().filter(move |(_, held)| is_own(held)).map(|(slot, _)| slot)
}

/// The slot of a worker: the one that has its name, or the one it has had if nobody took it, or a free one.
fn choose_slot(
    slots: &[Option<WorkerAddress>],
    current: Option<usize>,
    name: &str,
) -> Option<usize> {
    let own = slots_of(slots, name).next();
    let free = |slot: &usize| slots.get(*slot).is_some_and(Option::is_none);
    let hash = blake3::hash(name.as_bytes());
    let begin = usize::from(hash.as_bytes()[0]);
    let next = || (0..slots.len()).map(|step| (begin + step) % slots.len()).find(|slot| free(slot));
    own.or(current.filter(free)).or_else(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> WorkerAddress {
        WorkerAddress { name: name.to_owned(), address: "127.0.0.1:1".to_owned() }
    }

    #[test]
    fn worker_keeps_its_slot_until_somebody_takes_it() {
        let mut slots = vec![None; WORKERS_MAX];
        let first = choose_slot(&slots, None, "a").expect("a slot");
        slots[first] = Some(named("a"));
        assert_eq!(choose_slot(&slots, Some(first), "a"), Some(first));
        assert_ne!(choose_slot(&slots, None, "b"), Some(first));
        // Two that began at once: the one that lost moves.
        slots[first] = Some(named("b"));
        let second = choose_slot(&slots, Some(first), "a").expect("a slot");
        assert!(second != first && slots[second].is_none());
        // Its entry has ended, and is free.
        slots[first] = None;
        assert_eq!(choose_slot(&slots, Some(first), "a"), Some(first));
    }

    #[test]
    fn worker_without_a_free_slot_has_none() {
        let slots: Vec<_> = (0..WORKERS_MAX).map(|n| Some(named(&format!("w{n}")))).collect();
        assert_eq!(choose_slot(&slots, None, "one more"), None);
        assert_eq!(choose_slot(&slots, None, "w9"), Some(9));
    }
}
