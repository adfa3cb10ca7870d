//! A connection with one request at a time, for the protocols that are implemented by hand.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer heads are none.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// A connection and what was read from it.
pub struct Stream<S = TcpStream> {
    stream: S,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Stream {
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Uses a stream that is connected.
    pub fn over(stream: S) -> Self {
        Self { stream, request: Vec::new(), answer: Vec::with_capacity(HEAD_BYTES_MAX) }
    }

    /// Sends a request that consists of `parts`.
    pub async fn send(&mut self, parts: &[&[u8]]) -> Result<()> {
        self.request.clear();
        for part in parts {
            self.request.extend_from_slice(part);
        }
        self.stream.write_all(&self.request).await?;
        self.stream.flush().await?;
        self.answer.clear();
        Ok(())
    }

    /// Reads until the answer begins with a head that ends with `end`, and returns the head's
    /// length.
    pub async fn read_head(&mut self, end: &[u8]) -> Result<usize> {
        let mut searched = 0;
        loop {
            let found = self.answer[searched..].windows(end.len()).position(|part| part == end);
            if let Some(at) = found {
                return Ok(searched + at + end.len());
            }
            ensure!(self.answer.len() < HEAD_BYTES_MAX, "an answer without an end of its head");
            searched = self.answer.len().saturating_sub(end.len() - 1);
            self.read_more().await?;
        }
    }

    /// Reads until the answer has exactly `bytes`.
    pub async fn read_to(&mut self, bytes: usize) -> Result<()> {
        while self.answer.len() < bytes {
            self.read_more().await?;
        }
        ensure!(self.answer.len() == bytes, "an answer that is too long");
        Ok(())
    }

    /// Returns the part of the answer that was read so far.
    pub fn answer(&self) -> &[u8] {
        &self.answer
    }

    async fn read_more(&mut self) -> Result<()> {
        let read = self.stream.read_buf(&mut self.answer).await?;
        ensure!(read > 0, "the server closed the connection");
        Ok(())
    }
}

/// A number in decimal digits.
pub fn number(digits: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(digits).context("a length")?;
    text.trim().parse().with_context(|| format!("the length {text:?}"))
}
