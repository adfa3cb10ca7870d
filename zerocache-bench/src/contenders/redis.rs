//! Redis through the `redis` crate.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo};

use super::Contender;
use crate::args::Settings;
use crate::data::{Data, TTL_SECONDS};
use crate::measure::{Callers, Driver, Load};
use crate::process::{Process, START_MAX, start_on_free_port};

/// The time limit of `WAIT`, in ms: as long as a node of zerocache waits for its replicas.
const WAIT_MS: u32 = 2_000;
/// The time limit of an answer: above that of `WAIT`.
const RESPONSE_MAX: Duration = Duration::from_secs(5);

/// The sharing of connections among callers, and the acknowledgement that they wait for.
#[derive(Clone, Copy)]
enum Use {
    /// All tasks over this many connections.
    Multiplexed(usize),
    /// A connection for each task: `WAIT` blocks all that follows it on its connection.
    WaitFor { replicas: u32 },
}

/// A running server, and its replicas.
pub struct Redis {
    processes: Vec<Process>,
    pub address: SocketAddr,
    callers: Use,
}

impl Redis {
    pub async fn start(settings: &Settings, connections: usize) -> Result<Self> {
        let (process, address) = start(settings, None).await?;
        Ok(Self { processes: vec![process], address, callers: Use::Multiplexed(connections) })
    }

    /// With two replicas; callers wait for both with `WAIT`, or for none.
    pub async fn start_replicated(settings: &Settings, wait: bool) -> Result<Self> {
        let mut redis = Self::start(settings, 1).await?;
        for _ in 0..2 {
            redis.processes.push(start(settings, Some(redis.address)).await?.0);
        }
        if wait {
            redis.callers = Use::WaitFor { replicas: 2 };
        }
        tokio::time::timeout(START_MAX, redis.replicated()).await.context("two replicas")??;
        Ok(redis)
    }

    /// Waits until both replicas take part.
    async fn replicated(&self) -> Result<()> {
        while self.replicas_online().await? < self.processes.len() - 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn replicas_online(&self) -> Result<usize> {
        let mut connection = self.connect().await?;
        let info: String =
            redis::cmd("INFO").arg("replication").query_async(&mut connection).await?;
        Ok(info.lines().filter(|line| line.contains("state=online")).count())
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = format!("redis://{}/", self.address).into_connection_info()?;
        let client = Client::open(info.set_tcp_settings(tcp))?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(RESPONSE_MAX));
        Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
    }
}

async fn start(settings: &Settings, main: Option<SocketAddr>) -> Result<(Process, SocketAddr)> {
    let bytes = settings.server_bytes.to_string();
    let start = |port: u16| {
        let port = port.to_string();
        let mut args = vec!["--bind", "127.0.0.1", "--port", &port, "--loglevel", "warning"];
        args.extend(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        args.extend(["--maxmemory", &bytes, "--maxmemory-policy", "allkeys-lru"]);
        // Without this option a replica waits five seconds for others.
        args.extend(["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"]);
        let of = main.map(|main| (main.ip().to_string(), main.port().to_string()));
        if let Some((ip, port)) = &of {
            args.extend(["--replicaof", ip, port]);
        }
        Process::start("redis-server".as_ref(), args, settings.server_threads)
    };
    start_on_free_port("redis-server", start).await
}

#[async_trait]
impl Contender for Redis {
    fn servers(&self) -> Vec<u32> {
        self.processes.iter().map(Process::id).collect()
    }

    async fn fault(&self) -> Result<Option<String>> {
        let (online, wanted) = (self.replicas_online().await?, self.processes.len() - 1);
        Ok((online < wanted).then(|| format!("{online} of {wanted} replicas are left")))
    }

    async fn callers(&self, tasks: usize) -> Result<Box<dyn Load>> {
        let (count, wait) = match self.callers {
            Use::Multiplexed(connections) => (connections, None),
            Use::WaitFor { replicas } => (tasks, Some(replicas)),
        };
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(self.connect().await?);
        }
        let callers = connections.iter().cycle().take(tasks);
        let caller =
            |connection: &MultiplexedConnection| Caller { connection: connection.clone(), wait };
        Ok(Box::new(Callers(callers.map(caller).collect())))
    }
}

struct Caller {
    connection: MultiplexedConnection,
    /// Replicas that must have a write before it is acknowledged.
    wait: Option<u32>,
}

impl Driver for Caller {
    async fn get(&mut self, data: &Data, key: usize) -> Result<()> {
        let found: Vec<u8> =
            redis::cmd("GET").arg(data.key(key)).query_async(&mut self.connection).await?;
        data.check(key, &found)
    }

    async fn put(&mut self, data: &Data, key: usize) -> Result<()> {
        let mut set = redis::cmd("SET");
        set.arg(data.key(key)).arg(&data.value(key)[..]).arg("EX").arg(TTL_SECONDS);
        let Some(replicas) = self.wait else {
            let _: () = set.query_async(&mut self.connection).await?;
            return Ok(());
        };
        let mut pipe = redis::pipe();
        pipe.add_command(set).ignore().cmd("WAIT").arg(replicas).arg(WAIT_MS);
        let (reached,): (u32,) = pipe.query_async(&mut self.connection).await?;
        ensure!(reached >= replicas, "a write is on {reached} replicas");
        Ok(())
    }
}
