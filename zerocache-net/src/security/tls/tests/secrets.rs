//! Processes that have the secret of a cluster, or a token.

use super::*;
use crate::security::{
    TlsFiles,
    tls::{authority_pem, hash_of_authority_pem},
};

#[tokio::test]
async fn processes_with_one_secret_accept_each_other() {
    let (one, other) = (node(1), node(1));
    let meeting = meet(&one, &other).await;
    assert!(meeting.is_mutual());
    let caller = meeting.caller();
    assert!(caller.is_node && !caller.is_client_of_secret);
    assert_eq!(Some(caller.identity()), one.identity());
    assert_ne!(one.identity(), other.identity());
    assert!(other.still_trusts(&caller) && !node(2).still_trusts(&caller));
    let client = load(SecurityConfig { secret: value(1), ..SecurityConfig::default() });
    let caller = meet(&client, &other).await.caller();
    assert!(!caller.is_node && caller.is_client_of_secret);
    assert!(client.acceptor().is_none());
}

#[tokio::test]
async fn process_with_another_secret_is_refused() {
    let meeting = meet(&node(2), &node(1)).await;
    assert!(meeting.is_refused());
    let reason = meeting.connected.expect_err("an error");
    assert!(reason.contains("Unverified") && reason.contains("UnknownIssuer"), "{reason}");
}

#[tokio::test]
async fn token_verifies_the_node_by_its_ca() {
    let client = token_client(1);
    let meeting = meet(&client, &node(1)).await;
    assert!(meeting.connected.is_ok() && matches!(meeting.accepted, Ok(None)));
    let meeting = meet(&client, &node(2)).await;
    assert!(meeting.is_refused());
    let header = client.authorization().expect("a header");
    assert!(header.is_sensitive() && header.to_str().is_ok_and(|text| text.starts_with("Bearer ")));
    assert_eq!(client.token_keys().len(), 0);
    assert_eq!(client.identity(), None);
    assert_eq!(node(1).token_keys().to_vec(), [secret(1).token_key()]);
}

#[tokio::test]
async fn token_does_not_trust_a_ca_that_only_claims_to_be_pinned() {
    use crate::security::tls::{Authority, NODE_NAME, NodeVerifier, Trust, name, provider};
    use rustls::{client::danger::ServerCertVerifier, time_provider::TimeProvider};
    // A node that has a certificate of another CA sends the genuine one along.
    let meeting = meet(&node(2), &node(2)).await;
    let chain = meeting.connected.expect("a chain");
    let leaf = chain[0].as_slice().into();
    let genuine = Authority::new(&secret(1)).expect("a CA");
    let verifier = NodeVerifier {
        trust: Trust::Pinned(genuine.hash),
        name: name(NODE_NAME).expect("a name"),
        provider: Arc::new(provider()),
    };
    let now = WallClock::default().current_time().expect("a time");
    let sent = [genuine.der()];
    let result = verifier.verify_server_cert(&leaf, &sent, &verifier.name, &[], now);
    assert!(result.is_err());
}

#[tokio::test]
async fn secrets_rotate_in_any_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, new) = (1, 2);
    let sets: [&[u8]; 4] = [&[old], &[old, new], &[new, old], &[new]];
    for (one, first) in sets.iter().enumerate() {
        for (other, second) in sets.iter().enumerate() {
            let caller = node_with_file(&directory.path().join("caller"), first);
            let callee = node_with_file(&directory.path().join("callee"), second);
            let meeting = meet(&caller, &callee).await;
            let have_one_in_common = one.abs_diff(other) < 3;
            assert_eq!(meeting.is_mutual(), have_one_in_common, "{first:?} to {second:?}");
            assert_eq!(meeting.is_refused(), !have_one_in_common, "{first:?} to {second:?}");
        }
    }
    // Tokens of both secrets work as long as both are accepted.
    let both = node_with_file(&directory.path().join("both"), &[new, old]);
    for number in [old, new] {
        assert!(meet(&token_client(number), &both).await.connected.is_ok(), "{number}");
    }
    assert_eq!(both.token_keys().len(), 2);
    // So do files with the CA of either.
    for number in [old, new] {
        let ca = directory.path().join("ca.pem");
        std::fs::write(&ca, authority_pem(&secret(number)).expect("a CA")).expect("a file");
        let files = Some(TlsFiles { ca: Some(ca), ..TlsFiles::default() });
        let client = load(SecurityConfig { files, ..SecurityConfig::default() });
        assert!(meet(&client, &both).await.connected.is_ok(), "{number}");
    }
    assert!(meet(&token_client(old), &node(new)).await.is_refused());
}

#[tokio::test]
async fn clocks_may_be_a_day_off() {
    let at = |ahead_s| {
        let config =
            SecurityConfig { secret: value(1), kind: node_kind(), ..SecurityConfig::default() };
        Security::load_at(config, WallClock { ahead_s }).expect("credentials")
    };
    let (hour, day) = (60 * 60, 24 * 60 * 60);
    for ahead_s in [hour, -hour, day, -day] {
        assert!(meet(&at(ahead_s), &node(1)).await.is_mutual(), "{ahead_s} s");
        assert!(meet(&node(1), &at(ahead_s)).await.is_mutual(), "{ahead_s} s");
    }
    for ahead_s in [3 * day, -10 * day] {
        let meeting = meet(&at(ahead_s), &node(1)).await;
        assert!(!meeting.is_mutual() && meeting.accepted.is_err(), "{ahead_s} s");
    }
}

