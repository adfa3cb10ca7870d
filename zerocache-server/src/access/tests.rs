use std::net::SocketAddr;

use axum::http::{StatusCode, header};
use zerocache_core::access::Operation;

use super::*;

fn connection(peer: &str, local: &str) -> Connection {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    Connection { peer: address(peer), local: address(local), is_tls: false, certificate: None }
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
    let peer = [10, 0, 0, 6].into();
    for denial in Denial::ALL {
        let refusal = access.refusal(peer, denial);
        assert_eq!(Denial::from_refusal_code(refusal.code), Some(denial));
        let response = access.refuse(peer, denial);
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
    access.changes.send_modify(|count| *count += 1);
    assert!(!Arc::ptr_eq(&named, &ask(Some(&header))));
}
