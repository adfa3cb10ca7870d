//! A node over its HTTP interface: keep-alive, one request at a time per connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;

use super::stream::{Stream, number};
use super::{Contender, keys::Keys, zerocache::Node};
use crate::args::Settings;
use crate::data::Data;
use crate::measure::{Callers, Driver, Load};
use crate::process::START_MAX;

/// A node that is spoken to in HTTP alone.
pub struct Http {
    node: Node,
}

impl Http {
    /// Starts a node, which is encrypted if there are keys.
    pub fn start(settings: &Settings, keys: Option<&Keys>) -> Result<Self> {
        Ok(Self { node: Node::start(settings, settings.server_threads, None, keys)? })
    }

    pub fn address(&self) -> SocketAddr {
        self.node.address
    }

    /// Waits until the node takes writes: it listens before.
    async fn ready(&self) -> Result<()> {
        loop {
            let mut caller = HttpCaller::connect(self.node.address).await?;
            if caller.request("GET", "/readyz", b"").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[async_trait]
impl Contender for Http {
    fn servers(&self) -> Vec<u32> {
        vec![self.node.process.id()]
    }

    async fn callers(&self, tasks: usize) -> Result<Box<dyn Load>> {
        let ready = tokio::time::timeout(START_MAX, self.ready()).await;
        ready.context("the node is not ready")??;
        let mut callers = Vec::with_capacity(tasks);
        for _ in 0..tasks {
            callers.push(HttpCaller::connect(self.node.address).await?);
        }
        Ok(Box::new(Callers(callers)))
    }
}

/// A client of HTTP that knows just enough to read an answer with a length.
pub struct HttpCaller(Stream);

impl HttpCaller {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self(Stream::connect(address).await?))
    }

    /// Sends a request and returns the body of its answer, which must have the status 200.
    pub async fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<&[u8]> {
        let length = if body.is_empty() {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let parts = [method, " ", path, " HTTP/1.1\r\nHost: bench\r\n", &length, "\r\n"];
        let [a, b, c, d, e, f] = parts.map(str::as_bytes);
        self.0.send(&[a, b, c, d, e, f, body]).await?;
        let head = self.0.read_head(b"\r\n\r\n").await?;
        let body_bytes = body_bytes(&self.0.answer()[..head])?;
        self.0.read_to(head + body_bytes).await?;
        Ok(&self.0.answer()[head..])
    }
}

impl Driver for HttpCaller {
    async fn get(&mut self, data: &Data, key: usize) -> Result<()> {
        let path = ["/v1/entries/", data.key(key)].concat();
        let body = self.request("GET", &path, b"").await?;
        data.check(key, body)
    }

    async fn put(&mut self, data: &Data, key: usize) -> Result<()> {
        let path = ["/v1/entries/", data.key(key)].concat();
        self.request("PUT", &path, data.value(key)).await.map(|_| ())
    }
}

/// The length of the body that follows a head with the status 200.
fn body_bytes(head: &[u8]) -> Result<usize> {
    ensure!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
    let lines = head.split(|byte| *byte == b'\n');
    let name = b"content-length:";
    let mut found = lines.filter(|line| {
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    });
    let line = found.next().context("an answer without a length")?;
    number(&line[name.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_contains_the_length_of_its_body() {
        let head = b"HTTP/1.1 200 OK\r\ndate: x\r\nContent-Length: 17\r\n\r\n";
        assert_eq!(body_bytes(head).expect("a length"), 17);
        body_bytes(b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\n").expect_err("404");
        body_bytes(b"HTTP/1.1 200 OK\r\n\r\n").expect_err("no length");
    }
}
