//! The node's socket for datagrams: the same address and port number as the listener.
//!
//! Nothing waits for a datagram to leave: what does not fit into the kernel's buffer is dropped and
//! counted, as the network could have done.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use tokio::net::UdpSocket;
use zerocache_core::{node::Input, wire::DATAGRAM_BYTES_MAX};

use crate::{driver::NodeDriver, telemetry::Counter};

/// Most datagrams that are handed to the node together: the node is locked while it takes them.
const BATCH_MAX: usize = 64;

/// The pause after the socket failed to receive.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// A socket for datagrams.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    is_v6: bool,
    unsent: Counter,
}

impl Datagrams {
    /// Binds the address of the listener, whose port number is known by then.
    ///
    /// # Errors
    /// What the system says, such as that the port is in use.
    pub fn bind(listen: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(listen)?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { socket, is_v6: listen.is_ipv6(), unsent: Counter::default() })
    }

    /// Sends a datagram, or drops it.
    pub fn send(&self, to: SocketAddr, bytes: &Bytes) {
        let to = match to.ip() {
            // A socket of the newer family reaches addresses of the older one in this form.
            IpAddr::V4(ip) if self.is_v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        };
        if self.socket.try_send_to(bytes, to).is_err() {
            self.unsent.add();
        }
    }

    /// Datagrams that could not be sent.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        self.unsent.get()
    }

    /// Hands what comes to the node; ends only when dropped.
    pub async fn receive(&self, driver: &NodeDriver) {
        // One byte more, so that what is too long does not look whole.
        let mut room = [0; DATAGRAM_BYTES_MAX + 1];
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            if self.socket.readable().await.is_err() {
                tokio::time::sleep(ERROR_PAUSE).await;
            }
            while batch.len() < BATCH_MAX {
                match self.socket.try_recv_from(&mut room) {
                    Ok((length, from)) => {
                        let bytes = Bytes::copy_from_slice(&room[..length]);
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
                driver.inputs(batch.drain(..));
                tokio::task::yield_now().await;
            }
        }
    }
}
