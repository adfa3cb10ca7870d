//! The unmodified Python client of zerocache 0.0.2 against real nodes, in a network namespace.
//!
//! Needs a Python with `tests/python/requirements.txt` installed, named by `ZEROCACHE_PYTHON`;
//! `.ci/run` makes one. Without it the test reports itself as skipped, unless `CI=true`.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use zerocache_tests::namespace;
use zerocache_tests::setup::server;

/// Regions and addresses of the nodes; the client stands in the first region. Two nodes in one
/// region and one elsewhere: local peers and a relay.
const NODES: [(&str, &str); 3] =
    [("london", "127.0.0.2"), ("london", "127.0.0.3"), ("sydney", "127.0.0.4")];

/// The namespace is ours alone, so the default port is free in it.
const PORT: u16 = 6789;

/// Longer than a node takes to start, on a busy machine too.
const START_POLLS_MAX: usize = 600;

/// More than any answer here has.
const ANSWER_MAX: u64 = 65_536;

const POLL: Duration = Duration::from_millis(50);

#[test]
fn python_client_reads_writes_and_deletes() {
    const TEST: &str = "python_client_reads_writes_and_deletes";
    match python() {
        Ok(python) => namespace::run(TEST, || drive(&python)),
        Err(why) => namespace::skip(TEST, &why),
    }
}

/// The Python that can import the client.
fn python() -> Result<PathBuf, String> {
    let path: OsString = std::env::var_os("ZEROCACHE_PYTHON")
        .ok_or("ZEROCACHE_PYTHON names no Python that has zerocache==0.0.2")?;
    let script = "import importlib.metadata as m; print(m.version('zerocache'))";
    let output = Command::new(&path)
        .args(["-c", script])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("ZEROCACHE_PYTHON={}: {error}", path.display()))?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "0.0.2" => Ok(path.into()),
        other => Err(format!("ZEROCACHE_PYTHON={}: zerocache {other:?}", path.display())),
    }
}

fn drive(python: &Path) {
    let mut nodes: Vec<Node> =
        NODES.iter().map(|(region, address)| Node::start(region, address)).collect();
    for node in &mut nodes {
        node.wait_until_ready();
    }
    wait_until_joined();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/compat_client.py");
    let places = NODES.map(|(region, address)| format!("{region}={address}:{PORT}"));
    let status = Command::new(python)
        .arg(script)
        .arg(NODES[0].0)
        .args(places)
        .stdin(Stdio::null())
        .status()
        .expect("Python starts");
    for node in &mut nodes {
        assert!(node.child.try_wait().expect("a child").is_none(), "{} has ended", node.address);
    }
    assert!(status.success(), "the Python client says: {status}");
}

/// Puts through every node until the others show it, so that the client meets a whole cluster.
fn wait_until_joined() {
    for (region, writer) in NODES {
        let joined = (0..START_POLLS_MAX).any(|attempt| {
            let path = format!("/{region}/joined-{writer}-{attempt}");
            http("PUT", writer, &format!("{path}?expiry=60"));
            std::thread::sleep(POLL);
            NODES.iter().all(|(_, reader)| http("GET", reader, &path) == Some(200))
        });
        assert!(joined, "what {writer} takes does not arrive on all nodes");
    }
}

/// A server process; killed when dropped.
struct Node {
    child: Child,
    address: &'static str,
}

impl Node {
    fn start(region: &str, address: &'static str) -> Self {
        let child = Command::new(server())
            .args(["--cluster", "python-compat", "--region", region, "--address", address])
            .args(["--port", &PORT.to_string(), "--discovery", "mdns", "--mdns-interface", "lo"])
            .args(["--compat", "zerocache-py", "--max-bytes", "67108864"])
            .stdin(Stdio::null())
            .spawn()
            .expect("the server starts");
        Self { child, address }
    }

    fn wait_until_ready(&mut self) {
        for _ in 0..START_POLLS_MAX {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("the node at {} ended while starting: {status}", self.address);
            }
            if http("GET", self.address, "/readyz") == Some(200) {
                return;
            }
            std::thread::sleep(POLL);
        }
        panic!("the node at {} is not ready", self.address);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request with the path itself as body and returns the status; none if there is no answer.
fn http(method: &str, address: &str, path: &str) -> Option<u16> {
    let address = SocketAddr::new(address.parse().expect("an address"), PORT);
    let wait = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, wait).ok()?;
    stream.set_read_timeout(Some(wait)).ok()?;
    let body = if method == "PUT" { path } else { "" };
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer).ok()?;
    let status = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(status).ok()?.parse().ok()
}
