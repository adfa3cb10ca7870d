//! Open connections of a certificate whose grant is taken.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use zerocache_net::security::{
    Issued, ProcessKind, Security, SecurityConfig, Subject, TlsFiles, issue_certificate,
    new_authority,
};
use zerocache_server::access::{AccessControl, Level};
use zerocache_server::http::{Entrance, HttpLimits};

use super::client::connect_with;
use super::server::{Server, read_all, read_until};

const DAY: Duration = Duration::from_secs(86_400);

/// A node at the level of certificates, and a client that its access file names.
struct Setup {
    folder: TempDir,
    ca_pem: String,
    client: Issued,
    access: Arc<AccessControl>,
    server: Server,
}

impl Setup {
    fn start() -> Self {
        let ca = new_authority("test", DAY).expect("a CA");
        let issue = |subject| {
            issue_certificate(&ca.certificate_pem, &ca.key_pem, &subject, DAY).expect("issued")
        };
        let node = issue(Subject::Node { region: "london".into(), names: Vec::new() });
        let client = issue(Subject::Client { names: vec!["orders.shop".into()], uris: Vec::new() });
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            Some(path)
        };
        let files = TlsFiles {
            cert: write("node.pem", &node.certificate_pem),
            key: write("node.key", &node.key_pem),
            ca: write("ca.pem", &ca.certificate_pem),
        };
        grant(folder.path(), "orders", "write");
        let config = SecurityConfig {
            files: Some(files),
            kind: ProcessKind::Node { region: "london".into() },
            ..SecurityConfig::default()
        };
        let security = Security::load(config).expect("credentials");
        let path = Some(folder.path().join("access.toml"));
        let level = Level::Certificates;
        let access = AccessControl::with_credentials(level, "test", security.clone(), path);
        let access = access.expect("an access file");
        let entrance = Entrance { access: Arc::clone(&access), security };
        let server = Server::start_with(HttpLimits::default(), entrance);
        Self { folder, ca_pem: ca.certificate_pem, client, access, server }
    }
}

/// Writes the access file: one client by its certificate.
fn grant(folder: &Path, name: &str, role: &str) {
    let text =
        format!("[[client]]\nname = \"{name}\"\nsan = [\"dns:orders.shop\"]\nrole = \"{role}\"\n");
    fs::write(folder.join("access.toml"), text).expect("written");
}

#[tokio::test]
async fn connection_ends_in_order_when_its_certificate_may_do_less() {
    let setup = Setup::start();
    let open = async || {
        let tcp = setup.server.connect().await;
        connect_with(tcp, &setup.ca_pem, Some(&setup.client)).await.expect("a handshake")
    };
    let (mut idle, mut busy) = (open().await, open().await);
    let ping = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n";
    idle.write_all(ping).await.expect("sent");
    read_until(&mut idle, "pong").await;
    let head = "PUT /body HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    busy.write_all(head.as_bytes()).await.expect("sent");
    read_until(&mut busy, "\r\n\r\n").await;
    // The same again changes nothing for them.
    grant(setup.folder.path(), "orders", "write");
    setup.access.reload();
    idle.write_all(ping).await.expect("sent");
    read_until(&mut idle, "pong").await;
    grant(setup.folder.path(), "orders", "read");
    setup.access.reload();
    assert_eq!(read_all(&mut idle).await, "");
    busy.write_all(b"abc").await.expect("sent");
    let answer = read_all(&mut busy).await;
    assert!(answer.ends_with("3 bytes") && answer.contains("connection: close"), "{answer}");
    let mut again = open().await;
    again.write_all(ping).await.expect("sent");
    read_until(&mut again, "pong").await;
}

#[tokio::test]
async fn long_body_of_a_refused_request_is_not_read() {
    let setup = Setup::start();
    for (length, closes) in [(10, false), (1 << 20, true)] {
        let mut tls =
            connect_with(setup.server.connect().await, &setup.ca_pem, None).await.expect("open");
        let head = format!(
            "PUT /body HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: {length}\r\n\r\n"
        );
        tls.write_all(head.as_bytes()).await.expect("sent");
        let refused = read_until(&mut tls, "}").await;
        assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
        assert!(refused.contains("\"code\":\"bad_credentials\""), "{refused}");
        assert_eq!(refused.contains("connection: close"), closes, "{refused}");
    }
}
