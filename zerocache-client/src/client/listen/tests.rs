//! Which changes reach whom.

use std::task::Waker;

use zerocache_core::{client::near_hash, version::Incarnation, wire::ChangeRow};

use super::{queue::QUEUED_MAX, *};

fn key(text: &str) -> Subject {
    Subject::Key(Bytes::copy_from_slice(text.as_bytes()))
}

fn tag(text: &str) -> Subject {
    Subject::Tag(text.into())
}

fn version(n: u64) -> Version {
    Version::new(n << 16, Incarnation(1))
}

fn write(name: &str, n: u64) -> ChangeRow {
    ChangeRow::Written { key: near_hash(name.as_bytes()), version: version(n) }
}

fn of_tag(name: &str) -> ChangeRow {
    ChangeRow::Target(TargetId::of_tag(name.as_bytes()))
}

fn written(subject: Subject, n: u64) -> Change {
    Change::Written { subject, version: version(n) }
}

/// A listener, once a node is followed.
fn begun(listeners: &Arc<Listeners>, subjects: &[Subject]) -> Subscription {
    let listening = listeners.join(subjects.to_vec());
    assert!(has_begun(&listening));
    listening
}

fn has_begun(listening: &Subscription) -> bool {
    let context = Context::from_waker(Waker::noop());
    matches!(listening.queue.poll_begun(&context), Poll::Ready(Ok(())))
}

/// What waits for it.
fn taken(listening: &Subscription) -> Vec<Change> {
    let context = Context::from_waker(Waker::noop());
    let next = || match listening.queue.poll_next(&context) {
        Poll::Ready(change) => Some(change),
        Poll::Pending => None,
    };
    std::iter::from_fn(next).collect()
}

/// Listeners of a client that follows a node; the first one stays.
fn followed() -> (Arc<Listeners>, Subscription) {
    let listeners = Arc::new(Listeners::default());
    assert_eq!(listeners.mode(), Mode::Follow);
    let first = listeners.join(vec![key("first")]);
    assert!(!has_begun(&first));
    assert_eq!(listeners.mode(), Mode::Listen { at_once: true });
    // What was before it began is not reported.
    listeners.report(&[write("first", 1)], true);
    assert!(has_begun(&first) && taken(&first).is_empty());
    assert_eq!(listeners.mode(), Mode::Listen { at_once: false });
    (listeners, first)
}

#[test]
fn each_listener_hears_of_its_subjects_once() {
    let (listeners, first) = followed();
    let one = begun(&listeners, &[key("a"), tag("t")]);
    let other = begun(&listeners, &[tag("t"), tag("u"), Subject::Namespace("shop".into())]);
    listeners.report(
        &[write("a", 2), write("b", 3), of_tag("t"), of_tag("v"), write("first", 4)],
        false,
    );
    assert_eq!(taken(&one), [written(key("a"), 2), written(tag("t"), 3)]);
    assert_eq!(taken(&other), [written(tag("t"), 3)]);
    assert_eq!(taken(&first), [written(key("first"), 4)]);
    // What an entry belongs to may come with the next response.
    let gone = ChangeRow::Deleted { key: near_hash(b"c"), version: version(5) };
    listeners.report(&[gone], false);
    listeners.report(&[of_tag("u")], false);
    assert_eq!(taken(&other), [Change::Deleted { subject: tag("u"), version: version(5) }]);
    assert!(taken(&one).is_empty());
}

