//! One secret for the nodes and a token for a client: nothing else is configured, and everything is
//! encrypted.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zerocache_client::ZerocacheClient;
use zerocache_client::error::DenialReason;
use zerocache_tests::namespace;
use zerocache_tests::poll::{PATIENCE, until_true};
use zerocache_tests::security::{Keys, token_of, write_private};
use zerocache_tests::setup::{Access, Setup, unique_address};

const KEY: &[u8] = b"a-key-that-nobody-else-may-see";
const VALUE: &[u8] = b"a value that nobody else may see";
const TTL: Duration = Duration::from_secs(60);

fn on_all_addresses(region: &str, keys: &Keys) -> Setup {
    let mut setup = Setup::new(region).access(Access::Secret(keys.clone()));
    setup.listen = "0.0.0.0:6789".parse().expect("an address");
    setup.flag("--discovery", "mdns")
}

#[test]
fn nodes_of_two_hosts_join_by_mdns_and_a_token_reads() {
    let name = "nodes_of_two_hosts_join_by_mdns_and_a_token_reads";
    namespace::run_with_links(name, || {
        namespace::script(namespace::SECOND_HOST);
        let keys = Keys::new();
        let here = on_all_addresses("london", &keys).start_with_discovery();
        let far = on_all_addresses("sydney", &keys).in_namespace("/run/netns/far".into());
        let _far = far.access(Access::Secret(keys.clone())).start_with_discovery();
        until_true("both know each other", || {
            let view = here.cluster();
            view.len() == 2 && view.iter().all(|(_, state)| state == "in-sync")
        });
        until_true("datagrams are acknowledged", || here.stat("heartbeats_acknowledged") > 5);
        let token = keys.token(&["--name", "reader", "--role", "write"]);
        let builder = ZerocacheClient::builder("london").mdns_interface("v4").token(token);
        let client = builder.build().expect("a client");
        client.wait_ready(PATIENCE).expect("a node in sync");
        client.put(KEY, VALUE, TTL).wait().expect("written");
        let read = client.get(KEY).wait().expect("read").expect("a hit");
        assert_eq!(read, VALUE);
    });
}

/// A TCP forwarder that keeps what passes.
struct Recorder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind((unique_address(), 0)).expect("bound");
        let (address, seen) = (listener.local_addr().expect("bound"), Arc::default());
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                let Ok(to) = TcpStream::connect(to) else { continue };
                let _no_delay = (from.set_nodelay(true), to.set_nodelay(true));
                for (from, to) in [(&from, &to), (&to, &from)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let seen = Arc::clone(&kept);
                    // A connection that fails is one that ends.
                    std::thread::spawn(move || drop(copy(from, to, &seen)));
                }
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, seen: &Mutex<Vec<u8>>) -> io::Result<()> {
    let mut room = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut room) {
        seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&room[..read]);
        to.write_all(&room[..read])?;
    }
    to.shutdown(Shutdown::Both)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn nothing_passes_in_clear_text() {
    // Shown to be able to fail: without a secret, key and value are seen.
    for keys in [None, Some(Keys::new())] {
        let access = keys.clone().map_or(Access::Protected, Access::Secret);
        let first = Setup::new("london").access(access.clone()).start();
        let between = Recorder::start(first.address());
        let second = Setup::new("sydney").access(access);
        let second = second.flag("--seed", between.address).start();
        until_true("both know each other", || second.cluster().len() == 2);
        let to_client = Recorder::start(second.address());
        let seed = to_client.address.to_string();
        let builder = ZerocacheClient::builder("sydney").mdns(false).seed(seed);
        let token = keys.as_ref().map(|keys| keys.token(&["--name", "c", "--role", "write"]));
        let builder = match &token {
            Some(token) => builder.token(token.as_str()),
            None => builder,
        };
        let client = builder.build().expect("a client");
        client.wait_ready(PATIENCE).expect("a node in sync");
        client.put(KEY, VALUE, TTL).wait().expect("written");
        let read = client.get(KEY).wait().expect("read").expect("a hit");
        assert_eq!(read, VALUE);
        until_true("replication", || first.value(KEY).as_deref() == Some(VALUE));
        for seen in [between.seen(), to_client.seen()] {
            assert!(seen.len() > 500, "{}", seen.len());
            for secret in [KEY, VALUE, b"sydney", b"HTTP/1.1"] {
                let is_clear = contains(&seen, secret);
                let shown = String::from_utf8_lossy(secret);
                assert!(keys.is_none() || !is_clear, "{shown} is in clear text");
            }
            if let Some(token) = &token {
                assert!(!contains(&seen, token.as_bytes()));
            } else {
                assert!(contains(&seen, b"HTTP/1.1"));
            }
        }
    }
}

