//! Operations that begin before everything has been tried.

use std::pin::pin;

use futures_util::future::poll_immediate;

use super::*;

/// An engine for which discovery goes on.
fn at_the_start(known: u64) -> Arc<Engine> {
    let engine = engine(Config::new("oslo"), known).0;
    engine.changed(|progress| progress.tried = false);
    engine
}

#[tokio::test]
async fn a_node_of_another_region_is_enough_after_a_moment() {
    // It knows one in rome.
    let engine = at_the_start(0);
    let found = read(&engine).await.expect("an answer within the deadline");
    assert_eq!(found.expect("a value").value, address(1).to_string());
}

#[tokio::test]
async fn a_node_of_the_own_region_that_is_found_is_asked_at_once() {
    let engine = at_the_start(0);
    let mut reading = pin!(read(&engine));
    assert!(poll_immediate(&mut reading).await.is_none());
    engine.directory.lock().handshake_completed(info(1, "oslo"), address(1), clock::mono(), 100);
    engine.changed(|_| {});
    let found = reading.await.expect("an answer within the deadline");
    assert_eq!(found.expect("a value").value, address(1).to_string());
}

#[tokio::test]
async fn operation_without_a_known_node_waits_until_its_deadline() {
    let engine = engine_over(Config::new("oslo"), Arc::new(Players::default()));
    engine.changed(|progress| progress.tried = false);
    let key = Key::within(Bytes::from_static(b"key"), KEY_BYTES_WIRE_MAX).expect("a key");
    let started = clock::elapsed();
    let read = engine.get(Reading::new(key, Wants::default()), 500).await;
    assert!(matches!(read, Err(Error::Unreachable { .. })), "{read:?}");
    assert!(clock::elapsed().saturating_sub(started) >= Duration::from_millis(490));
}
