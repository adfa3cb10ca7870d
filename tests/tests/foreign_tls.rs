//! Foreign programs as peers of an encrypted node: curl, OpenSSL and the ssl module of Python.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use zerocache_tests::node::Node;
use zerocache_tests::security::{Keys, NODE_NAME};
use zerocache_tests::setup::{Access, Setup};

/// Returns whether a program is there. In CI it has to be.
fn has(program: &str, arg: &str) -> bool {
    let found = Command::new(program).arg(arg).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = found.is_ok_and(|status| status.success());
    assert!(is_there || std::env::var_os("CI").is_none(), "{program} is missing");
    if !is_there {
        println!("skipped: {program} is missing");
    }
    is_there
}

struct Peer {
    node: Node,
    keys: Keys,
    ca: PathBuf,
    _directory: TempDir,
}

fn start() -> Peer {
    let (keys, directory) = (Keys::new(), tempfile::tempdir().expect("a directory"));
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, keys.ca_pem()).expect("written");
    let node = Setup::new("london").access(Access::Secret(keys.clone())).start();
    node.put(b"k", b"value", "ttl=60");
    Peer { node, keys, ca, _directory: directory }
}

fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(error))
}

#[test]
fn curl_reads_with_the_ca_and_a_token() {
    if !has("curl", "--version") {
        return;
    }
    let peer = start();
    let url = format!("https://{}/v1/entries/k", peer.node.address());
    let curl = |args: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20"]).args(args).arg(&url);
        command.output().expect("curl runs")
    };
    let ca = peer.ca.to_str().expect("text");
    let bearer = format!("Authorization: {}", Keys::bearer(peer.keys.admin()));
    let read = curl(&["--cacert", ca, "--header", &bearer]);
    assert!(read.status.success(), "{}", text(&read));
    assert_eq!(read.stdout, b"value");
    let unknown = curl(&["--cacert", ca, "--write-out", "%{http_code}"]);
    assert!(text(&unknown).contains("unauthenticated"), "{}", text(&unknown));
    assert!(text(&unknown).ends_with("401"), "{}", text(&unknown));
    // Without the CA curl does not trust the node, and sends nothing.
    assert!(!curl(&["--header", &bearer]).status.success());
}

#[test]
fn openssl_sees_tls_1_3_and_a_chain_that_it_verifies() {
    if !has("openssl", "version") {
        return;
    }
    let peer = start();
    let run = |args: &[&str], input: &[u8]| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &peer.node.address().to_string(), "-CAfile"]);
        command.arg(&peer.ca).args(["-servername", NODE_NAME, "-verify_hostname", NODE_NAME]);
        command.args(["-verify_return_error", "-ign_eof"]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("openssl runs");
        // It may have ended before.
        let _ended = child.stdin.take().expect("piped").write_all(input);
        child.wait_with_output().expect("it ends")
    };
    let request = format!(
        "GET /v1/entries/k HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nConnection: close\r\n\r\n",
        peer.node.address(),
        Keys::bearer(peer.keys.admin())
    );
    let output = text(&run(&[], request.as_bytes()));
    assert!(output.contains("TLSv1.3") && output.contains("Verify return code: 0"), "{output}");
    assert!(output.contains("\r\n\r\nvalue"), "{output}");
    let old = run(&["-tls1_2"], b"");
    assert!(!old.status.success(), "{}", text(&old));
}

#[test]
fn python_reads_with_the_ca_and_a_token() {
    if !has("python3", "--version") {
        return;
    }
    let peer = start();
    const PROGRAM: &str = "
import http.client, socket, ssl, sys
address, ca, token = sys.argv[1:3] + [sys.stdin.readline().strip()]
host, port = address.rsplit(':', 1)
context = ssl.create_default_context(cafile=ca)
connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=20)
connection.request('GET', '/v1/entries/k', headers={'Authorization': 'Bearer ' + token})
answer = connection.getresponse()
print(connection.sock.version() if connection.sock else '', answer.status, answer.read().decode())
";
    let mut command = Command::new("python3");
    command.args(["-c", PROGRAM, &peer.node.address().to_string()]).arg(&peer.ca);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python runs");
    let token = format!("{}\n", peer.keys.admin());
    child.stdin.take().expect("piped").write_all(token.as_bytes()).expect("written");
    let output = text(&child.wait_with_output().expect("it ends"));
    assert!(output.contains("TLSv1.3 200 value"), "{output}");
}
