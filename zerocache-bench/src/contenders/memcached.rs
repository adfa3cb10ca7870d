//! memcached in its text protocol: one request at a time per connection.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;

use super::Contender;
use super::stream::{Stream, number};
use crate::args::Settings;
use crate::data::{Data, TTL_SECONDS};
use crate::measure::{Callers, Driver, Load};
use crate::process::{Process, start_on_free_port};

/// More than any number of callers.
const CONNECTIONS_MAX: &str = "16384";

/// The running server.
pub struct Memcached {
    process: Process,
    pub address: SocketAddr,
}

impl Memcached {
    pub async fn start(settings: &Settings) -> Result<Self> {
        let megabytes = (settings.server_bytes >> 20).to_string();
        let threads = settings.server_threads.to_string();
        let start = |port: u16| {
            let port = port.to_string();
            let mut args = vec!["-l", "127.0.0.1", "-p", &port, "-U", "0", "-m", &megabytes];
            args.extend(["-t", &threads, "-c", CONNECTIONS_MAX]);
            // It refuses to run as root without this option.
            if rustix::process::geteuid().is_root() {
                args.extend(["-u", "root"]);
            }
            Process::start("memcached".as_ref(), args, settings.server_threads)
        };
        let (process, address) = start_on_free_port("memcached", start).await?;
        Ok(Self { process, address })
    }
}

#[async_trait]
impl Contender for Memcached {
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
        let name = data.key(key).as_bytes();
        self.0.send(&[b"get ", name, b"\r\n"]).await?;
        let head = self.0.read_head(b"\r\n").await?;
        let bytes = value_bytes(&self.0.answer()[..head], name)?;
        let end = b"\r\nEND\r\n";
        self.0.read_to(head + bytes + end.len()).await?;
        let (value, rest) = self.0.answer()[head..].split_at(bytes);
        ensure!(rest == end, "no end after the value");
        data.check(key, value)
    }

    async fn put(&mut self, data: &Data, key: usize) -> Result<()> {
        let (name, value) = (data.key(key).as_bytes(), data.value(key));
        let options = format!(" 0 {TTL_SECONDS} {}\r\n", value.len());
        self.0.send(&[b"set ", name, options.as_bytes(), value, b"\r\n"]).await?;
        let head = self.0.read_head(b"\r\n").await?;
        ensure!(&self.0.answer()[..head] == b"STORED\r\n", "{}", self.0.answer().escape_ascii());
        Ok(())
    }
}

/// The length in `VALUE <key> <flags> <bytes>\r\n`.
fn value_bytes(head: &[u8], key: &[u8]) -> Result<usize> {
    let mut words = head.trim_ascii_end().split(|byte| *byte == b' ');
    let found = words.next() == Some(b"VALUE") && words.next() == Some(key);
    ensure!(found, "{}: {}", key.escape_ascii(), head.escape_ascii());
    number(words.nth(1).context("a length")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_of_a_hit_contains_its_length() {
        assert_eq!(value_bytes(b"VALUE k 0 1024\r\n", b"k").expect("a hit"), 1024);
        value_bytes(b"END\r\n", b"k").expect_err("a miss");
        value_bytes(b"VALUE l 0 1024\r\n", b"k").expect_err("another key");
        value_bytes(b"VALUE k 0\r\n", b"k").expect_err("no length");
    }
}
