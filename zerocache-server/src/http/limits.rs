//! Every bound of the HTTP server, with its default.

use std::sync::Arc;
use std::time::Duration;

use crate::config::ServerConfig;

/// The smallest read buffer that the HTTP parser accepts.
const BUFFER_BYTES_MIN: usize = 8 << 10;
/// Room in a head for everything but the key.
const HEAD_BYTES_BASE: usize = 13 << 10;
/// The share of the byte budget that request bodies in flight may take.
const BODY_SHARE: u64 = 8;

/// Limits of one listener.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Most open connections; one more gets 503 and is closed.
    pub connections_max: usize,
    /// Deadline of a head: of the first one from the accept, of each later one from its first byte.
    pub header_timeout: Duration,
    /// Deadline of a TLS handshake, from the first byte of the caller.
    pub handshake_timeout: Duration,
    /// Longest time of a connection without a request, after its first one.
    pub idle_timeout: Duration,
    /// Most header fields of a request; more get 431.
    pub headers_max: usize,
    /// Largest head in bytes, including the request line; a larger one gets 431.
    pub head_bytes_max: usize,
    /// Most bytes that one connection buffers while reading; at least 8 KiB.
    pub buffer_bytes_max: usize,
    /// Window over which a client's read rate is measured once the kernel's buffer is full. The kernel
    /// reports progress in steps of up to a megabyte, so a shorter window is not more exact.
    pub write_window: Duration,
    /// Minimum rate at which a client must read, in bytes per second, averaged over a window.
    pub write_rate_min: u64,
    /// Time during which the remaining input of a closed connection is discarded, so that the last
    /// response is not lost to a reset.
    pub linger: Duration,
    /// Longest wait of the shutdown for connections with a pending request.
    pub close_timeout: Duration,
    /// Host names under which web pages may reach the node, beside IP addresses, `localhost` and names
    /// without dots.
    pub allowed_hosts: Arc<[Box<str>]>,
    /// Limits of request bodies.
    pub bodies: BodyLimits,
}

/// Limits of the request bodies of one listener.
#[derive(Clone, Debug)]
pub struct BodyLimits {
    /// Longest time of a whole body.
    pub total_time: Duration,
    /// Window over which the rate of a body is measured.
    pub window: Duration,
    /// Minimum rate of a body, in bytes per second, averaged over a window.
    pub rate_min: u64,
    /// Most bytes of all bodies together, from their reading until the last handle to their bytes is
    /// dropped; a body beyond that gets 503.
    pub memory_bytes: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: crate::config::CONNECTIONS_MAX_DEFAULT,
            header_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(75),
            headers_max: 100,
            head_bytes_max: 16 << 10,
            buffer_bytes_max: 64 << 10,
            write_window: Duration::from_secs(30),
            write_rate_min: 1 << 10,
            linger: Duration::from_secs(1),
            close_timeout: Duration::from_secs(2),
            allowed_hosts: Arc::default(),
            bodies: BodyLimits::default(),
        }
    }
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            total_time: Duration::from_secs(60),
            window: Duration::from_secs(5),
            rate_min: 1 << 10,
            memory_bytes: 128 << 20,
        }
    }
}

impl HttpLimits {
    /// Derives the limits from a node's configuration: heads fit the longest key with all its bytes
    /// escaped; bodies together get an eighth of the byte budget, and at least two of the largest.
    #[must_use]
    pub fn for_config(config: &ServerConfig) -> Self {
        let head_bytes_max = HEAD_BYTES_BASE + 3 * config.max_key_bytes;
        let two_values = config.value_bytes_max().saturating_mul(2);
        let mut limits =
            Self { connections_max: config.max_connections, head_bytes_max, ..Self::default() };
        limits.allowed_hosts =
            config.allowed_hosts.iter().map(|name| name.as_str().into()).collect();
        limits.buffer_bytes_max = limits.buffer_bytes_max.max(head_bytes_max);
        limits.bodies.memory_bytes = (config.max_bytes / BODY_SHARE).max(two_values);
        limits
    }

    /// Most bytes of pending responses on all framed connections: as much as request bodies get.
    #[must_use]
    pub fn pending_response_bytes_max(&self) -> usize {
        usize::try_from(self.bodies.memory_bytes).unwrap_or(usize::MAX)
    }

    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes_max.max(self.head_bytes_max).max(BUFFER_BYTES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_fit_the_configuration() {
        let mut config = ServerConfig::new("london");
        config.max_bytes = 1 << 30;
        config.max_key_bytes = 1 << 10;
        let limits = HttpLimits::for_config(&config);
        assert_eq!(limits.head_bytes_max, 16 << 10);
        assert_eq!(limits.bodies.memory_bytes, 128 << 20);
        assert_eq!(limits.connections_max, config.max_connections);
        // The longest key that a configuration allows, escaped, fits head and buffer.
        config.max_key_bytes = 16 << 10;
        config.max_value_bytes = Some(64 << 20);
        let limits = HttpLimits::for_config(&config);
        assert!(limits.head_bytes_max > 3 * config.max_key_bytes);
        assert!(limits.buffer_bytes() >= limits.head_bytes_max);
        assert!(limits.bodies.memory_bytes >= 2 * config.value_bytes_max());
    }
}
