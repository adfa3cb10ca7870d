//! The memory of an idle connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use zerocache_core::{
    time::Instant,
    wire::{Envelope, Hello, PROTOCOL, Request, RequestMessage, cluster_id},
};
use zerocache_net::transport::{MESSAGES_PATH, MESSAGES_TYPE, framed::UPGRADE_TOKEN};

use super::Workload;
use crate::args::Settings;
use crate::contenders::stream::Stream;
use crate::contenders::{Contender, Kind, http::Http, memcached::Memcached, redis::Redis};
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
                }
            }
            Kind::Memcached => {
                let memcached = Memcached::start(settings).await?;
                let address = memcached.address;
                let (request, end) = (b"mn\r\n", b"MN\r\n");
                Self { contender: Box::new(memcached), address, request: request.to_vec(), end }
            }
            Kind::Zerocache => {
                let http = Http::start(settings)?;
                let address = http.address();
                let request = upgrade();
                Self { contender: Box::new(http), address, request, end: b"\r\n\r\n" }
            }
            _ => {
                let http = Http::start(settings)?;
                let address = http.address();
                let request = b"GET /ping HTTP/1.1\r\nHost: bench\r\n\r\n";
                let request = request.to_vec();
                Self { contender: Box::new(http), address, request, end: b"pong" }
            }
        })
    }

    /// A connection over which one request went.
    async fn open(&self) -> Result<Stream> {
        let mut stream = Stream::connect(self.address).await?;
        stream.send(&[&self.request]).await?;
        stream.read_head(self.end).await?;
        Ok(stream)
    }

    fn resident(&self) -> Result<u64> {
        self.contender.servers().into_iter().map(resident_bytes).sum()
    }
}

/// Returns the request with which a client begins a framed connection.
fn upgrade() -> Vec<u8> {
    let hello = Hello {
        cluster: CLUSTER.to_owned(),
        protocol: PROTOCOL,
        features: 0,
        entries: 0,
        session: None,
        auth: Bytes::new(),
        wall_ms: 0,
        node: None,
        region: "bench".to_owned(),
        members: Vec::new(),
    };
    let envelope = Envelope { cluster: cluster_id(CLUSTER), ..Envelope::default() };
    let request = Request::Hello(Box::new(hello));
    let body = RequestMessage { envelope, request }.encode(Instant::default());
    let head = format!(
        "POST {MESSAGES_PATH} HTTP/1.1\r\nHost: bench\r\nConnection: upgrade\r\n\
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
