use std::{fs, net::SocketAddr, path::Path};

use axum::http::{StatusCode, header};
use zerocache_core::access::{Operation, Secret, TokenFields, TokenId};
use zerocache_net::security::{ProcessKind, SecurityConfig, Source};

use super::*;

fn connection(peer: &str, local: &str) -> Connection {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    Connection::plain(address(peer), address(local))
}

#[test]
fn protected_node_serves_its_own_host_only() {
    let access = AccessControl::protected();
    let judge = |peer, local| access.authenticate(&connection(peer, local), None).map(drop);
    for (peer, local) in [
        ("127.0.0.1:1", "127.0.0.1:6789"),
        ("127.0.0.9:1", "127.0.0.2:6789"),
        ("[::1]:1", "[::1]:6789"),
        ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:6789"),
        ("10.0.0.5:1", "10.0.0.5:6789"),
        ("[::ffff:10.0.0.5]:1", "10.0.0.5:6789"),
        ("[fd00::5]:1", "[fd00::5]:6789"),
    ] {
        assert_eq!(judge(peer, local), Ok(()), "{peer} at {local}");
    }
    for (peer, local) in [
        ("10.0.0.6:1", "10.0.0.5:6789"),
        ("[::ffff:10.0.0.6]:1", "[::ffff:10.0.0.5]:6789"),
        ("[fd00::6]:1", "[fd00::5]:6789"),
        ("0.0.0.0:1", "10.0.0.5:6789"),
    ] {
        assert_eq!(judge(peer, local), Err(Denial::Protected), "{peer} at {local}");
    }
}

#[test]
fn callers_without_authentication_may_do_everything() {
    let access = AccessControl::insecure();
    let caller = access.authenticate(&connection("10.0.0.6:1", "10.0.0.5:2"), None);
    let caller = caller.expect("a caller");
    assert_eq!(caller.grant.permits(Operation::Join), Ok(()));
    assert_eq!(caller.grant.permits(Operation::Administer), Ok(()));
    assert_eq!(access.judge_again(&caller).map(|again| again.ip()), Ok([10, 0, 0, 6].into()));
}

#[test]
fn refusals_are_counted_and_say_what_to_do() {
    let access = AccessControl::protected();
    let peer = connection("10.0.0.6:1", "10.0.0.5:2");
    for denial in Denial::ALL {
        let refusal = access.refusal(&peer, denial);
        assert_eq!(Denial::from_refusal_code(refusal.code), Some(denial));
        let response = access.refuse(&peer, denial);
        let is_401 = response.status() == StatusCode::UNAUTHORIZED;
        assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), is_401);
    }
    let two_each = DenialCounts {
        unauthenticated: 2,
        bad_credentials: 2,
        expired_credentials: 2,
        forbidden: 2,
        protected: 2,
    };
    assert_eq!(access.denial_counts(), two_each);
}

#[test]
fn caller_of_a_connection_is_remembered_until_something_changes() {
    let access = AccessControl::insecure();
    let caller = ConnectionCaller::new(Arc::clone(&access), connection("10.0.0.6:1", "10.0.0.5:2"));
    let header = HeaderValue::from_static("Bearer x");
    let ask = |header| caller.authenticate(header).expect("a caller");
    let first = ask(None);
    assert!(Arc::ptr_eq(&first, &ask(None)));
    let named = ask(Some(&header));
    assert!(!Arc::ptr_eq(&first, &named));
    assert!(Arc::ptr_eq(&named, &ask(Some(&header))));
    access.file.replace(AccessTable::default());
    assert!(!Arc::ptr_eq(&named, &ask(Some(&header))));
}

const CLUSTER: &str = "shop";

fn secret(byte: u8) -> Secret {
    Secret::from_random([byte; 32])
}

/// The access control of a node with `secret(1)`.
fn with_secret(file: Option<&Path>) -> Arc<AccessControl> {
    let config = SecurityConfig {
        secret: Some(Source::Value(secret(1).to_text())),
        kind: ProcessKind::Node { region: "oslo".into() },
        ..SecurityConfig::default()
    };
    let security = Security::load(config).expect("credentials");
    let path = file.map(Path::to_owned);
    AccessControl::with_credentials(Level::Secret, CLUSTER, security, path).expect("a good file")
}

fn encrypted() -> Connection {
    Connection { is_tls: true, ..connection("10.0.0.6:1", "10.0.0.5:6789") }
}

/// A token of `secret(1)` that is valid for an hour, changed by `change`.
fn token(change: impl FnOnce(&mut TokenFields)) -> HeaderValue {
    signed(&secret(1), change)
}

fn signed(secret: &Secret, change: impl FnOnce(&mut TokenFields)) -> HeaderValue {
    let mut fields = TokenFields {
        id: "00000000000000aa".parse::<TokenId>().expect("an id"),
        name: "orders".into(),
        role: Role::Write,
        prefixes: vec!["orders/".parse().expect("a prefix")],
        not_after_s: clock::now().wall_ms / 1_000 + 3_600,
        cluster: CLUSTER.into(),
        ca: [0; 32],
    };
    change(&mut fields);
    let token = fields.sign(&secret.token_key()).expect("a token");
    HeaderValue::try_from(format!("Bearer {token}")).expect("a header")
}

