//! Binding the listener.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted: a burst of clients after a restart. The kernel lowers
/// it to its own limit.
const BACKLOG: u32 = 4096;

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// The address that was tried last.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

/// Listens on the first of the candidates that this machine has, IPv4 or IPv6. Port 0 picks a free
/// one. Must be called inside a tokio runtime.
///
/// # Errors
/// The first failure that is not the want of the address or its family, such as a port in use; or
/// the last failure.
pub fn bind(candidates: &[SocketAddr]) -> Result<TcpListener, BindError> {
    let none = SocketAddr::from(([0, 0, 0, 0], 0));
    let source = io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on");
    let mut failure = BindError { address: none, source };
    for &address in candidates {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(source) => {
                let absent = is_absent(&source);
                failure = BindError { address, source };
                if !absent {
                    break;
                }
            }
        }
    }
    Err(failure)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // A restarted node takes its port although old connections linger in the kernel.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn is_absent(error: &io::Error) -> bool {
    let family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_absent_address_is_passed_over_and_a_taken_one_is_not() {
        // 203.0.113.0/24 is for documentation (RFC 5737): no machine has it.
        let absent = SocketAddr::from(([203, 0, 113, 9], 0));
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = bind(&[absent, local]).expect("a listener");
        let taken = listener.local_addr().expect("an address");
        let error = bind(&[taken, local]).expect_err("in use");
        assert_eq!((error.address, error.source.kind()), (taken, io::ErrorKind::AddrInUse));
        assert_eq!(bind(&[absent]).expect_err("absent").address, absent);
        assert!(bind(&[]).is_err());
    }
}
