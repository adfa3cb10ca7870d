//! The binary: help, usage errors, start and shutdown.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use zerocache_net::clock;

/// Longer than anything here should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Idle connections that a node must sustain.
const IDLE_CONNECTIONS: usize = 10_000;
/// Dripping clients beside them.
const DRIPPING: usize = 100;

/// The binary with no `ZEROCACHE_*` variable of this process.
fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerocache-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ZEROCACHE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Names and values of the environment.
type Variables<'a> = &'a [(&'a str, &'a str)];

fn output(arguments: &[&str], variables: Variables<'_>) -> Output {
    let mut command = binary();
    command.args(arguments).envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running node, killed when it goes out of scope.
struct Node {
    child: Child,
    out: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Node {
    /// Starts a node and waits until it says where it listens.
    fn start(arguments: &[&str]) -> Self {
        let mut command = binary();
        command.args(["--region", "london", "--address", "127.0.0.1", "--port", "0"]);
        command.args(["--discovery", "none"]).args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
        let mut child = command.spawn().expect("the binary starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let address = line.trim_end().strip_prefix("zerocache-server listening on ");
        let address: SocketAddr = address.expect(&line).parse().expect(&line);
        assert_ne!(address.port(), 0);
        Self { child, out, address }
    }

    fn connect(&self) -> TcpStream {
        let tcp = TcpStream::connect_timeout(&self.address, PATIENCE).expect("connected");
        tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        tcp
    }

    fn ping(&self) -> String {
        self.get("/ping")
    }

    fn get(&self, path: &str) -> String {
        let mut tcp = self.connect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn wait_until_ready(&self, ready: bool) {
        let begun = clock::elapsed();
        while self.get("/readyz").starts_with("HTTP/1.1 200") != ready {
            assert!(
                clock::elapsed() - begun < PATIENCE,
                "not {}",
                if ready { "ready" } else { "draining" }
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("signalled");
    }

    /// The exit code, and what came on standard output after the first line.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        // Ends when the process does.
        self.out.read_to_string(&mut rest).expect("output");
        (self.child.wait().expect("ended").code(), rest)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn unknown_variable_is_named_in_the_log() {
    // A port that is taken ends the node after its log has begun.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let flags =
        ["--region", "london", "--address", "127.0.0.1", "--port", &port, "--discovery", "none"];
    let ended = output(&flags, &[("ZEROCACHE_SEEDS", "127.0.0.1:1"), ("ZEROCACHE_HEDGE", "0.1")]);
    let log = text(&ended.stderr);
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("is ignored")).collect();
    let [warning] = warnings.as_slice() else { panic!("{log}") };
    assert!(warning.contains("ZEROCACHE_SEEDS is not a zerocache variable"), "{log}");
    assert!(warning.contains("did you mean ZEROCACHE_SEED?"), "{log}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = output(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("ZEROCACHE_MAX_BYTES"));
    assert!(help.stderr.is_empty());
    let version = output(&["--version"], &[]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        text(&version.stdout),
        concat!("zerocache-server ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn usage_error_is_one_line_and_exit_code_2() {
    let size = "\"12q\" is not a size; use bytes, or a number with KiB, MiB, GiB";
    let region = ["--region", "x"];
    let level = "\"trase\" is not a log level; use error, warn, info, debug, trace, off";
    let cases: [(&[&str], Variables, String); 8] = [
        (&["--region", "x", "--log", "trase"], &[], format!("error: --log: {level}")),
        (&region, &[("ZEROCACHE_LOG", "warn,trase")], format!("error: ZEROCACHE_LOG: {level}")),
        (&["--region", "x", "--max-bytes", "12q"], &[], format!("error: --max-bytes: {size}")),
        (&region, &[("ZEROCACHE_MAX_BYTES", "12q")], format!("error: ZEROCACHE_MAX_BYTES: {size}")),
        (
            &[],
            &[("ZEROCACHE_REGION", "v1")],
            "error: ZEROCACHE_REGION: a region must not be called".to_owned(),
        ),
        (&[], &[], "error: --region: missing".to_owned()),
        (&["--region", "a\nb"], &[], "error: --region: \"a\\nb\" is not a name".to_owned()),
        (&["--regoin", "x"], &[], "error: unexpected argument '--regoin'".to_owned()),
    ];
    for (arguments, variables, expected) in cases {
        let result = output(arguments, variables);
        let line = text(&result.stderr);
        assert_eq!(result.status.code(), Some(2), "{line}");
        assert!(line.starts_with(&expected), "{line}");
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(result.stdout.is_empty());
    }
}

#[test]
fn snapshot_that_cannot_be_written_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing").join("snapshot");
    for path in [missing.as_path(), folder.path()] {
        let path = path.to_str().expect("text");
        let flags = ["--region", "x", "--port", "0", "--discovery", "none", "--log", "error"];
        let result = output(&[&flags[..], &["--snapshot", path]].concat(), &[]);
        let line = text(&result.stderr);
        assert_eq!(result.status.code(), Some(2), "{line}");
        assert!(
            line.starts_with(&format!("error: --snapshot: cannot write to {path}: ")),
            "{line}"
        );
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(result.stdout.is_empty());
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0);
}

#[test]
fn variable_that_is_not_utf8_is_a_usage_error() {
    use std::os::unix::ffi::OsStringExt;
    let value = std::ffi::OsString::from_vec(vec![b'a', 0xff]);
    let result = binary().env("ZEROCACHE_REGION", value).output().expect("the binary runs");
    assert_eq!(result.status.code(), Some(2));
    assert_eq!(text(&result.stderr), "error: ZEROCACHE_REGION: the value is not UTF-8\n");
}

#[test]
fn port_in_use_is_named_in_the_error() {
    let node = Node::start(&[]);
    let listen = node.address.to_string();
    let result = output(&["--region", "x", "--discovery", "none", "--listen", &listen], &[]);
    assert_eq!(result.status.code(), Some(1));
    let error = text(&result.stderr);
    assert!(error.contains(&format!("error: cannot listen on {listen}: ")), "{error}");
}

#[test]
fn logs_go_to_standard_error_as_text_or_json() {
    let node = Node::start(&[]);
    let listen = node.address.to_string();
    let link = [("ZEROCACHE_PORT", "tcp://10.0.0.1:6789")];
    for format in ["text", "json"] {
        let flags = ["--region", "x", "--listen", &listen, "--log-format", format];
        let result = output(&flags, &link);
        assert!(result.stdout.is_empty());
        let lines = text(&result.stderr);
        let lines: Vec<_> = lines.lines().filter(|line| !line.starts_with("error: ")).collect();
        let (first, second) = (lines[0], lines[1]);
        for part in [env!("CARGO_PKG_VERSION"), "zerocache", "x", "node starts"] {
            assert!(first.contains(part), "{first}");
        }
        assert!(second.contains("Kubernetes") && second.contains("WARN"), "{second}");
        for line in lines {
            let json = serde_json::from_str::<serde_json::Value>(line);
            assert_eq!(json.is_ok(), format == "json", "{line}");
            if let Ok(fields) = json {
                assert_eq!(fields["region"], "x", "{line}");
                assert_eq!(fields["version"], env!("CARGO_PKG_VERSION"), "{line}");
                assert!(fields["message"].is_string(), "{line}");
            }
        }
    }
}

#[test]
fn shutdown_signals_end_with_exit_code_0() {
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT] {
        let node = Node::start(&["--drain", "0"]);
        assert!(node.ping().ends_with("pong"));
        node.signal(signal);
        assert_eq!(node.end(), (Some(0), String::new()), "{signal:?}");
    }
}

#[test]
fn second_signal_ends_at_once() {
    let node = Node::start(&["--drain", "10m"]);
    // A node that has just started is not ready either; two signals before it saw the first would be one.
    node.wait_until_ready(true);
    node.signal(Signal::TERM);
    node.wait_until_ready(false);
    node.signal(Signal::HUP);
    assert!(node.ping().ends_with("pong"));
    node.signal(Signal::TERM);
    assert_eq!(node.end().0, Some(1));
}

#[test]
fn hangup_does_not_end_a_node() {
    let node = Node::start(&["--drain", "0"]);
    for _ in 0..3 {
        node.signal(Signal::HUP);
        assert!(node.ping().ends_with("pong"));
    }
    node.signal(Signal::TERM);
    assert_eq!(node.end().0, Some(0));
}

#[test]
fn credentials_that_cannot_be_used_are_a_usage_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("written");
        path.to_str().expect("text").to_owned()
    };
    let secret = zerocache_core::access::Secret::from_random([1; 32]).to_text();
    let (good, passphrase) = (file("good", &secret), file("passphrase", "correct horse"));
    let (access, missing) = (file("access", "[anonymous"), "/nowhere/secret");
    let with_secret = ["--secret-file", good.as_str()];
    let python = ["--compat", "zerocache-py"];
    for (flags, part) in [
        (vec!["--secret-file", &passphrase], "this is not a secret"),
        (vec!["--secret-file", missing], "cannot read /nowhere/secret"),
        (vec!["--tls-cert", missing, "--tls-key", missing, "--tls-ca", missing], "cannot read"),
        (vec!["--tls-cert", missing], "--tls-key: missing"),
        (vec!["--access", &access], "--access: needs a secret"),
        (vec!["--tls", "required"], "--tls: needs a secret"),
        ([&with_secret[..], &["--access", &access]].concat(), "line 1: "),
        ([&with_secret[..], &["--insecure"]].concat(), "--insecure: "),
        ([&with_secret[..], &python].concat(), "--compat-listen 127.0.0.1:PORT"),
    ] {
        let region = ["--region", "x", "--port", "0", "--discovery", "none", "--log", "error"];
        let result = output(&[&region[..], &flags].concat(), &[]);
        let line = text(&result.stderr);
        assert_eq!(result.status.code(), Some(2), "{line}");
        assert!(line.starts_with("error: ") && line.contains(part), "{line}");
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(!line.contains(&secret) && !line.contains("horse"), "a secret is shown");
    }
}

#[test]
fn node_serves_during_the_drain() {
    let node = Node::start(&["--drain", "2s", "--log-format", "json"]);
    node.signal(Signal::TERM);
    // Both a connection made after the signal and its request are served.
    assert!(node.ping().ends_with("pong"));
    let (done, ended) = mpsc::sync_channel(1);
    let waiter = std::thread::spawn(move || done.send(node.end()));
    let end = ended.recv_timeout(PATIENCE).expect("ends in time");
    assert_eq!(end, (Some(0), String::new()));
    waiter.join().expect("no panic").expect("received");
}

#[test]
fn idle_and_dripping_connections_do_not_stop_service() {
    let needed = (IDLE_CONNECTIONS + DRIPPING + 200) as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < needed + 512) {
        eprintln!("skipped: {needed} open files are needed and the hard limit is lower");
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may rise to the hard one");
    let node = Node::start(&[]);
    let mut idle = Vec::with_capacity(IDLE_CONNECTIONS);
    let mut room = [0; 1024];
    for number in 0..IDLE_CONNECTIONS {
        let mut tcp = node.connect();
        // Each is served once and then says nothing: it may stay for the idle time.
        tcp.write_all(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        assert_ne!(tcp.read(&mut room).expect("an answer"), 0, "connection {number}");
        idle.push(tcp);
    }
    let mut dripping: Vec<TcpStream> = (0..DRIPPING).map(|_| node.connect()).collect();
    for byte in b"GET /ping HTT" {
        for tcp in &mut dripping {
            tcp.write_all(&[*byte]).expect("sent");
        }
        assert!(node.ping().ends_with("pong"));
    }
    // All of them are open still: nothing to read, not even an end.
    for tcp in &mut idle {
        tcp.set_nonblocking(true).expect("not blocking");
        let error = tcp.read(&mut room).expect_err("nothing");
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }
    node.signal(Signal::TERM);
    drop((idle, dripping));
    assert_eq!(node.end().0, Some(0));
}
