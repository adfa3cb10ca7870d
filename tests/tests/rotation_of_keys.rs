//! Keys change while a cluster serves: no operation fails, and a broken file changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use zerocache_client::{ClientBuilder, Status, ZerocacheClient};
use zerocache_tests::http;
use zerocache_tests::node::Node;
use zerocache_tests::poll::{PATIENCE, time_until, until_true};
use zerocache_tests::security::{Keys, token_of, tool, write_private};
use zerocache_tests::setup::{Access, Setup};

const TTL: Duration = Duration::from_secs(60);

/// A client that reads and writes without a pause, and counts what fails.
struct Load {
    ended: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(client: ZerocacheClient, name: &'static str, nodes_restart: bool) -> Self {
        let (ended, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (end, count) = (Arc::clone(&ended), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !end.load(Ordering::Relaxed) {
                let n = count.fetch_add(1, Ordering::Relaxed);
                let key = format!("{name}{}", n % 64);
                match client.put(&key, n.to_string(), TTL).wait() {
                    Ok(written) if written.status == Status::Stored => {}
                    other => failures.push(format!("put {n}: {other:?}")),
                }
                match client.get(&key).wait() {
                    Ok(Some(value)) if value == n.to_string().as_bytes() => {}
                    // The only node with the value may have ended.
                    Ok(None) if nodes_restart => {}
                    other => failures.push(format!("get {n}: {other:?}")),
                }
            }
            failures
        });
        let thread = Some(thread);
        Self { ended, done, thread }
    }

    /// Waits for some more operations.
    fn go_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        until_true("operations", || self.done.load(Ordering::Relaxed) > before + 50);
    }

    /// Ends it. Returns what failed.
    fn failures(mut self) -> Vec<String> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().expect("runs").join().expect("no panic")
    }
}

/// The files of some nodes, each with secrets of its own.
struct Files {
    directory: TempDir,
    old: Keys,
    new: Keys,
}

impl Files {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            old: Keys::new(),
            new: Keys::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file as Kubernetes does: beside, and then in its place.
    fn write(&self, name: &str, content: &str) {
        let beside = self.path(&format!("{name}.new"));
        write_private(&beside, content.as_bytes());
        std::fs::rename(beside, self.path(name)).expect("renamed");
    }

    fn node(&self, region: &str, n: usize, seed: Option<&Node>) -> Node {
        let setup = Setup::new(region).access(Access::Secret(self.old.clone()));
        let setup = setup.flag("--secret-file", self.path(&format!("node{n}")).display());
        let seed = seed.map(Node::address);
        seed.into_iter().fold(setup, |setup, seed| setup.flag("--seed", seed)).start()
    }
}

/// Makes a node read its files again, and waits until it has.
fn reload(node: &Node) {
    let lines = |node: &Node| node.log().matches("credentials reloaded").count();
    let before = lines(node);
    node.reload();
    until_true("a reload", || lines(node) > before);
}

/// Counts the handshakes of a node with others than this test, each of whose questions takes one.
struct Handshakes<'a> {
    node: &'a Node,
    begin: u64,
    asked: u64,
}

impl<'a> Handshakes<'a> {
    /// Begins to count when none come any more.
    fn of(node: &'a Node) -> Self {
        let mut last = node.stat("handshakes");
        let mut quiet = 0;
        until_true("no new connections", || {
            let now = node.stat("handshakes");
            quiet = if now == last + 1 { quiet + 1 } else { 0 };
            last = now;
            quiet == 50
        });
        Self { node, begin: last, asked: 0 }
    }

    fn by_others(&mut self) -> u64 {
        self.asked += 1;
        self.node.stat("handshakes") - self.begin - self.asked
    }
}

fn client(node: &Node, change: impl FnOnce(ClientBuilder) -> ClientBuilder) -> ZerocacheClient {
    let builder = ZerocacheClient::builder("london").mdns(false);
    let builder = change(builder.seed(node.address().to_string()));
    let client = builder.build().expect("a client");
    client.wait_ready(PATIENCE).expect("a node in sync");
    client
}

#[test]
fn secret_is_rotated_without_a_failed_operation() {
    let files = Files::new();
    let (old, new) = (files.old.secret(), files.new.secret());
    let (old, new) = (old.trim(), new.trim());
    for n in 0..2 {
        files.write(&format!("node{n}"), old);
    }
    let first = files.node("london", 0, None);
    let second = files.node("london", 1, Some(&first));
    let nodes = [&first, &second];
    let joined = |keys: &Keys| {
        nodes.iter().all(|node| {
            let view = http::send_with(node.address(), Some(keys), "GET", "/v1/cluster", &[], b"");
            let nodes = view.map(|view| view.json()["nodes"].clone());
            nodes.is_ok_and(|nodes| nodes.as_array().is_some_and(|nodes| nodes.len() == 2))
        })
    };
    until_true("both know each other", || joined(&files.old));
    files.write("token", &files.old.token(&["--name", "load", "--role", "write"]));
    let load =
        Load::start(client(&first, |builder| builder.token_file(files.path("token"))), "r", false);
    load.go_on();
    let step = |content: String| {
        for (n, node) in nodes.iter().enumerate() {
            files.write(&format!("node{n}"), &content);
            reload(node);
            load.go_on();
        }
    };
    step(format!("{old}\n{new}\n"));
    assert!(joined(&files.old), "with both secrets");
    // A token of the new secret: the client connects again when it has read it.
    let mut handshakes = Handshakes::of(&first);
    files.write("token", &files.new.token(&["--name", "load", "--role", "write"]));
    until_true("the client's new connections", || handshakes.by_others() > 0);
    load.go_on();
    step(format!("{new}\n{old}\n"));
    assert!(joined(&files.new), "with the new one first");
    for (n, node) in nodes.iter().enumerate() {
        files.write(&format!("node{n}"), new);
        node.reload();
    }
    load.go_on();
    // Who has the old secret only is a stranger now.
    let is_refused =
        |node: &Node| !node.try_http("GET", "/v1/stats", b"").is_ok_and(|a| a.status == 200);
    until_true("the end of the old secret", || nodes.iter().all(|node| is_refused(node)));
    load.go_on();
    assert!(joined(&files.new), "with the new one alone");
    assert_eq!(load.failures(), Vec::<String>::new());
}

