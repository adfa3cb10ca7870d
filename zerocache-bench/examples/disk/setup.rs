//! The node with a disk, its clients, and what is written and read.

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use zerocache_client::ZerocacheClient;
use zerocache_net::clock;
use zerocache_server::{
    EmbeddedNode,
    config::{DiscoverySet, DiskAdmission, DiskConfig, ServerConfig},
};
use zerocache_tests::random::Random;

pub const CLUSTER: &str = "bench-disk";

/// Bytes of a key.
pub const KEY_BYTES: usize = 12;

/// The lifetime of entries, in seconds.
const TTL_S: u64 = 3_600;

/// The longest time until a node is in sync, and until its disk has what left memory.
const READY_MAX: Duration = Duration::from_secs(120);
const SETTLED_MAX: Duration = Duration::from_secs(60);

/// The interval at which a node is asked whether the disk has everything.
const CHECK_EVERY: Duration = Duration::from_millis(2);

/// The time within which a node publishes the figures of its log, which it does each second.
pub const PUBLISHED_WITHIN: Duration = Duration::from_millis(1_500);

/// The directory of a node.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    pub fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    /// Starts a node that admits all values of `value_bytes_min` or more, and waits until it is in sync.
    pub fn start(&self, memory: u64, disk: u64, value_bytes_min: u64) -> Result<EmbeddedNode> {
        let mut config = ServerConfig::new("london");
        config.cluster = CLUSTER.into();
        config.addresses = vec![[127, 0, 0, 1].into()];
        config.port = 0;
        config.max_bytes = memory;
        config.discovery = DiscoverySet::NONE;
        let mut disk = DiskConfig::new(self.path(), disk);
        disk.admission = DiskAdmission::All;
        disk.value_bytes_min = value_bytes_min;
        config.disk = Some(disk);
        Ok(EmbeddedNode::start(config, READY_MAX)?)
    }
}

/// A client without what would hide the node.
pub fn client(node: SocketAddr) -> Result<ZerocacheClient> {
    let builder = ZerocacheClient::builder("london").cluster(CLUSTER).mdns(false);
    Ok(builder.seed(node.to_string()).compress_above(None).near_bytes(0).build()?)
}

/// The `n`th key.
pub fn key(n: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key-........";
    key[4..].copy_from_slice(&n.to_le_bytes());
    key
}

/// Values of one size: a number, then random bytes.
#[derive(Clone)]
pub struct Values(Arc<Vec<u8>>);

impl Values {
    pub fn new(bytes: u64) -> Self {
        let mut random = Random::new(7);
        let words = (0..bytes.div_ceil(8)).flat_map(|_| random.bits().to_le_bytes());
        Self(Arc::new(words.take(bytes as usize).collect()))
    }

    fn of(&self, n: u64) -> Bytes {
        let mut value = self.0.to_vec();
        value[..8].copy_from_slice(&n.to_le_bytes());
        value.into()
    }

    fn check(&self, n: u64, found: &[u8]) -> Result<()> {
        let is_whole = found.len() == self.0.len() && found[8..] == self.0[8..];
        ensure!(is_whole && found[..8] == n.to_le_bytes(), "key {n} has another value");
        Ok(())
    }
}

/// Writes the entries with these numbers, `tasks` at a time.
pub async fn write(
    client: &ZerocacheClient,
    values: &Values,
    range: Range<u64>,
    tasks: usize,
) -> Result<()> {
    write_all(client, values, tasks, move |task| range.clone().skip(task).step_by(tasks)).await
}

/// Writes the entries with these numbers at a rate, in bytes a second, or as fast as 16 tasks can if that is less.
pub async fn write_at_rate(
    client: &ZerocacheClient,
    values: &Values,
    count: u64,
    bytes_per_s: f64,
) -> Result<()> {
    const TASKS: u64 = 16;
    let each_s = values.0.len() as f64 / bytes_per_s;
    let begin = clock::elapsed();
    let mut running = JoinSet::new();
    for task in 0..TASKS {
        let (client, values) = (client.clone(), values.clone());
        running.spawn(async move {
            for n in (task..count).step_by(TASKS as usize) {
                let due = begin + Duration::from_secs_f64(n as f64 * each_s);
                tokio::time::sleep(due.saturating_sub(clock::elapsed())).await;
                client.put(key(n), values.of(n), TTL_S).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    running.join_all().await.into_iter().collect()
}

/// Writes the entries with the numbers that each of `tasks` has.
pub async fn write_all<I: Iterator<Item = u64> + Send + 'static>(
    client: &ZerocacheClient,
    values: &Values,
    tasks: usize,
    numbers: impl Fn(usize) -> I,
) -> Result<()> {
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (client, values, numbers) = (client.clone(), values.clone(), numbers(task));
        running.spawn(async move {
            for n in numbers {
                client.put(key(n), values.of(n), TTL_S).await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    running.join_all().await.into_iter().collect()
}

/// Reads of one task.
pub struct Load {
    client: ZerocacheClient,
    values: Values,
    /// How long each hit took, in microseconds.
    pub times: Vec<f64>,
    pub misses: u64,
}

impl Load {
    pub fn new(client: &ZerocacheClient, values: &Values) -> Self {
        let (client, values) = (client.clone(), values.clone());
        Self { client, values, times: Vec::new(), misses: 0 }
    }

    /// Reads and checks an entry.
    pub async fn read(&mut self, n: u64) -> Result<()> {
        let begin = clock::elapsed();
        let found = self.client.get(key(n)).await?;
        let took = (clock::elapsed() - begin).as_nanos() as f64 / 1_000.0;
        match found {
            Some(value) => {
                self.times.push(took);
                self.values.check(n, value.as_ref())
            }
            None => {
                self.misses += 1;
                Ok(())
            }
        }
    }
}

impl Load {
    /// Writes an entry.
    pub async fn put(&self, n: u64) -> Result<()> {
        self.client.put(key(n), self.values.of(n), TTL_S).await?;
        Ok(())
    }
}

/// The figures of a node, as `/v1/stats` has them.
pub struct Stats(String);

impl Stats {
    pub async fn of(node: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(node).await?;
        let request =
            format!("GET /v1/stats HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(Self(String::from_utf8_lossy(&answer).into_owned()))
    }

    pub fn get(&self, name: &str) -> Result<u64> {
        let label = format!("\"{name}\":");
        let at = self.0.find(&label).with_context(|| format!("no figure {name}"))?;
        let rest = &self.0[at + label.len()..];
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().with_context(|| format!("{name} is not a number"))
    }
}

/// Waits until nothing is on its way to disk. Returns the figures.
pub async fn settled(node: SocketAddr) -> Result<Stats> {
    let begin = clock::elapsed();
    loop {
        let stats = Stats::of(node).await?;
        if stats.get("disk_leaving_bytes")? == 0 {
            return Ok(stats);
        }
        ensure!(clock::elapsed() - begin < SETTLED_MAX, "the disk does not keep up");
        tokio::time::sleep(CHECK_EVERY).await;
    }
}
