//! Nodes that deny this client what it asks for, or everything.

use zerocache_core::{
    access::Denial,
    client::{HandshakeOutcome, ReadOptions},
    wire::{RefusalCode, Response},
};

use super::{
    Bytes, Config, Error, KEY_BYTES_WIRE_MAX, Key, Players, Plays, address, clock, engine,
    engine_over, read,
};
use crate::client::near_read::NearRead;
use crate::{ErrorKind, error::DenialReason};

#[tokio::test]
async fn denied_read_is_an_error_of_its_own_and_is_asked_of_one_node() {
    let (engine, players) = engine(Config::new("oslo"), 2);
    (1..=3).for_each(|n| players.play(n, Plays::Denies));
    let error = read(&engine).await.expect_err("it is denied");
    assert_eq!(error.to_string(), "denied (forbidden): not yours");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(matches!(error, Error::Denied { reason: DenialReason::Forbidden, .. }));
    assert_eq!((1..=3).map(|n| players.asked(n)).sum::<u64>(), 1);
    let key = |n: u8| Key::within(Bytes::from(vec![n]), KEY_BYTES_WIRE_MAX).expect("a key");
    let many = engine
        .get_many(vec![key(1), key(2)], ReadOptions::default(), NearRead::default(), 2_750)
        .await;
    assert!(many.iter().all(|read| matches!(read, Err(Error::Denied { .. }))), "{many:?}");
    let stats = engine.counters.snapshot();
    assert_eq!((stats.denied, stats.unreachable, stats.errors.total()), (3, 0, 0));
}

#[tokio::test]
async fn client_that_every_node_denies_is_told_why() {
    let engine = engine_over(Config::new("oslo"), std::sync::Arc::new(Players::default()));
    assert!(matches!(read(&engine).await, Err(Error::Unreachable { .. })));
    let refused = Response::refused(RefusalCode::ExpiredCredentials, "it ended in May");
    let outcome = engine.state.lock().handshake_answered(
        "zerocache",
        address(1),
        Ok(refused),
        clock::mono(),
        100,
    );
    assert_eq!(outcome, HandshakeOutcome::Denied(Denial::Expired, "it ended in May".to_owned()));
    let error = read(&engine).await.expect_err("nobody takes it");
    assert_eq!(error.to_string(), "denied (expired_credentials): it ended in May");
    let error = engine.ready(10).await.expect_err("nobody takes it");
    assert!(matches!(error, Error::Denied { reason: DenialReason::Expired, .. }), "{error:?}");
}
