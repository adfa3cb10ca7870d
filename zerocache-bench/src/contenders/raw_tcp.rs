//! A fixed request and a fixed answer over plain TCP: what the system itself costs.

use std::ffi::OsString;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Contender;
use super::stream::Stream;
use crate::args::Settings;
use crate::child_roles;
use crate::data::{Data, KEY_BYTES, MARK_BYTES, mark, value};
use crate::measure::{Callers, Driver, Load};
use crate::process::{Process, own_executable};

/// The line that the server prints when it is ready.
const LISTENING: &str = "raw server listening on ";

/// The running server.
pub struct RawTcp {
    process: Process,
    address: SocketAddr,
}

impl RawTcp {
    pub fn start(settings: &Settings) -> Result<Self> {
        let args = [child_roles::RAW_SERVER.to_owned(), settings.value_bytes.to_string()];
        let program = own_executable()?;
        let (process, address) = Process::start_and_read_address(
            program.as_os_str(),
            args,
            settings.server_threads,
            LISTENING,
        )?;
        Ok(Self { process, address })
    }
}

#[async_trait]
impl Contender for RawTcp {
    fn servers(&self) -> Vec<u32> {
        vec![self.process.id()]
    }

    async fn callers(&self, tasks: usize) -> Result<Box<dyn Load>> {
        let mut callers = Vec::with_capacity(tasks);
        for _ in 0..tasks {
            callers.push(Caller(Stream::connect(self.address).await?));
        }
        Ok(Box::new(Callers(callers)))
    }
}

struct Caller(Stream);

impl Driver for Caller {
    async fn get(&mut self, data: &Data, key: usize) -> Result<()> {
        self.0.send(&[data.key(key).as_bytes()]).await?;
        self.0.read_to(data.value_bytes()).await?;
        data.check(key, self.0.answer())
    }

    /// There is nothing to fill: every key has its value.
    async fn put(&mut self, _data: &Data, _key: usize) -> Result<()> {
        Ok(())
    }
}

/// Is the server until it is killed.
pub fn serve(args: &[OsString]) -> Result<()> {
    let bytes = args.first().and_then(|bytes| bytes.to_str()).context("raw-server VALUE_BYTES")?;
    let bytes: usize = bytes.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // On a worker, as every server of this kind would.
    runtime.block_on(async move { tokio::spawn(accept(bytes)).await? })
}

async fn accept(value_bytes: usize) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{LISTENING}{}", listener.local_addr()?)?;
    out.flush()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(answer(stream, value_bytes));
    }
}

async fn answer(mut stream: TcpStream, value_bytes: usize) -> std::io::Result<()> {
    let mut key = [b'0'; KEY_BYTES];
    let mut answer = value(&"0".repeat(KEY_BYTES), value_bytes).to_vec();
    loop {
        stream.read_exact(&mut key).await?;
        answer[..MARK_BYTES].copy_from_slice(mark(&key));
        stream.write_all(&answer).await?;
    }
}
