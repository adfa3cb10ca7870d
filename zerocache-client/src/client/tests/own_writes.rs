//! A client reads what it wrote, or nothing: never what it replaced.

use super::{
    Bytes, Config, Incarnation, KEY_BYTES_WIRE_MAX, Key, OwnWrite, Plays, ReadOptions, Version,
    clock, engine, read,
};
use crate::client::ReadAnswer;
use crate::client::near_read::NearRead;

/// The nodes of the tests give values with the stamp `1 << 16`.
fn own_write(stamp: u64, is_delete: bool) -> OwnWrite {
    let node = Incarnation(1);
    OwnWrite { node, version: Some(Version::new(stamp, node)), is_delete }
}

#[tokio::test]
async fn an_older_value_is_not_taken_where_the_node_of_an_own_write_is_silent() {
    for is_delete in [false, true] {
        let (engine, players) = engine(Config::new("oslo"), 2);
        let key = Key::within(Bytes::from_static(b"key"), KEY_BYTES_WIRE_MAX).expect("a key");
        engine.state.lock().record_own_write(
            key.hash(),
            own_write(2 << 16, is_delete),
            clock::mono(),
        );
        players.play(1, Plays::Silent);
        assert!(matches!(read(&engine).await, Ok(None)));
        assert_eq!([1, 2, 3].map(|n| players.asked(n)), [1, 1, 1]);
        let many =
            engine.get_many(vec![key], ReadOptions::default(), NearRead::default(), 2_750).await;
        assert!(matches!(many[..], [Ok(ReadAnswer { entry: None, .. })]), "{many:?}");
    }
    let (engine, _players) = engine(Config::new("oslo"), 2);
    let key = Key::within(Bytes::from_static(b"key"), KEY_BYTES_WIRE_MAX).expect("a key");
    engine.state.lock().record_own_write(key.hash(), own_write(1 << 16, false), clock::mono());
    assert!(read(&engine).await.expect("an answer").is_some());
}

#[tokio::test]
async fn a_miss_elsewhere_says_nothing_of_an_own_put_and_all_of_an_own_delete() {
    for (is_delete, asked) in [(false, [1, 1, 1]), (true, [1, 1, 0])] {
        let (engine, players) = engine(Config::new("oslo"), 2);
        let key = Key::within(Bytes::from_static(b"key"), KEY_BYTES_WIRE_MAX).expect("a key");
        engine.state.lock().record_own_write(
            key.hash(),
            own_write(2 << 16, is_delete),
            clock::mono(),
        );
        players.play(1, Plays::Silent);
        players.play(2, Plays::Misses);
        assert!(matches!(read(&engine).await, Ok(None)));
        assert_eq!([1, 2, 3].map(|n| players.asked(n)), asked, "delete: {is_delete}");
    }
}
