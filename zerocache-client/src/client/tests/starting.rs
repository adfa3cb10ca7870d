//! Operations that begin before everything has been tried.

use std::pin::pin;

use futures_util::future::poll_immediate;

use super::*;

/// An engine that knows only node 1 in rome, if any.
fn at_the_start(knows_remote: bool) -> Arc<Engine> {
    let players = Arc::new(Players::default());
    players.play(1, Plays::Has(0));
    let engine = engine_at_start(Config::new("oslo"), players);
    if knows_remote {
        engine.directory().handshake_completed(info(1, "rome"), address(1), clock::mono(), 100);
    }
    engine
}

#[tokio::test]
async fn a_node_of_another_region_is_enough_after_a_moment() {
    // It knows one in rome.
    let engine = at_the_start(true);
    let found = read(&engine).await.expect("an answer within the deadline");
    assert_eq!(found.expect("a value").value, address(1).to_string());
}

#[tokio::test]
async fn a_node_of_the_own_region_that_is_found_is_asked_at_once() {
    let engine = at_the_start(false);
    let mut reading = pin!(read(&engine));
    assert!(poll_immediate(&mut reading).await.is_none());
    engine.directory().handshake_completed(info(1, "oslo"), address(1), clock::mono(), 100);
    engine.changed();
    let found = reading.await.expect("an answer within the deadline");
    assert_eq!(found.expect("a value").value, address(1).to_string());
}

#[tokio::test]
async fn while_nobody_is_found_an_operation_waits_until_its_deadline() {
    let engine = at_the_start(false);
    let key = Key::within(Bytes::from_static(b"key"), KEY_BYTES_WIRE_MAX).expect("a key");
    let started = clock::elapsed();
    let read = engine.get(&key, ReadOptions::default(), 500).await;
    assert!(matches!(read, Err(Error::Unreachable { .. })), "{read:?}");
    assert!(clock::elapsed().saturating_sub(started) >= Duration::from_millis(490));
}
