//! The memory of an idle connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncWrite};
use zerocache_core::{
    time::Instant,
    wire::{Envelope, Hello, Request, RequestMessage, cluster_id},
};
use zerocache_net::transport::{MESSAGES_PATH, MESSAGES_TYPE, framed::UPGRADE_TOKEN};

use super::Workload;
use crate::args::Settings;
use crate::contenders::stream::Stream;
use crate::contenders::{
    Contender, Kind, http::Http, keys::Keys, memcached::Memcached, redis::Redis,
};
use crate::rounds::Run;
use crate::row::Row;
use crate::usage::resident_bytes;

/// The time for a server to free the memory of a request.
const QUIESCE_TIME: Duration = Duration::from_secs(3);
/// The default cluster of a node.
const CLUSTER: &str = "zerocache";
/// Connections that are opened and kept before memory is first read.
const FIRST_CONNECTIONS: usize = 8;

/// A server and one request after which its connection stays open.
struct ConnectionProbe {
    contender: Box<dyn Contender>,
    address: SocketAddr,
    request: Vec<u8>,
    /// The end of the answer.
    end: &'static [u8],
    /// Encrypts the connection.
    keys: Option<Keys>,
}

impl ConnectionProbe {
    async fn start(kind: Kind, settings: &Settings) -> Result<Self> {
        Ok(match kind {
            Kind::Redis => {
                let redis = Redis::start(settings, 1).await?;
                let address = redis.address;
                Self {
                    contender: Box::new(redis),
                    address,
                    request: b"PING\r\n".to_vec(),
                    end: b"+PONG\r\n",
                    keys: None,
                }
            }
            Kind::Memcached => {
                let memcached = Memcached::start(settings).await?;
                let address = memcached.address;
                let (request, end) = (b"mn\r\n", b"MN\r\n");
                let request = request.to_vec();
                Self { contender: Box::new(memcached), address, request, end, keys: None }
            }
            Kind::Zerocache | Kind::ZerocacheTls => {
                let encrypted = kind == Kind::ZerocacheTls;
                let keys = encrypted.then(|| Keys::new(CLUSTER)).transpose()?;
                let http = Http::start(settings, keys.as_ref())?;
                let (address, request) = (http.address(), upgrade(keys.as_ref()));
                Self { contender: Box::new(http), address, request, end: b"\r\n\r\n", keys }
            }
            _ => {
                let http = Http::start(settings, None)?;
                let address = http.address();
                let request = b"GET /ping HTTP/1.1\r\nHost: bench\r\n\r\n".to_vec();
                Self { contender: Box::new(http), address, request, end: b"pong", keys: None }
            }
        })
    }

    /// A connection over which one request went; it stays open until it is dropped.
    async fn open(&self) -> Result<Box<dyn Send>> {
        Ok(match &self.keys {
            Some(keys) => self.ask(Stream::over(keys.connect(self.address).await?)).await?,
            None => self.ask(Stream::connect(self.address).await?).await?,
        })
    }

    async fn ask<S>(&self, mut stream: Stream<S>) -> Result<Box<dyn Send>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        stream.send(&[&self.request]).await?;
        stream.read_head(self.end).await?;
        Ok(Box::new(stream))
    }

    fn resident(&self) -> Result<u64> {
        self.contender.servers().into_iter().map(resident_bytes).sum()
    }
}

/// Returns the request with which a client begins a framed connection.
fn upgrade(keys: Option<&Keys>) -> Vec<u8> {
    let hello = Hello::of_client(CLUSTER, "bench", 0);
    let envelope = Envelope { cluster: cluster_id(CLUSTER), ..Envelope::default() };
    let request = Request::Hello(Box::new(hello));
    let body = RequestMessage { envelope, request }.encode(Instant::default());
    let token = keys.map(|keys| format!("Authorization: Bearer {}\r\n", keys.token()));
    let token = token.unwrap_or_default();
    let head = format!(
        "POST {MESSAGES_PATH} HTTP/1.1\r\nHost: bench\r\n{token}Connection: upgrade\r\n\
         Upgrade: {UPGRADE_TOKEN}\r\nContent-Type: {MESSAGES_TYPE}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// Opens connections to a fresh server of each contender, and compares its memory before and after.
pub async fn run(run: &mut Run) -> Result<()> {
    run.begin_step();
    let count = run.settings.connections;
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    ensure!(
        open_files.is_none_or(|most| (count + 100) as u64 <= most),
        "--connections {count}: the limit of open files is too low; see ulimit -n"
    );
    for kind in Workload::Idle.entrants(run) {
        if run.is_over() {
            break;
        }
        let probe =
            ConnectionProbe::start(kind, &run.settings).await.with_context(|| kind.name())?;
        let mut open = Vec::with_capacity(FIRST_CONNECTIONS + count);
        for _ in 0..FIRST_CONNECTIONS {
            open.push(probe.open().await.with_context(|| kind.name())?);
        }
        tokio::time::sleep(QUIESCE_TIME).await;
        let before = probe.resident()?;
        for _ in 0..count {
            open.push(probe.open().await.with_context(|| kind.name())?);
        }
        tokio::time::sleep(QUIESCE_TIME).await;
        let after = probe.resident()?;
        let each = after.saturating_sub(before) as f64 / count as f64;
        eprintln!("  idle: {} {each:.0} bytes for each of {count} connections", kind.name());
        let row = Row::new(Workload::Idle.name(), 1, kind.name(), 0);
        run.rows.push(Row { bytes_each: Some(each), server_rss_bytes: Some(after as f64), ..row });
    }
    Ok(())
}
