//! Binding the listener.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted, such as those of all clients after a restart. The kernel
/// lowers it to its own limit.
const BACKLOG: u32 = 4096;

/// No address could be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The last address that was tried.
    pub address: SocketAddr,
    /// The error of the system.
    pub source: io::Error,
}

/// Listens on the first candidate address that this machine has, IPv4 or IPv6. Port 0 picks a free
/// port. Must be called inside a Tokio runtime.
///
/// # Errors
/// The first failure other than a missing address or address family, such as a port in use; else the
/// last failure.
pub fn bind(candidates: &[SocketAddr]) -> Result<TcpListener, BindError> {
    let none = SocketAddr::from(([0, 0, 0, 0], 0));
    let source = io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on");
    let mut failure = BindError { address: none, source };
    for &address in candidates {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(source) => {
                let missing = is_missing(&source);
                failure = BindError { address, source };
                if !missing {
                    break;
                }
            }
        }
    }
    Err(failure)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // A restarted node gets its port although old connections linger in the kernel.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_missing(error: &io::Error) -> bool {
    let family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn missing_address_is_skipped_and_port_in_use_is_an_error() {
        // 203.0.113.0/24 is for documentation (RFC 5737): no machine has it.
        let missing = SocketAddr::from(([203, 0, 113, 9], 0));
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = bind(&[missing, local]).expect("a listener");
        let taken = listener.local_addr().expect("an address");
        let error = bind(&[taken, local]).expect_err("in use");
        assert_eq!((error.address, error.source.kind()), (taken, io::ErrorKind::AddrInUse));
        assert_eq!(bind(&[missing]).expect_err("missing").address, missing);
        assert!(bind(&[]).is_err());
    }
}
