//! Every bound of the HTTP shell, with its default.

use std::time::Duration;

use crate::config::ServerConfig;

/// The smallest read buffer that the HTTP parser accepts.
const BUFFER_BYTES_MIN: usize = 8 << 10;
/// Room in a head for everything but the key.
const HEAD_BYTES_BASE: usize = 13 << 10;
/// The part of the byte budget that request bodies in flight may take.
const BODY_SHARE: u64 = 8;

/// What one listener allows its clients.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// The most connections open at once; one above it is answered with 503 and closed.
    pub connections_max: usize,
    /// How long the first head may take from the accept on, and each later one from its first byte.
    pub header_timeout: Duration,
    /// How long a connection may be without a request after its first one.
    pub idle_timeout: Duration,
    /// The most header fields of a request; more get 431.
    pub headers_max: usize,
    /// The largest head in bytes, request line included; a larger one gets 431.
    pub head_bytes_max: usize,
    /// The most bytes that one connection buffers while reading, at least 8 KiB.
    pub buffer_bytes_max: usize,
    /// Over how long the rate of a client's reading is measured once the kernel's buffer is full.
    /// The kernel reports progress in steps of up to a megabyte, so shorter is not more exact.
    pub write_window: Duration,
    /// The least bytes per second that a client must read of a response, on average of a window.
    pub write_rate_min: u64,
    /// How long a closed connection's remaining input is read and thrown away, so that the last
    /// response is not lost to a reset.
    pub linger: Duration,
    /// How long the end waits for connections that still have a request.
    pub close_timeout: Duration,
    /// Bounds for request bodies.
    pub bodies: BodyLimits,
}

/// What one listener allows in request bodies.
#[derive(Clone, Debug)]
pub struct BodyLimits {
    /// How long a whole body may take.
    pub total_time: Duration,
    /// Over how long the rate of a body is measured.
    pub window: Duration,
    /// The least bytes per second of a body, on average of a window.
    pub rate_min: u64,
    /// The most bytes that all bodies together may hold, from their reading until the last handle to
    /// their bytes is dropped; a body beyond it gets 503.
    pub memory_bytes: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: crate::config::CONNECTIONS_MAX_DEFAULT,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            headers_max: 100,
            head_bytes_max: 16 << 10,
            buffer_bytes_max: 64 << 10,
            write_window: Duration::from_secs(30),
            write_rate_min: 1 << 10,
            linger: Duration::from_secs(1),
            close_timeout: Duration::from_secs(2),
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
    /// The limits that fit a node's configuration: heads with room for the longest key, its bytes
    /// escaped; bodies with an eighth of the byte budget together, and at least two of the largest.
    #[must_use]
    pub fn for_config(config: &ServerConfig) -> Self {
        let head_bytes_max = HEAD_BYTES_BASE + 3 * config.max_key_bytes;
        let two_values = config.value_bytes_max().saturating_mul(2);
        let mut limits =
            Self { connections_max: config.max_connections, head_bytes_max, ..Self::default() };
        limits.buffer_bytes_max = limits.buffer_bytes_max.max(head_bytes_max);
        limits.bodies.memory_bytes = (config.max_bytes / BODY_SHARE).max(two_values);
        limits
    }

    /// What responses that wait on framed connections may take together, in bytes: as much as request
    /// bodies.
    #[must_use]
    pub fn responses_bytes(&self) -> usize {
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
    fn limits_follow_the_configuration() {
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