#[tokio::test]
async fn aes_128_of_tls_1_3_is_chosen() {
    let (one, other) = (node(1), node(1));
    let state = one.state();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    let acceptor = other.acceptor().expect("an acceptor");
    let accepting = async {
        let (tcp, _) = listener.accept().await.expect("a connection");
        acceptor.accept(tcp).await.expect("a handshake")
    };
    let connecting = async {
        let tcp = TcpStream::connect(address).await.expect("a connection");
        connect(tcp, state.tls().expect("TLS")).await.expect("a handshake")
    };
    let ((stream, _), connected) = tokio::join!(accepting, connecting);
    assert!(matches!(stream, Stream::Tls(_)));
    let session = connected.get_ref().1;
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
    assert_eq!(suite, Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256));
}

#[test]
fn authority_of_a_secret_is_the_same_everywhere() {
    let pem = authority_pem(&secret(1)).expect("a CA");
    assert_eq!(pem, authority_pem(&secret(1)).expect("a CA"));
    assert_ne!(pem, authority_pem(&secret(2)).expect("a CA"));
    let hash = authority_hash(&secret(1));
    assert_eq!(hash_of_authority_pem(&pem).expect("a hash"), hash);
    // Tokens pin it for years.
    let hash = blake3::Hash::from_bytes(hash).to_hex();
    assert_eq!(hash.as_str(), "218af7ded9707d03652382b7b3a56d4589c1322ae4a5ae72b058277eb787d6fa");
}

#[test]
fn bad_secrets_and_tokens_are_named() {
    let secret_of = |text: &str| {
        load_error(SecurityConfig {
            secret: Some(Source::Value(text.into())),
            ..SecurityConfig::default()
        })
    };
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("secret");
    let file = |text: &[u8]| {
        std::fs::write(&path, text).expect("a file");
        let secret = Some(Source::File(path.clone()));
        load_error(SecurityConfig { secret, ..SecurityConfig::default() })
    };
    let valid = secret(1).to_text();
    for text in ["correct horse battery staple", &valid[..valid.len() - 1], "zcs1_", "zcs1_\u{e9}"]
    {
        let error = secret_of(text);
        assert!(error.contains("zerocache secret"), "{error}");
        assert!(text.len() < 6 || !error.contains(text), "{error}");
        assert!(file(text.as_bytes()).starts_with(&*path.to_string_lossy()));
    }
    assert!(secret_of("").contains("there is no secret"));
    assert!(secret_of(&format!("{valid}\n{valid}")).contains("need a file"));
    assert!(file(b"# nothing\n\n").contains("there is no secret"));
    assert!(file(&[0xff, 0xfe, 0]).contains("not a secret"));
    let five: String = (1..=5).map(|n| secret(n).to_text() + "\n").collect();
    assert!(file(five.as_bytes()).contains("5 secrets are too many; at most 4"));
    assert!(file(&vec![b'x'; (1 << 20) + 1]).contains("more than 1048576 bytes"));
    let secret = Some(Source::File(directory.path().join("missing")));
    let error = load_error(SecurityConfig { secret, ..SecurityConfig::default() });
    assert!(error.contains("missing") && error.contains("No such file"), "{error}");
    let token = Some(Source::Value("zc1_x".into()));
    let error = load_error(SecurityConfig { token, ..SecurityConfig::default() });
    assert!(error.contains("zerocache token create"), "{error}");
    let tls = Some(TlsMode::Required);
    assert!(load_error(SecurityConfig { tls, ..SecurityConfig::default() }).contains("TLS needs"));
    let names = vec!["a b".to_owned()];
    let config =
        SecurityConfig { secret: value(1), names, kind: node_kind(), ..SecurityConfig::default() };
    assert!(load_error(config).contains("\"a b\" is not a DNS name"));
}

#[test]
fn nothing_secret_is_shown() {
    let config = SecurityConfig {
        secret: value(1),
        token: Some(Source::Value(token(1))),
        ..SecurityConfig::default()
    };
    let security = load(config.clone());
    let shown = format!("{config:?} {security:?} {:?}", security.authorization());
    for hidden in [secret(1).to_text(), token(1), "zcs1_".into(), "zc1_".into()] {
        assert!(!shown.contains(&hidden), "{shown}");
    }
}

#[test]
fn plain_process_has_nothing() {
    let plain = Security::plain();
    assert_eq!(plain.mode(), TlsMode::Off);
    assert!(plain.acceptor().is_none() && plain.identity().is_none());
    assert!(plain.authorization().is_none() && plain.token_keys().is_empty());
    assert!(matches!(plain.reload(), Ok(false)));
    // With TLS off in so many words, a secret still verifies tokens.
    let config =
        SecurityConfig { secret: value(1), tls: Some(TlsMode::Off), ..SecurityConfig::default() };
    let security = load(config);
    assert_eq!((security.mode(), security.identity()), (TlsMode::Off, None));
    assert_eq!(security.token_keys().len(), 1);
}

#[tokio::test]
async fn names_and_addresses_are_in_the_certificate() {
    let config = SecurityConfig {
        secret: value(1),
        names: vec!["cache.example".into(), "10.0.0.9".into()],
        addresses: vec![[127, 0, 0, 1].into()],
        kind: ProcessKind::Node { region: "EU_west".into() },
        ..SecurityConfig::default()
    };
    let caller = meet(&load(config), &node(1)).await.caller();
    let expected = ["node.zerocache.internal", "eu_west.node.zerocache.internal", "cache.example"];
    for name in expected {
        assert!(caller.dns_names.iter().any(|has| has == name), "{name}: {:?}", caller.dns_names);
    }
}