#[test]
fn purges_are_reported_to_those_whose_entries_they_may_end() {
    let (listeners, first) = followed();
    let memoized = [&b"\x02\x04shop"[..], &[7; 16], b"arguments"].concat();
    let memoized = Subject::Key(memoized.into());
    let namespace = Subject::Namespace("shop".into());
    let one = begun(&listeners, &[memoized.clone(), tag("t")]);
    let other = begun(&listeners, std::slice::from_ref(&namespace));
    let purge = |target: TargetId| ChangeRow::Purged { target, stamp: 9 };
    let purged = |subject: &Subject| Change::Purged { subject: subject.clone() };
    listeners.report(&[purge(tag("t").target())], false);
    assert_eq!((taken(&one), taken(&other)), (vec![purged(&tag("t"))], vec![]));
    listeners.report(&[purge(namespace.target())], false);
    assert_eq!((taken(&one), taken(&other)), (vec![purged(&memoized)], vec![purged(&namespace)]));
    // Of the function: the node says of which namespace it is.
    let function = PurgeTarget::Function { namespace: "shop".to_owned(), id: [7; 16] };
    listeners.report(&[purge(function.id()), ChangeRow::Target(namespace.target())], false);
    assert_eq!((taken(&one), taken(&other)), (vec![purged(&memoized)], vec![purged(&namespace)]));
    listeners.report(&[purge(TargetId::EVERYTHING)], false);
    for listening in [&first, &one, &other] {
        assert_eq!(taken(listening), [purged(&Subject::Everything)]);
    }
}

#[test]
fn end_of_a_node_is_an_interruption_and_the_next_node_a_gap() {
    let (listeners, first) = followed();
    listeners.report(&[write("first", 2)], false);
    drop(listeners.followed());
    drop(listeners.followed());
    let late = listeners.join(vec![key("first")]);
    assert!(!has_begun(&late));
    assert_eq!(listeners.mode(), Mode::Listen { at_once: true });
    // Tags of an earlier change mean nothing after a gap.
    listeners.report(&[of_tag("t"), write("first", 3)], true);
    assert_eq!(
        taken(&first),
        [written(key("first"), 2), Change::Interrupted, Change::Gap, written(key("first"), 3)]
    );
    assert!(has_begun(&late) && taken(&late).is_empty());
    // A node that lost something.
    listeners.report(&[], true);
    listeners.report(&[], true);
    assert_eq!((taken(&first), taken(&late)), (vec![Change::Gap], vec![Change::Gap]));
}

#[test]
fn full_queue_becomes_a_gap() {
    let (listeners, first) = followed();
    let other = begun(&listeners, &[key("first")]);
    for n in 0..QUEUED_MAX as u64 {
        listeners.report(&[write("first", n)], false);
    }
    assert_eq!(taken(&other).len(), QUEUED_MAX);
    listeners.report(&[write("first", 7)], false);
    assert_eq!(taken(&first), [Change::Gap, written(key("first"), 7)]);
    assert_eq!(taken(&other), [written(key("first"), 7)], "another listener is not affected");
}

#[test]
fn listener_that_is_dropped_leaves_nothing() {
    let (listeners, first) = followed();
    let many: Vec<_> = (0..100).map(|_| begun(&listeners, &[key("a"), tag("t")])).collect();
    let [queue, other] = [0, 99].map(|n| Arc::downgrade(&many[n].queue));
    drop(many);
    assert!(queue.upgrade().is_none() && other.upgrade().is_none());
    assert!(listeners.are_wanted());
    drop(first);
    assert!(!listeners.are_wanted());
    assert_eq!(listeners.mode(), Mode::Follow);
    // A later one waits for a node's word again.
    assert!(!has_begun(&listeners.join(vec![key("a")])));
}

#[test]
fn forbidden_listeners_get_nothing_until_credentials_change() {
    let (listeners, first) = followed();
    let node = listeners.followed();
    drop(node);
    let early = listeners.join(vec![key("a")]);
    listeners.forbid("only for some keys");
    let late = listeners.join(vec![key("a")]);
    let context = Context::from_waker(Waker::noop());
    for listening in [early, late] {
        let outcome = listening.queue.poll_begun(&context);
        assert!(matches!(outcome, Poll::Ready(Err(Error::Denied { .. }))), "{outcome:?}");
    }
    assert!(!listeners.are_wanted());
    assert_eq!(taken(&first), [Change::Interrupted]);
    listeners.permit();
    assert_eq!(listeners.mode(), Mode::Listen { at_once: true });
}
