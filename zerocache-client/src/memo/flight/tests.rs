use std::sync::mpsc;
use std::thread;

use futures_util::FutureExt;

use super::*;

fn leader(key: &Bytes) -> Leader {
    match join(0, key, false) {
        Role::Leader(leader) => leader,
        _ => panic!("another caller leads"),
    }
}

fn follower(key: &Bytes) -> Follower {
    match join(0, key, false) {
        Role::Follower(follower) => follower,
        _ => panic!("nobody leads"),
    }
}

#[test]
fn caller_after_the_fresh_time_of_a_pending_value_leads() {
    let key = Bytes::from_static(b"flight: past its time");
    let payload = Payload::value(Bytes::from_static(b"v"));
    let mut storing = leader(&key);
    storing.publish_fresh(payload.clone(), Duration::from_secs(60));
    assert!(matches!(follower(&key).state.borrow().progress, Progress::Value(_)));
    drop(storing);
    let mut storing = leader(&key);
    storing.publish_fresh(payload, Duration::ZERO);
    let next = leader(&key);
    drop(storing);
    // The table holds the flight of the next leader.
    let follower = follower(&key);
    assert_eq!(follower.number, next.number);
    drop(next);
    let flight_key = (0, key);
    assert!(!shard(&flight_key).lock().contains_key(&flight_key));
}

/// An error whose drop joins the key.
struct JoinsOnDrop(Bytes);

impl Drop for JoinsOnDrop {
    fn drop(&mut self) {
        drop(join(0, &self.0, false));
    }
}

#[test]
fn error_that_is_not_published_is_dropped_outside_of_all_locks() {
    let key = Bytes::from_static(b"flight: an error's end");
    let (sender, ended) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut first = leader(&key);
        let WaitExpired::Lead(mut second) = follower(&key).wait_expired(Duration::ZERO) else {
            panic!("the first leader began before the wait")
        };
        first.publish(Progress::Nothing);
        second.publish(Progress::Failed(Arc::new(JoinsOnDrop(key))));
        sender.send(()).expect("the test waits");
    });
    // Far longer than it takes, and far shorter than for ever.
    assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(()));
}

#[test]
fn blocking_caller_takes_the_value_that_an_async_leader_has_published() {
    let key = Bytes::from_static(b"flight: told");
    let mut leader = leader(&key);
    assert!(matches!(join(0, &key, true), Role::Unshared));
    leader.publish_fresh(Payload::value(Bytes::from_static(b"v")), Duration::from_secs(60));
    let Role::Follower(mut follower) = join(0, &key, true) else { panic!("a value is published") };
    assert!(matches!(follower.wait(false).now_or_never(), Some(Some(Progress::Value(_)))));
}

#[test]
fn caller_inside_of_a_run_does_not_follow_a_leader_in_the_queue() {
    let key = Bytes::from_static(b"flight: queued");
    let inside = Waiting { inside_run: true, ..Waiting::default() };
    let mut leader = leader(&key);
    let Role::Follower(mut early) = join_from(0, &key, inside) else { panic!("another one leads") };
    assert!(early.wait(false).now_or_never().is_none());
    leader.enter_queue();
    assert!(matches!(early.wait(false).now_or_never(), Some(None)));
    assert!(matches!(join_from(0, &key, inside), Role::Unshared));
    assert!(follower(&key).wait(false).now_or_never().is_none(), "others wait");
    leader.leave_queue();
    assert!(matches!(join_from(0, &key, inside), Role::Follower(_)));
}
