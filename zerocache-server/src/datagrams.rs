//! The node's UDP socket: the same address and port number as the listener.
//!
//! Sending never waits: a datagram that does not fit into the kernel's buffer is dropped and counted,
//! as if the network had lost it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use tokio::net::UdpSocket;
use zerocache_core::{node::Input, wire::DATAGRAM_BYTES_MAX};

use crate::telemetry::Counter;

/// Most datagrams that are delivered together: the node is locked while it handles them.
const BATCH_MAX: usize = 64;

/// The pause after the socket failed to receive.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// A UDP socket for heartbeats and gossip.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: UdpSocket,
    is_v6: bool,
    send_errors: Counter,
}

impl DatagramSocket {
    /// Binds the address of the listener, whose port number is known by then.
    ///
    /// # Errors
    /// The error of the system, such as a port in use.
    pub fn bind(listen: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(listen)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { socket, is_v6: listen.is_ipv6(), send_errors: Counter::default() })
    }

    /// Sends a datagram, or drops it.
    pub fn send(&self, to: SocketAddr, bytes: &Bytes) {
        let to = match to.ip() {
            // An IPv6 socket reaches IPv4 addresses in their mapped form.
            IpAddr::V4(ip) if self.is_v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        };
        if self.socket.try_send_to(bytes, to).is_err() {
            self.send_errors.add();
        }
    }

    /// Returns the number of datagrams that could not be sent.
    #[must_use]
    pub fn send_errors(&self) -> u64 {
        self.send_errors.get()
    }

    /// Passes received datagrams to `deliver` in batches. Ends only when dropped.
    pub async fn receive(&self, deliver: impl Fn(std::vec::Drain<'_, Input>)) {
        // One byte more, so that a datagram that is too long does not look complete.
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            if self.socket.readable().await.is_err() {
                tokio::time::sleep(ERROR_PAUSE).await;
            }
            while batch.len() < BATCH_MAX {
                match self.socket.try_recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        let bytes = Bytes::copy_from_slice(&buffer[..length]);
                        batch.push(Input::Datagram { from, bytes });
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => {
                        tokio::time::sleep(ERROR_PAUSE).await;
                        break;
                    }
                }
            }
            if !batch.is_empty() {
                deliver(batch.drain(..));
                tokio::task::yield_now().await;
            }
        }
    }
}
