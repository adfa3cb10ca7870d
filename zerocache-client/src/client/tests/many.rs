//! Many keys that go to several nodes.

use super::{
    Bytes, Config, Incarnation, KEY_BYTES_WIRE_MAX, Key, Plays, ReadOptions, clock, engine, put_at,
};
use crate::client::near_read::NearRead;

/// What the slow node takes, in milliseconds.
const SLOW_MS: u64 = 400;

#[tokio::test]
async fn a_slow_node_makes_no_other_one_look_slow() {
    let (engine, players) = engine(Config::new("oslo"), 2);
    let key = |name: &'static [u8]| {
        Key::within(Bytes::from_static(name), KEY_BYTES_WIRE_MAX).expect("a key")
    };
    // Each node is asked for what it has just taken.
    engine.state.lock().record_own_write(key(b"slow").hash(), put_at(1), clock::mono());
    engine.state.lock().record_own_write(key(b"fast").hash(), put_at(2), clock::mono());
    players.play(1, Plays::Has(SLOW_MS));
    let keys = vec![key(b"slow"), key(b"fast")];
    for outcome in engine.get_many(keys, ReadOptions::default(), NearRead::default(), 2_750).await {
        assert!(outcome.expect("an answer").entry.is_some());
    }
    assert_eq!((players.asked(1), players.asked(2)), (1, 1));
    let directory = engine.directory();
    let latency_us = |n: u64| {
        let node = directory.nodes().find(|node| node.info.incarnation == Incarnation(n));
        node.expect("known").latency.micros().expect("it answered")
    };
    let (slow, fast) = (latency_us(1), latency_us(2));
    assert!(fast < slow / 2, "{fast} us beside {slow} us");
}
