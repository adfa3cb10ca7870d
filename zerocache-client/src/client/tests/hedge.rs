//! When a second node is asked, and how often.

use super::{Config, Plays, engine, read};
use zerocache_core::client::HedgeShare;

/// Enough reads for every node's times to be known.
const KNOWN: usize = 300;

fn hedging(part: f64) -> Config {
    Config { hedge: HedgeShare::new(part), ..Config::new("oslo") }
}

#[tokio::test]
async fn late_node_is_not_waited_for() {
    let (engine, players) = engine(hedging(1.0), 2);
    for _ in 0..KNOWN {
        assert!(read(&engine).await.expect("reads").is_some());
    }
    // Far beyond the bound of an operation.
    players.play(1, Plays::Has(60_000));
    for _ in 0..4 {
        let entry = read(&engine).await.expect("the other one answers").expect("it has it");
        assert_eq!(entry.node.0, 2);
    }
    let stats = engine.counters.snapshot();
    assert!(stats.hedged >= 1 && stats.hedge_wins >= 1, "{stats:?}");
    assert_eq!(stats.errors.total(), 0);
}

#[tokio::test]
async fn a_second_answer_that_settles_nothing_leaves_the_first_to_be_waited_for() {
    let (engine, players) = engine(hedging(1.0), 2);
    for _ in 0..KNOWN {
        assert!(read(&engine).await.expect("reads").is_some());
    }
    players.play(1, Plays::Has(50));
    players.play(2, Plays::Refuses);
    players.play(3, Plays::Refuses);
    for _ in 0..4 {
        let entry = read(&engine).await.expect("the first answers").expect("it has it");
        assert_eq!(entry.node.0, 1);
    }
    assert_eq!(engine.counters.snapshot().hedge_wins, 0);
}

#[tokio::test]
async fn no_more_than_the_share_is_hedged() {
    let (engine, players) = engine(hedging(0.1), 2);
    for _ in 0..KNOWN {
        assert!(read(&engine).await.expect("reads").is_some());
    }
    let before = engine.counters.snapshot().hedged;
    players.play(1, Plays::Has(20));
    players.play(2, Plays::Has(20));
    for _ in 0..50 {
        assert!(read(&engine).await.expect("reads").is_some());
    }
    // A tenth, and what had been saved up.
    let hedged = engine.counters.snapshot().hedged - before;
    assert!((1..=5 + 10).contains(&hedged), "{hedged}");
}

#[tokio::test]
async fn nothing_is_hedged_unless_it_is_asked_for() {
    let (engine, players) = engine(Config::new("oslo"), 2);
    players.play(1, Plays::Has(20));
    for _ in 0..20 {
        assert!(read(&engine).await.expect("reads").is_some());
    }
    assert_eq!(engine.counters.snapshot().hedged, 0);
    assert_eq!([players.asked(1), players.asked(2)], [10, 10]);
}
