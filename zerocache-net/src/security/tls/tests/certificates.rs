//! Processes that have certificates from files.

use std::{path::PathBuf, time::Duration};

use zerocache_core::access::StaticToken;

use super::*;
use crate::security::{
    TlsFiles,
    tls::{Issued, Subject, issue_certificate, new_authority},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory with the files of some processes.
struct Files {
    directory: tempfile::TempDir,
    ca: Issued,
}

impl Files {
    fn new() -> Self {
        let ca = new_authority("test CA", DAY).expect("a CA");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), &ca.certificate_pem).expect("a file");
        Self { directory, ca }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn issue(&self, subject: &Subject, lifetime: Duration) -> Issued {
        issue_certificate(&self.ca.certificate_pem, &self.ca.key_pem, subject, lifetime)
            .expect("a certificate")
    }

    fn config(&self, name: &str, subject: &Subject) -> SecurityConfig {
        let issued = self.issue(subject, DAY);
        let kind = match subject {
            Subject::Node { region, .. } => ProcessKind::Node { region: region.clone() },
            Subject::Client { .. } => ProcessKind::Client,
        };
        let files = TlsFiles {
            cert: Some(self.write(&format!("{name}.pem"), &issued.certificate_pem)),
            key: Some(self.write(&format!("{name}.key"), &issued.key_pem)),
            ca: Some(self.path("ca.pem")),
        };
        SecurityConfig { files: Some(files), kind, ..SecurityConfig::default() }
    }

    fn node(&self) -> Security {
        load(self.config("node", &node_subject()))
    }
}

fn node_subject() -> Subject {
    Subject::Node { region: "oslo".into(), names: vec!["cache.example".into()] }
}

fn client_subject() -> Subject {
    let uris = vec!["spiffe://shop.example/orders".into()];
    Subject::Client { names: vec!["orders.shop.svc".into()], uris }
}

#[tokio::test]
async fn processes_of_one_ca_accept_each_other() {
    let files = Files::new();
    let (one, other) = (files.node(), files.node());
    let caller = meet(&one, &other).await.caller();
    assert!(caller.is_node && !caller.is_client_of_secret);
    assert_eq!(one.identity(), None);
    let client = load(files.config("client", &client_subject()));
    let caller = meet(&client, &other).await.caller();
    assert!(!caller.is_node && !caller.is_client_of_secret);
    assert_eq!(caller.uris, ["spiffe://shop.example/orders"]);
    assert_eq!(caller.dns_names, ["orders.shop.svc"]);
    let only_ca = TlsFiles { ca: Some(files.path("ca.pem")), ..TlsFiles::default() };
    let config = |server_name: Option<&str>| SecurityConfig {
        files: Some(only_ca.clone()),
        server_name: server_name.map(str::to_owned),
        ..SecurityConfig::default()
    };
    for name in [None, Some("cache.example")] {
        let meeting = meet(&load(config(name)), &other).await;
        assert!(meeting.connected.is_ok() && matches!(meeting.accepted, Ok(None)), "{name:?}");
    }
    let meeting = meet(&load(config(Some("other.example"))), &other).await;
    assert!(meeting.is_refused());
    // A static token does not say whom to trust.
    let text = StaticToken::from_random([1; 32]).as_text().to_owned();
    let with_token = |config: SecurityConfig| SecurityConfig {
        token: Some(Source::Value(text.clone())),
        ..config
    };
    let client = load(with_token(config(None)));
    assert!(client.authorization().is_some() && meet(&client, &other).await.connected.is_ok());
    assert!(load_error(with_token(SecurityConfig::default())).contains("accepted CAs"));
}

#[tokio::test]
async fn process_of_another_ca_is_refused() {
    let (files, foreign) = (Files::new(), Files::new());
    assert!(meet(&foreign.node(), &files.node()).await.is_refused());
    assert!(meet(&node(1), &files.node()).await.is_refused());
    assert!(meet(&files.node(), &node(1)).await.is_refused());
    // A certificate of a client does not make a node.
    let client = files.issue(&client_subject(), DAY);
    let impostor = SecurityConfig {
        files: Some(TlsFiles {
            cert: Some(files.write("impostor.pem", &client.certificate_pem)),
            key: Some(files.write("impostor.key", &client.key_pem)),
            ca: Some(files.path("ca.pem")),
        }),
        kind: node_kind(),
        ..SecurityConfig::default()
    };
    let impostor = load(impostor);
    assert!(meet(&files.node(), &impostor).await.is_refused());
    assert!(!meet(&impostor, &files.node()).await.caller().is_node);
    // A name that only the CA of a secret gives away.
    let named = Subject::Client { names: vec!["client.zerocache.internal".into()], uris: vec![] };
    let caller = meet(&load(files.config("named", &named)), &files.node()).await.caller();
    assert!(!caller.is_client_of_secret);
}