#[test]
fn token_of_the_secret_grants_what_it_says() {
    let access = with_secret(None);
    let caller = access.authenticate(&encrypted(), Some(&token(|_| {}))).expect("a caller");
    assert_eq!(caller.grant.permits(Operation::Write(b"orders/1")), Ok(()));
    assert_eq!(caller.grant.permits(Operation::Write(b"users/1")), Err(Denial::Forbidden));
    assert_eq!(caller.grant.permits(Operation::Join), Err(Denial::Forbidden));
    assert_eq!((caller.name.as_deref(), caller.identity), (Some("orders"), None));
    assert!(caller.is_valid_now() && caller.valid_until.is_some());
    assert!(!caller.to_core().is_node);
    let text = format!("{caller:?} {access:?}");
    assert!(!text.contains("zc1_") && !text.contains("zcs1_"), "{text}");
}

#[test]
fn credentials_that_are_not_valid_are_told_apart() {
    let access = with_secret(None);
    let judge = |header: Option<&HeaderValue>| access.authenticate(&encrypted(), header);
    let stranger = judge(None).expect("a caller without permissions");
    assert_eq!(stranger.grant.permits(Operation::Connect), Err(Denial::Missing));
    assert_eq!(stranger.grant.permits(Operation::CheckLiveness), Ok(()));
    let denied = |header: HeaderValue| judge(Some(&header)).map(drop).expect_err("not valid");
    assert_eq!(denied(signed(&secret(2), |_| {})), Denial::Wrong);
    assert_eq!(denied(token(|fields| fields.cluster = "other".into())), Denial::Wrong);
    assert_eq!(denied(token(|fields| fields.not_after_s = 1)), Denial::Expired);
    let whole = token(|_| {});
    let text = whole.to_str().expect("text");
    for wrong in [
        &text[..text.len() - 1],
        "Bearer",
        "Bearer ",
        "Bearer zct1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "Basic dTpw",
        &text[7..],
    ] {
        assert_eq!(
            denied(HeaderValue::from_str(wrong).expect("a header")),
            Denial::Wrong,
            "{wrong}"
        );
    }
    assert!(
        judge(Some(&HeaderValue::try_from(text.replace("Bearer", "bearer")).expect("a header")))
            .is_ok()
    );
}

#[tokio::test]
async fn revoked_token_ends_its_connections_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.toml");
    fs::write(&path, "").expect("written");
    let access = with_secret(Some(&path));
    let other = token(|fields| fields.id = "00000000000000bb".parse().expect("an id"));
    let [revoked, other] = [token(|_| {}), other]
        .map(|header| access.authenticate(&encrypted(), Some(&header)).expect("a caller"));
    let mut changes = access.changes();
    fs::write(&path, "revoked = [\"00000000000000aa\", \"x\"]").expect("written");
    access.reload();
    access.reload();
    access.file.look();
    assert_eq!((access.failed_reloads(), access.change_count()), (2, 0));
    assert!(access.judge_again(&revoked).is_ok() && !changes.has_changed().expect("open"));
    let ended = access.end_of(&revoked);
    fs::write(&path, "revoked = [\"00000000000000aa\"]").expect("written");
    access.file.look();
    access.publish();
    assert_eq!(ended.await, Denial::Wrong);
    changes.changed().await.expect("open");
    assert!(access.judge_again(&other).is_ok());
    assert_eq!((access.failed_reloads(), access.change_count()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn connection_ends_with_its_credentials() {
    let access = with_secret(None);
    let soon = clock::now().wall_ms / 1_000;
    let header = token(|fields| fields.not_after_s = soon);
    let caller = access.authenticate(&encrypted(), Some(&header)).expect("a caller");
    assert_eq!(access.end_of(&caller).await, Denial::Expired);
}

#[test]
fn access_file_names_static_tokens_and_strangers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.toml");
    let static_token = StaticToken::from_random([5; 32]);
    let hash = static_token.hash();
    let text = format!(
        "[[client]]\nname = \"graphs\"\nrole = \"monitor\"\ntoken_hashes = [\"{hash}\"]\n\
         [anonymous]\nrole = \"read\""
    );
    fs::write(&path, text).expect("written");
    let access = with_secret(Some(&path));
    let header = format!("Bearer {}", static_token.as_text());
    let header = HeaderValue::try_from(header).expect("a header");
    let graphs = access.authenticate(&encrypted(), Some(&header)).expect("a caller");
    assert_eq!(graphs.grant, Grant::new(Role::Monitor));
    let stranger = access.authenticate(&encrypted(), None).expect("a caller");
    assert_eq!(stranger.grant, Grant::new(Role::Read));
    let missing = folder.path().join("missing.toml");
    let security = Security::plain();
    let error = AccessControl::with_credentials(Level::Secret, CLUSTER, security, Some(missing));
    assert!(error.expect_err("no file").to_string().starts_with("cannot read "));
}