#[test]
fn running_cluster_is_encrypted_without_a_failed_operation() {
    let keys = Keys::new();
    let plain = Setup::new("london").access(Access::Protected);
    let listen = [plain.listen, Setup::new("london").listen];
    let start = |n: usize, access: Access, flags: &[(&str, &str)], seed: Option<&Node>| {
        let mut setup = Setup::new("london").access(access);
        setup.listen = listen[n];
        for (flag, value) in flags {
            setup = setup.flag(flag, value);
        }
        let seed = seed.map(Node::address);
        seed.into_iter().fold(setup, |setup, seed| setup.flag("--seed", seed)).start()
    };
    let in_sync = |node: &Node| {
        let mut view = Vec::new();
        let joined = time_until(PATIENCE, || {
            view = node.cluster();
            view.len() == 2 && view.iter().all(|(_, state)| state == "in-sync") && node.is_ready()
        });
        assert!(joined.is_some(), "{} is not in sync: {view:?}", node.address());
    };
    let mut nodes =
        [start(0, Access::Protected, &[], None), start(1, Access::Protected, &[], None)];
    nodes[1] = start(1, Access::Protected, &[], Some(&nodes[0]));
    in_sync(&nodes[0]);
    let seeds: Vec<_> = nodes.iter().map(|node| node.address().to_string()).collect();
    let plain_load = Load::start(client(&nodes[0], |builder| builder.seeds(&seeds)), "p", true);
    let replace = |nodes: &mut [Node; 2], n: usize, access: Access, flags: &[(&str, &str)]| {
        nodes[n].shut_down();
        assert!(nodes[n].ended().success());
        let replaced = start(n, access, flags, Some(&nodes[1 - n]));
        nodes[n] = replaced;
        in_sync(&nodes[n]);
    };
    let secret = || Access::Secret(keys.clone());
    for n in 0..2 {
        replace(&mut nodes, n, secret(), &[("--tls", "optional")]);
        plain_load.go_on();
    }
    assert_eq!(plain_load.failures(), Vec::<String>::new());
    let token = keys.token(&["--name", "load", "--role", "write"]);
    let load =
        Load::start(client(&nodes[0], |builder| builder.seeds(&seeds).token(token)), "t", true);
    for n in 0..2 {
        replace(&mut nodes, n, secret(), &[]);
        load.go_on();
    }
    assert_eq!(load.failures(), Vec::<String>::new());
}

#[test]
fn broken_files_change_nothing() {
    let files = Files::new();
    let old = files.old.secret();
    files.write("node0", &old);
    files.write("access", "[anonymous]\nrole = \"none\"\n");
    let setup = Setup::new("london").access(Access::Secret(files.old.clone()));
    let setup = setup.flag("--secret-file", files.path("node0").display());
    let node = setup.flag("--access", files.path("access").display()).start();
    node.put(b"k", b"v", "ttl=60");
    let errors = || node.log().matches("ERROR").count();
    for (file, content) in [
        ("node0", "not a secret"),
        ("node0", ""),
        ("access", "[[client]]\nname = \"x\"\nrole = \"king\"\n"),
        ("access", "not toml"),
    ] {
        let good = std::fs::read_to_string(files.path(file)).expect("a file");
        let before = errors();
        files.write(file, content);
        node.reload();
        until_true("an error in the log", || errors() > before);
        assert_eq!(node.value(b"k").as_deref(), Some(&b"v"[..]), "{file}: {content}");
        files.write(file, &good);
        node.reload();
    }
    assert!(!node.log().contains(old.trim()));
    // A file that is gone is broken too.
    let before = errors();
    std::fs::remove_file(files.path("node0")).expect("removed");
    node.reload();
    until_true("an error in the log", || errors() > before);
    assert_eq!(node.value(b"k").as_deref(), Some(&b"v"[..]));
}

#[test]
fn token_file_is_made_by_the_tool_for_each_secret() {
    // A file with two secrets: tokens are signed with the first.
    let files = Files::new();
    files.write("both", &format!("{}{}", files.new.secret(), files.old.secret()));
    let token = token_of(&files.path("both"), &["--name", "t", "--role", "read"]);
    let shown = |file: &Path| tool(&["token", "show", "--json", &token], Some(file));
    assert!(shown(&files.new.secret_file()).contains("\"name\""));
    let pem = tool(&["cert", "ca"], Some(&files.path("both")));
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 2);
}