#[test]
fn unusable_files_are_named() {
    let (files, foreign) = (Files::new(), Files::new());
    let config = files.config("node", &node_subject());
    let with = |change: &dyn Fn(&mut TlsFiles)| {
        let mut config = config.clone();
        change(config.files.as_mut().expect("files"));
        load_error(config)
    };
    let other = foreign.issue(&node_subject(), DAY);
    let other_cert = files.write("other.pem", &other.certificate_pem);
    let other_key = files.write("other.key", &other.key_pem);
    let error = with(&|files| files.key = Some(other_key.clone()));
    assert!(error.contains("other.key does not fit the certificate in"), "{error}");
    let error = with(&|files| {
        (files.cert, files.key) = (Some(other_cert.clone()), Some(other_key.clone()));
    });
    assert!(error.contains("do not accept the certificate in"), "{error}");
    let error = with(&|files| files.cert = files.key.clone());
    assert!(error.contains("no certificate in PEM form"), "{error}");
    let error = with(&|files| files.key = files.cert.clone());
    assert!(error.contains("no private key that is not encrypted in PEM form"), "{error}");
    let error = with(&|files| files.ca = files.key.clone());
    assert!(error.contains("no certificate in PEM form"), "{error}");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let broken = files.write("broken.pem", broken);
    assert!(with(&|files| files.cert = Some(broken.clone())).contains("broken.pem: "));
    assert!(with(&|files| files.ca = Some(broken.clone())).contains("broken.pem: "));
    assert!(with(&|files| files.key = None).contains("belong together"));
    assert!(with(&|files| files.ca = None).contains("accepted CAs is missing"));
    assert!(with(&|files| (files.cert, files.key) = (None, None)).contains("a node needs"));
    let missing = files.path("missing.pem");
    assert!(with(&|files| files.ca = Some(missing.clone())).contains("cannot read"));
    let expired = files.issue(&node_subject(), Duration::ZERO);
    let cert = files.write("expired.pem", &expired.certificate_pem);
    let key = files.write("expired.key", &expired.key_pem);
    let mut config = config.clone();
    let old = TlsFiles { cert: Some(cert), key: Some(key), ca: Some(files.path("ca.pem")) };
    config.files = Some(old);
    let later = WallClock { ahead_s: 60 };
    let error = Security::load_at(config, later).expect_err("an error").to_string();
    assert!(error.contains("expired.pem is valid from"), "{error}");
}

#[tokio::test]
async fn expired_certificate_is_refused() {
    let files = Files::new();
    let late = |config| Security::load_at(config, WallClock { ahead_s: -2 * 60 * 60 });
    let mut config = files.config("client", &client_subject());
    let short = files.issue(&client_subject(), Duration::ZERO);
    files.write("client.pem", &short.certificate_pem);
    files.write("client.key", &short.key_pem);
    config.kind = ProcessKind::Client;
    // Its clock is two hours behind, so that it takes its own certificate for one of the future.
    assert!(late(config.clone()).is_err());
    let config_of_node = files.config("node", &node_subject());
    let node = Security::load_at(config_of_node, WallClock { ahead_s: 60 }).expect("credentials");
    let client = Security::load_at(config, WallClock { ahead_s: -60 }).expect("credentials");
    let meeting = meet(&client, &node).await;
    assert!(meeting.accepted.is_err() && meeting.connected.is_err());
    let reason = meeting.connected.expect_err("an error");
    assert!(reason.contains("Unverified") && reason.contains("xpired"), "{reason}");
}

#[tokio::test]
async fn replaced_certificate_is_used_after_a_reload() {
    let files = Files::new();
    let process = load(files.config("node", &node_subject()));
    let client = load(files.config("client", &client_subject()));
    let before = meet(&client, &process).await.connected.expect("a chain");
    let caller = meet(&client, &process).await.caller();
    // The certificate alone does not fit the old key.
    let fresh = files.issue(&node_subject(), DAY);
    files.write("node.pem", &fresh.certificate_pem);
    assert!(process.reload().is_err());
    assert_eq!(meet(&client, &process).await.connected, Ok(before.clone()));
    files.write("node.key", &fresh.key_pem);
    assert!(matches!(process.reload(), Ok(true)));
    assert_ne!(meet(&client, &process).await.connected, Ok(before));
    assert!(process.still_trusts(&caller));
    // Another CA, and a certificate of it.
    let other = Files::new();
    let fresh = other.issue(&node_subject(), DAY);
    files.write("node.pem", &fresh.certificate_pem);
    files.write("node.key", &fresh.key_pem);
    files.write("ca.pem", &other.ca.certificate_pem);
    assert!(matches!(process.reload(), Ok(true)));
    assert!(!process.still_trusts(&caller));
    assert!(meet(&client, &process).await.is_refused());
}

#[test]
fn certificates_are_not_issued_for_nonsense() {
    let files = Files::new();
    let issue = |ca: &str, key: &str, subject: &Subject| {
        issue_certificate(ca, key, subject, DAY).expect_err("an error").to_string()
    };
    let (ca, key) = (&*files.ca.certificate_pem, &*files.ca.key_pem);
    assert!(issue(ca, ca, &node_subject()).contains("no PKCS#8 key"));
    assert!(issue(key, key, &node_subject()).contains("the CA"));
    let other = new_authority("other", DAY).expect("a CA");
    assert!(issue(ca, &other.key_pem, &node_subject()).contains("does not fit"));
    let named = Subject::Client { names: vec!["a b".into()], uris: vec![] };
    assert!(issue(ca, key, &named).contains("\"a b\""));
    assert!(!format!("{:?}", files.ca).contains("PRIVATE"));
}

#[test]
fn certificate_that_should_have_been_replaced_is_noticed() {
    let files = Files::new();
    let config = files.config("node", &node_subject());
    let hour = 60 * 60;
    // It is valid for a day and an hour.
    for (ahead_s, is_soon) in [(0, false), (17 * hour, false), (18 * hour, true)] {
        let security = Security::load_at(config.clone(), WallClock { ahead_s });
        let security = security.expect("credentials");
        let until = security.state().tls().and_then(|tls| tls.expires_soon());
        assert_eq!(until.is_some(), is_soon, "{ahead_s} s");
        security.look();
    }
    assert!(node(1).state().tls().and_then(|tls| tls.expires_soon()).is_none());
}
