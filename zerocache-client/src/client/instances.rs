//! One client per region in a process.

use std::{
    collections::HashMap,
    sync::{
        LazyLock,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
};

use parking_lot::RwLock;

use super::{ZerocacheClient, config::Config};
use crate::Error;

static INSTANCES: LazyLock<RwLock<HashMap<String, ZerocacheClient>>> =
    LazyLock::new(RwLock::default);

/// How often a client has been forgotten.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// A number that changes whenever a region may have another client than before.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Acquire)
}

/// The client of a region, made from the environment if there is none yet.
pub(super) fn get(region: &str) -> ZerocacheClient {
    if let Some(client) = INSTANCES.read().get(region) {
        return client.clone();
    }
    let mut instances = INSTANCES.write();
    if let Some(client) = instances.get(region) {
        return client.clone();
    }
    let made = Config::from_env(region).and_then(ZerocacheClient::start);
    let client = made.unwrap_or_else(|error| {
        tracing::error!(region, %error, "the client cannot work");
        ZerocacheClient::broken(region, error)
    });
    instances.insert(region.to_owned(), client.clone());
    client
}

/// Makes the client of a region with a given configuration.
pub(super) fn install(config: Config) -> Result<ZerocacheClient, Error> {
    let mut instances = INSTANCES.write();
    if let Some(client) = instances.get(&config.region) {
        return if client.has_config(&config) {
            Ok(client.clone())
        } else {
            Err(Error::Config(format!(
                "region {:?} has a client with another configuration already",
                config.region
            )))
        };
    }
    let region = config.region.clone();
    let client = ZerocacheClient::start(config)?;
    instances.insert(region, client.clone());
    Ok(client)
}

/// Forgets the client of a region; handles that are held go on working.
pub(super) fn clear(region: &str) {
    // Dropped after the lock: the end of a client takes other locks.
    let cleared = INSTANCES.write().remove(region);
    GENERATION.fetch_add(1, Release);
    drop(cleared);
}
