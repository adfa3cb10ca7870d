use std::sync::mpsc;
use std::thread;

use futures_util::FutureExt;

use super::*;

fn lead(key: &Bytes) -> Lead {
    match join(0, key, false) {
        Joined::Lead(lead) => lead,
        _ => panic!("another one leads"),
    }
}

fn waiting(key: &Bytes) -> Waiting {
    match join(0, key, false) {
        Joined::Wait(waiting) => waiting,
        _ => panic!("nobody leads"),
    }
}

#[test]
fn who_comes_after_the_time_of_a_value_that_is_being_stored_leads() {
    let key = Bytes::from_static(b"flight: past its time");
    let form = Form::value(Bytes::from_static(b"v"));
    let mut storing = lead(&key);
    storing.publish_fresh(form.clone(), Duration::from_secs(60));
    assert!(matches!(waiting(&key).told.borrow().progress, Progress::Value(_)));
    drop(storing);
    let mut storing = lead(&key);
    storing.publish_fresh(form, Duration::ZERO);
    let next = lead(&key);
    drop(storing);
    // The place is the next one's.
    let waiting = waiting(&key);
    assert_eq!(waiting.number, next.number);
    drop(next);
    let place = (0, key);
    assert!(!part(&place).lock().contains_key(&place));
}

/// An error that looks up the key at its end.
struct Looks(Bytes);

impl Drop for Looks {
    fn drop(&mut self) {
        drop(join(0, &self.0, false));
    }
}

#[test]
fn an_error_that_nobody_is_told_ends_outside_of_all_locks() {
    let key = Bytes::from_static(b"flight: an error's end");
    let (sender, ended) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut first = lead(&key);
        let Turn::Lead(mut second) = waiting(&key).take_turn(Duration::ZERO) else {
            panic!("the first began a while ago")
        };
        first.publish(Progress::Nothing);
        second.publish(Progress::Failed(Arc::new(Looks(key))));
        sender.send(()).expect("the test waits");
    });
    // Far longer than it takes, and far shorter than for ever.
    assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(()));
}

#[test]
fn who_sleeps_on_its_thread_takes_what_an_async_leader_has_told() {
    let key = Bytes::from_static(b"flight: told");
    let mut leader = lead(&key);
    assert!(matches!(join(0, &key, true), Joined::Alone));
    leader.publish_fresh(Form::value(Bytes::from_static(b"v")), Duration::from_secs(60));
    let Joined::Wait(mut waiting) = join(0, &key, true) else { panic!("it is told") };
    assert!(matches!(waiting.told().now_or_never(), Some(Some(Progress::Value(_)))));
}