#[test]
fn client_says_which_credentials_it_lacks() {
    let keys = Keys::new();
    let node = Setup::new("london").access(Access::Secret(keys.clone())).start();
    let reason_of = |token: Option<&str>, put: bool| {
        let builder = ZerocacheClient::builder("london").mdns(false);
        let builder = builder.seed(node.address().to_string());
        let directory = tempfile::tempdir().expect("a directory");
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, keys.ca_pem()).expect("written");
        let builder = match token {
            Some(token) => builder.token(token),
            None => builder.tls_ca(&ca),
        };
        let client = builder.build().expect("a client");
        let result = match put {
            true => client.put(b"a", b"v", TTL).wait().map(drop),
            false => client.get(b"a").wait().map(drop),
        };
        match result {
            Err(zerocache_client::Error::Denied { reason, .. }) => Some(reason),
            Err(error) => panic!("{error}"),
            Ok(()) => None,
        }
    };
    let token = |args: &[&str]| keys.token(&[&["--name", "t", "--role"], args].concat());
    assert_eq!(reason_of(Some(&token(&["write"])), true), None);
    assert_eq!(reason_of(None, false), Some(DenialReason::Missing));
    assert_eq!(reason_of(Some(&token(&["read"])), true), Some(DenialReason::Forbidden));
    let scoped = token(&["read", "--prefix", "b/"]);
    assert_eq!(reason_of(Some(&scoped), false), Some(DenialReason::Forbidden));
    let other = token(&["read", "--cluster", "other"]);
    assert_eq!(reason_of(Some(&other), false), Some(DenialReason::Wrong));
    let short = token(&["read", "--for", "1s"]);
    until_true("the end of the token", || {
        reason_of(Some(&short), false) == Some(DenialReason::Expired)
    });
}

#[test]
fn client_sends_no_token_to_a_node_that_it_cannot_verify() {
    let (keys, others) = (Keys::new(), Keys::new());
    let node = Setup::new("london").access(Access::Secret(others)).start();
    let recorder = Recorder::start(node.address());
    let token = keys.token(&["--name", "t", "--role", "write"]);
    let builder = ZerocacheClient::builder("london").mdns(false).token(token.as_str());
    let client = builder.seed(recorder.address.to_string()).build().expect("a client");
    let error = client.get(KEY).wait().expect_err("nobody to ask");
    assert!(!error.to_string().contains(&token[4..20]), "{error}");
    assert!(!contains(&recorder.seen(), &token.as_bytes()[..20]));
    let denied = ["unauthenticated", "bad_credentials", "expired_credentials", "forbidden"];
    for reason in denied {
        assert_eq!(node.stat(&format!("denied_{reason}")), 0, "it got no request at all");
    }
}

#[test]
fn tools_token_is_refused_where_its_secret_was_never_used() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret");
    write_private(&file, b"this is a passphrase of more than thirty-two characters\n");
    let made = std::panic::catch_unwind(|| token_of(&file, &["--name", "t", "--role", "read"]));
    assert!(made.is_err(), "a passphrase is no secret");
    let mut node = std::process::Command::new(zerocache_tests::setup::server())
        .args([
            "--region",
            "london",
            "--discovery",
            "none",
            "--address",
            "127.0.0.1",
            "--port",
            "0",
        ])
        .arg("--secret-file")
        .arg(&file)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("started");
    let status = node.wait().expect("ended");
    assert_eq!(status.code(), Some(2));
    let mut said = String::new();
    node.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(said.contains("zerocache secret") && !said.contains("passphrase of"), "{said}");
}
