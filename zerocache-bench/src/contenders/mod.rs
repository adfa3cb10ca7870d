//! The contenders: how each is started, and how its callers talk to it.

pub mod http;
pub mod keys;
pub mod memcached;
pub mod raw_tcp;
pub mod redis;
pub mod stream;
pub mod zerocache;

use anyhow::Result;
use async_trait::async_trait;
use clap::ValueEnum;
use zerocache_client::Ack;

use crate::args::Settings;
use crate::measure::Load;
use crate::process::installed;

/// A contender, by the name that it has in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Through `ZerocacheClient`.
    Zerocache,
    /// The same, encrypted and authenticated by a secret and a token.
    ZerocacheTls,
    /// The same node over its HTTP interface.
    ZerocacheHttp,
    /// Through the `redis` crate, multiplexed over one connection.
    Redis,
    /// The same over two connections.
    Redis2,
    Memcached,
    RawTcp,
}

/// Started servers.
#[async_trait]
pub trait Contender: Send + Sync {
    /// Their process ids.
    fn servers(&self) -> Vec<u32>;

    /// Returns a fault that callers do not see, such as replicas that were left behind.
    async fn fault(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Makes callers, each for one task.
    async fn callers(&self, tasks: usize) -> Result<Box<dyn Load>>;
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Zerocache => "zerocache",
            Self::ZerocacheTls => "zerocache-tls",
            Self::ZerocacheHttp => "zerocache-http",
            Self::Redis => "redis",
            Self::Redis2 => "redis2",
            Self::Memcached => "memcached",
            Self::RawTcp => "raw-tcp",
        }
    }

    /// The program that has to be installed, if it is not installed.
    pub fn lacks(self) -> Option<&'static str> {
        let program = match self {
            Self::Redis | Self::Redis2 => "redis-server",
            Self::Memcached => "memcached",
            Self::Zerocache | Self::ZerocacheTls | Self::ZerocacheHttp | Self::RawTcp => {
                return None;
            }
        };
        installed(program).is_none().then_some(program)
    }

    /// Starts one server. On the main thread alone; see [`crate::process::Process::start`].
    pub async fn start(self, settings: &Settings) -> Result<Box<dyn Contender>> {
        Ok(match self {
            Self::Zerocache | Self::ZerocacheTls => {
                Box::new(zerocache::Cluster::start(settings, self, 1, Ack::Local).await?)
            }
            Self::ZerocacheHttp => Box::new(http::Http::start(settings, None)?),
            Self::Redis => Box::new(redis::Redis::start(settings, 1).await?),
            Self::Redis2 => Box::new(redis::Redis::start(settings, 2).await?),
            Self::Memcached => Box::new(memcached::Memcached::start(settings).await?),
            Self::RawTcp => Box::new(raw_tcp::RawTcp::start(settings)?),
        })
    }
}
