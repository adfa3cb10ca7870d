//! The program itself: variables, a node in the process, signals.

mod common;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use common::origin::Origin;
use common::{get, image, metric};
use rustix::process::{Pid, Signal, kill_process};

/// A process of the service; killed when it is dropped.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_images"))
            .args(["serve", "--end-with-parent"])
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("an output"))
            .read_line(&mut line)
            .expect("a line");
        let address = line.trim().rsplit(' ').next().expect("an address").parse();
        Self { address: address.unwrap_or_else(|_| panic!("not listening: {line:?}")), child }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
    }
}

const VARIABLES: [(&str, &str); 9] = [
    ("IMAGES_LISTEN", "127.0.0.1:0"),
    ("IMAGES_EMBEDDED_NODE", "true"),
    ("IMAGES_ALLOW_NETWORKS", "127.0.0.0/8"),
    ("IMAGES_ALLOW_PORTS", "1-65535"),
    ("ZEROCACHE_REGION", "london"),
    ("ZEROCACHE_DISCOVERY", "none"),
    ("ZEROCACHE_ADDRESS", "127.0.0.1"),
    ("ZEROCACHE_PORT", "0"),
    ("ZEROCACHE_MAX_BYTES", "64MiB"),
];

#[tokio::test]
async fn process_with_a_node_of_its_own_needs_nothing_else() {
    let (origin, http) = (Origin::start().await, reqwest::Client::new());
    let mut process = Process::start(&VARIABLES);
    let url = image(process.address, &origin, "/picture/1", "&w=20");
    assert_eq!(get(&http, &url, &[]).await.header("x-cache"), "miss");
    assert_eq!(get(&http, &url, &[]).await.header("x-cache"), "hit");
    assert_eq!(metric(&http, process.address, "images_cache_nodes").await, 1);
    kill_process(Pid::from_child(&process.child), Signal::TERM).expect("signalled");
    assert!(process.child.wait().expect("ended").success());
}

#[test]
fn wrong_setting_is_named() {
    let wrong = [
        ("IMAGES_STEPS", "exact"),
        ("IMAGES_LISTEN", "127.0.0.1:0"),
        ("ZEROCACHE_OFFLINE", "true"),
    ];
    let ended =
        Command::new(env!("CARGO_BIN_EXE_images")).arg("serve").env_clear().envs(wrong).output();
    let ended = ended.expect("ended");
    let text = String::from_utf8(ended.stderr).expect("a text");
    assert_eq!(ended.status.code(), Some(2), "{text}");
    assert!(text.starts_with("error: --steps exact needs signed URLs"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn port_of_the_embedded_node_in_use_is_explained_once() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("an address").port().to_string();
    // Without an address: of a node that serves its own host alone that is loopback.
    let variables = [
        ("IMAGES_LISTEN", "127.0.0.1:0"),
        ("IMAGES_EMBEDDED_NODE", "true"),
        ("ZEROCACHE_DISCOVERY", "none"),
        ("ZEROCACHE_PORT", &port),
    ];
    let run = Command::new(env!("CARGO_BIN_EXE_images"))
        .arg("serve")
        .env_clear()
        .envs(variables)
        .output()
        .expect("ended");
    let text = String::from_utf8(run.stderr).expect("a text");
    assert_eq!(run.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{text}");
    assert!(text.contains("ZEROCACHE_PORT") && text.matches("in use").count() == 1, "{text}");
    assert!(!text.contains('\u{1b}'), "colours in what is no terminal: {text}");
}

#[test]
fn url_is_signed_by_a_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("keys");
    std::fs::write(&file, "the secret of signed URLs").expect("written");
    let run = Command::new(env!("CARGO_BIN_EXE_images"))
        .args(["sign", "/image?url=http://a/&w=20", "--signing-keys-file"])
        .arg(&file)
        .output()
        .expect("ended");
    let signed = String::from_utf8(run.stdout).expect("a text");
    let keys = images::signature::Keys::parse("the secret of signed URLs").expect("keys");
    assert_eq!(keys.verify(signed.trim()), Ok(()));
}
