//! Messages to the service manager that started the process, as sd_notify(3) describes them: systemd, with
//! `Type=notify`.

use std::{
    ffi::OsStr,
    io,
    os::unix::{ffi::OsStrExt, net::UnixDatagram},
};

use rustix::time::{ClockId, clock_gettime};
use zerocache_core::wire::NodeState;

/// The variable in which a service manager names its socket.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// The service manager. Does nothing if the process was not started by one that wants to hear from it.
#[derive(Debug)]
pub(crate) struct ServiceManager {
    socket: Option<UnixDatagram>,
    is_ready: bool,
}

impl ServiceManager {
    /// Connects to the service manager that the environment names.
    pub(crate) fn from_env() -> Self {
        let name = std::env::var_os(SOCKET_VARIABLE).filter(|name| !name.is_empty());
        Self::connected(name.as_deref())
    }

    fn connected(name: Option<&OsStr>) -> Self {
        let socket = name.and_then(|name| {
            let warn = |error| tracing::warn!(%error, "cannot reach the service manager");
            connect(name).map_err(warn).ok()
        });
        Self { socket, is_ready: false }
    }

    /// Reports the state of the node. The first time that it is in sync the service counts as started.
    pub(crate) fn report(&mut self, state: NodeState) {
        let message = match state {
            NodeState::InSync if self.is_ready => "STATUS=in sync",
            NodeState::InSync => {
                self.is_ready = true;
                "READY=1\nSTATUS=in sync"
            }
            NodeState::Warming => "STATUS=warming: finding peers and copying their entries",
            NodeState::Leaving => "STATUS=leaving: serving until callers have noticed",
        };
        self.send(message);
    }

    /// Reports that the configuration was read again. A node that is not ready yet stays so.
    pub(crate) fn reloaded(&self) {
        if self.is_ready {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
            self.send("READY=1");
        }
    }

    /// Reports that the node shuts down.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=shutting down");
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // Never waits for the service manager; a message that it has no room for is lost.
            if let Err(error) = socket.send(message.as_bytes()) {
                tracing::warn!(%error, "cannot notify the service manager");
            }
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match name.as_bytes() {
        [b'@', abstract_name @ ..] => connect_abstract(&socket, abstract_name)?,
        _ => socket.connect(name)?,
    }
    Ok(socket)
}

#[cfg(target_os = "linux")]
fn connect_abstract(socket: &UnixDatagram, name: &[u8]) -> io::Result<()> {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    socket.connect_addr(&SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
fn connect_abstract(_: &UnixDatagram, _: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn hears_everything(socket: &UnixDatagram, name: &OsStr) {
        socket.set_nonblocking(true).expect("a socket");
        let mut manager = ServiceManager::connected(Some(name));
        manager.report(NodeState::Warming);
        assert!(received(socket).starts_with("STATUS=warming"));
        manager.reloaded();
        manager.report(NodeState::InSync);
        assert_eq!(received(socket), "READY=1\nSTATUS=in sync", "a reload makes no node ready");
        manager.reloaded();
        assert!(received(socket).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(received(socket), "READY=1");
        manager.report(NodeState::InSync);
        assert_eq!(received(socket), "STATUS=in sync");
        manager.stopping();
        assert!(received(socket).starts_with("STOPPING=1"));
    }

    #[test]
    fn service_manager_hears_of_each_state() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        hears_everything(&UnixDatagram::bind(&path).expect("a socket"), path.as_os_str());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn service_manager_may_have_an_abstract_socket() {
        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
        let name = format!("zerocache-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        hears_everything(&socket, OsStr::new(&format!("@{name}")));
    }

    #[test]
    fn without_a_service_manager_nothing_is_sent() {
        let mut manager = ServiceManager::connected(None);
        manager.report(NodeState::InSync);
        manager.stopping();
        assert!(
            ServiceManager::connected(Some(OsStr::new("/nonexistent/notify"))).socket.is_none()
        );
    }
}
