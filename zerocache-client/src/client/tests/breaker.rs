//! What becomes of the turns when nodes fail.

use super::{Config, Plays, engine, read};

#[tokio::test]
async fn nodes_without_an_answer_are_asked_again_when_most_are_out() {
    let (engine, players) = engine(Config::new("oslo"), 3);
    players.play(1, Plays::Silent);
    for _ in 0..9 {
        assert!(read(&engine).await.expect("another one has it").is_some());
    }
    assert_eq!(players.asked(1), 1, "one of three is left alone");
    players.play(2, Plays::Silent);
    let before = players.asked(2);
    for _ in 0..9 {
        assert!(read(&engine).await.expect("another one has it").is_some());
    }
    // Two of three: it may be the client's own fault.
    assert!(players.asked(1) > 1 && players.asked(2) > before + 1);
}

#[tokio::test]
async fn nodes_that_refuse_connections_are_left_alone() {
    let (engine, players) = engine(Config::new("oslo"), 3);
    for n in 1..=3 {
        players.play(n, Plays::Refuses);
    }
    for _ in 0..12 {
        let entry = read(&engine).await.expect("rome has it").expect("rome has it");
        assert_eq!(entry.node.0, 4);
    }
    assert_eq!([1, 2, 3].map(|n| players.asked(n)), [1; 3]);
    assert_eq!(players.asked(4), 12);
}

#[tokio::test]
async fn when_nobody_is_left_everybody_is_asked() {
    let (engine, players) = engine(Config::new("oslo"), 2);
    for n in 1..=3 {
        players.play(n, Plays::Refuses);
    }
    for _ in 0..4 {
        read(&engine).await.expect_err("nobody answers");
    }
    assert_eq!([1, 2, 3].map(|n| players.asked(n)), [4; 3]);
    players.play(2, Plays::Misses);
    assert_eq!(read(&engine).await.expect("one answers"), None);
}
