//! The binary as a service of systemd with `Type=notify`.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node, killed when it goes out of scope.
struct Node(Child);

impl Node {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("signalled");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Receives messages up to the one that begins with `wanted`.
fn expect(socket: &UnixDatagram, wanted: &str) -> String {
    let mut buffer = [0; 256];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted}: {error}"));
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if message.starts_with(wanted) {
            return message;
        }
        assert!(message.starts_with("STATUS="), "{message}, and not {wanted}");
    }
}

#[test]
fn node_tells_the_service_manager_when_it_is_ready_reloads_and_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerocache-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ZEROCACHE_") {
            command.env_remove(name);
        }
    }
    command.args(["--region", "london", "--address", "127.0.0.1", "--port", "0"]);
    command.args(["--discovery", "none", "--drain", "100ms", "--max-bytes", "64MiB"]);
    command.env("NOTIFY_SOCKET", &path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut node = Node(command.spawn().expect("the binary starts"));
    assert_eq!(expect(&socket, "READY=1"), "READY=1\nSTATUS=in sync");
    node.signal(Signal::HUP);
    assert!(expect(&socket, "RELOADING=1\nMONOTONIC_USEC=").len() > 30);
    assert_eq!(expect(&socket, "READY=1"), "READY=1");
    node.signal(Signal::TERM);
    expect(&socket, "STOPPING=1");
    assert!(node.0.wait().expect("its end").success());
}
