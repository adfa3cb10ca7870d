//! Rows spread, are compared and age.

use alloc::{format, vec, vec::Vec};

use super::*;
use crate::wire::{CONTENT_BYTES_MAX, NodeState};

fn info(n: u64) -> NodeInfo {
    NodeInfo {
        incarnation: Incarnation(n),
        region: format!("r{}", n % 4),
        zone: None,
        addresses: vec![format!("10.0.{}.{}:6789", n / 250, n % 250).parse().unwrap()],
        state: NodeState::InSync,
        bytes_max: 1 << 30,
        name: None,
        replicas: crate::cluster::Replicas::All,
    }
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn node(n: u64) -> Gossip {
    Gossip::new(info(n), at(0))
}

fn others(gossip: &Gossip) -> Vec<u64> {
    gossip.others().map(|info| info.incarnation.0).collect()
}

/// `a` speaks to `b`, and `b` answers.
fn talk(a: &mut Gossip, b: &mut Gossip, now: Instant) -> GossipChanges {
    let message = a.speak(b.own, now, CONTENT_BYTES_MAX);
    assert!(message.len() <= CONTENT_BYTES_MAX);
    let (heard, answer) = b.hear(a.own, &message, now, CONTENT_BYTES_MAX);
    assert!(answer.len() <= CONTENT_BYTES_MAX);
    let (_, _) = a.hear(b.own, &answer, now, CONTENT_BYTES_MAX);
    heard
}

#[test]
fn rumours_reach_their_receivers() {
    let (mut a, mut b, mut c) = (node(1), node(2), node(3));
    assert!(a.met(&info(2), at(0)) && !a.met(&info(2), at(0)));
    assert!(talk(&mut a, &mut b, at(1)).is_new);
    assert!(talk(&mut b, &mut c, at(2)).is_new);
    assert_eq!((others(&b), others(&c)), (vec![1, 3], vec![1, 2]));
    assert_eq!(c.addresses(Incarnation(1)), info(1).addresses);
}

#[test]
fn digests_find_what_rumours_missed() {
    let (mut a, mut b) = (node(1), node(2));
    for n in 3..600 {
        a.met(&info(n), at(0));
    }
    // All rumours went elsewhere.
    while a.has_rumours() {
        a.speak(Incarnation(9_999), at(1), CONTENT_BYTES_MAX);
    }
    let mut rounds = 0;
    while others(&b).len() < 598 || others(&a).len() < 598 {
        rounds += 1;
        assert!(rounds < 120, "{} and {} rows", others(&a).len(), others(&b).len());
        talk(&mut a, &mut b, at(2));
        talk(&mut b, &mut a, at(2));
    }
    assert_eq!(a.digest(), b.digest());
    assert!(!a.differs(b.own) || talk(&mut b, &mut a, at(3)) == GossipChanges::default());
}

#[test]
fn rows_without_renewals_are_forgotten_by_all() {
    let (mut a, mut b) = (node(1), node(2));
    a.met(&info(3), at(0));
    talk(&mut a, &mut b, at(100));
    for second in 1..900 {
        let now = at(second * 1_000);
        let forgotten = [a.tick(now), b.tick(now)].concat();
        assert!(forgotten.is_empty() || (599..=602).contains(&second), "{second} s");
        talk(&mut a, &mut b, now);
        talk(&mut b, &mut a, now);
    }
    assert_eq!((others(&a), others(&b)), (vec![2], vec![1]));
}

#[test]
fn row_of_a_reachable_node_is_kept_by_all() {
    let (mut a, mut b) = (node(1), node(2));
    a.met(&info(3), at(0));
    for second in 1..1_500 {
        let now = at(second * 1_000);
        assert_eq!((a.tick(now), b.tick(now)), (vec![], vec![]));
        a.reached(Incarnation(3), now);
        talk(&mut a, &mut b, now);
    }
    assert!(b.exists(Incarnation(3)) && b.age_ms(Incarnation(3), at(1_500_000)) < Some(200_000));
}

#[test]
fn gone_node_is_gone_for_all_unless_it_objects() {
    let (mut a, mut b, mut c) = (node(1), node(2), node(3));
    a.met(&info(2), at(0));
    a.met(&info(3), at(0));
    for ms in 1..20 {
        talk(&mut a, &mut b, at(ms));
        talk(&mut a, &mut c, at(ms));
    }
    assert_eq!((a.digest(), a.digest()), (b.digest(), c.digest()));
    a.mark_gone(Incarnation(3), at(100));
    let mut gone = Vec::new();
    for ms in 100..110 {
        gone.extend(talk(&mut a, &mut b, at(ms)).gone);
    }
    assert_eq!((gone, others(&a), others(&b)), (vec![Incarnation(3)], vec![2], vec![1]));
    // One that knows the old row does not bring it back; the node itself does.
    let mut late = node(4);
    late.met(&info(3), at(0));
    for ms in 110..130 {
        talk(&mut late, &mut a, at(ms));
        talk(&mut a, &mut late, at(ms));
    }
    assert_eq!((others(&a), others(&late)), (vec![2, 4], vec![1, 2]));
    for ms in 130..150 {
        talk(&mut a, &mut c, at(ms));
        talk(&mut c, &mut a, at(ms));
    }
    assert_eq!(others(&a), [2, 3, 4]);
}

#[test]
fn node_that_takes_its_goodbye_back_exists_for_all() {
    let (mut a, mut b) = (node(1), node(2));
    a.met(&info(2), at(0));
    talk(&mut a, &mut b, at(1));
    let digest = b.digest();
    b.revive(at(50));
    assert_eq!(b.digest(), digest, "it said no goodbye");
    b.mark_gone(Incarnation(2), at(100));
    assert_eq!(talk(&mut b, &mut a, at(101)).gone, [Incarnation(2)]);
    b.revive(at(200));
    for ms in 201..220 {
        talk(&mut b, &mut a, at(ms));
        // What one still says that heard the goodbye only.
        talk(&mut a, &mut b, at(ms));
    }
    assert_eq!((others(&a), a.digest(), b.digest()), (vec![2], digest, digest));
    // It is renewed again.
    let end = at(200 + FORGET_MS);
    b.tick(end);
    talk(&mut b, &mut a, end);
    assert_eq!(a.age_ms(Incarnation(2), end), Some(0));
}

#[test]
fn garbage_changes_nothing() {
    let mut a = node(1);
    a.met(&info(2), at(0));
    let before = others(&a);
    let message = node(7).speak(Incarnation(1), at(0), CONTENT_BYTES_MAX);
    for end in 1..message.len() {
        a.hear(Incarnation(7), &message.slice(..end), at(0), CONTENT_BYTES_MAX);
    }
    a.hear(Incarnation(7), &Bytes::from_static(b"anything"), at(0), CONTENT_BYTES_MAX);
    assert_eq!(others(&a), before);
    assert!(a.speak(Incarnation(2), at(0), 40).len() <= 40);
}

#[test]
fn rows_of_one_source_are_bounded_and_change_no_met_node() {
    let (mut a, mut b) = (node(1), node(2));
    a.met(&info(2), at(0));
    for n in 3..3_000 {
        b.met(&info(n), at(0));
    }
    let moved = NodeInfo { region: "elsewhere".into(), addresses: Vec::new(), ..info(3) };
    a.met(&info(3), at(0));
    b.met(&moved, at(0));
    b.tick(at(70_000));
    let mut refused = 0;
    for ms in 0..400 {
        let message = b.speak(Incarnation(1), at(70_000 + ms), CONTENT_BYTES_MAX);
        refused += a.hear(Incarnation(2), &message, at(70_000 + ms), 0).0.refused;
    }
    assert_eq!(others(&a).len(), 2 + ROWS_PER_SOURCE_MAX);
    assert!(refused > 0);
    assert_eq!(a.addresses(Incarnation(3)), info(3).addresses);
    // Met nodes no longer count, and another source has a bound of its own.
    a.met(&info(4), at(71_000));
    assert!(a.named(Incarnation(2), &info(4_000), at(71_000)));
    assert!(!a.named(Incarnation(2), &info(4_001), at(71_000)));
    assert!(a.named(Incarnation(3), &info(4_001), at(71_000)));
    // All rows that are named and not renewed are forgotten.
    a.tick(at(800_000));
    assert_eq!(others(&a), []);
    assert!(a.rows_by_source.is_empty());
}

#[test]
fn unknown_sender_gets_requested_rows_and_no_rumours() {
    let (mut a, mut b) = (node(1), node(2));
    for n in 3..40 {
        a.met(&info(n), at(0));
        b.met(&info(1_000 + n), at(0));
    }
    let question = b.speak(Incarnation(1), at(0), 200);
    let (ignored, answer) =
        a.answer((Incarnation(2), false), &question, at(0), question.len()).unwrap();
    assert!(ignored && answer.len() <= question.len());
    assert_eq!(others(&a).len(), 37);
    let before = a.rumours.len();
    for _ in 0..100 {
        a.answer((Incarnation(2), false), &question, at(0), CONTENT_BYTES_MAX);
    }
    assert_eq!((a.rumours.len(), a.digests.len()), (before, 0));
}

#[test]
fn impossible_renewals_are_refused() {
    let mut a = node(1);
    for (id, renewal, gone) in
        [(2, u64::MAX, false), (1, u64::MAX, true), (1, 9, true), (1, 20, false)]
    {
        let row = GossipRow { id: Incarnation(id), info: Some(info(id)), renewal, age_ms: 0, gone };
        let content = GossipMessage { digest: 0, request: None, rows: vec![row] };
        a.hear(Incarnation(7), &content.encode(), at(0), 0);
    }
    assert_eq!((others(&a), a.rows[&Incarnation(1)].renewal), (vec![], 21));
}
