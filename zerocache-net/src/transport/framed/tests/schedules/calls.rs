//! The call table: its caller, the arrival of responses, the sweep of deadlines and the end of the connection
//! meet in any order.

use std::{future::poll_fn, sync::Arc, task::Poll};

use shuttle::{
    future::block_on,
    sync::atomic::{AtomicUsize, Ordering},
    thread::spawn,
};
use zerocache_core::{call::CallFailure, time::Instant, wire::Response};

use super::{fails, holds, sync::Mutex};
use crate::transport::framed::calls::{Calls, Notification, UNKNOWN, Waiter};

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn response() -> Result<Response, CallFailure> {
    Ok(Response::LeaseHeld)
}

/// A call whose result a task fetches, and one whose result a function takes, while their responses arrive, their
/// deadlines pass, and the connection ends. Each completes once.
fn every_end(deliver: fn(Notification)) {
    let calls = Arc::new(Mutex::new(Calls::default()));
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let function = Waiter::Function(Box::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let register = |waiter| {
        let registered = calls.lock().register(at(0), at(100), waiter, UNKNOWN);
        registered.unwrap_or_else(|_| panic!("there is room")).id
    };
    let ids = [register(Waiter::None), register(function)];
    let reader = Arc::clone(&calls);
    let reader = spawn(move || {
        for id in ids {
            let due = reader.lock().complete(id, response());
            due.into_iter().for_each(deliver);
        }
    });
    let sweeper = Arc::clone(&calls);
    let sweeper = spawn(move || {
        let (mut due, mut timed_out) = (Vec::new(), Vec::new());
        sweeper.lock().sweep(at(100), &mut due, &mut timed_out);
        due.into_iter().for_each(deliver);
        let mut due = Vec::new();
        sweeper.lock().close(u64::MAX, |_| false, &mut due);
        due.into_iter().for_each(deliver);
    });
    let fetched = block_on(poll_fn(|context| {
        let result = calls.lock().fetch(ids[0], context.waker());
        result.map_or(Poll::Pending, Poll::Ready)
    }));
    assert!(matches!(fetched, Ok(Response::LeaseHeld) | Err(CallFailure::NoAnswer)), "{fetched:?}");
    reader.join().expect("no panic");
    sweeper.join().expect("no panic");
    assert_eq!(taken.load(Ordering::SeqCst), 1, "the function has the result once");
    assert_eq!(calls.lock().census(), [0, 0, 0], "all slots are free");
}

#[test]
fn call_completes_once_whatever_ends_it_first() {
    holds(|| every_end(Notification::deliver));
}

#[test]
fn task_that_is_not_woken_is_found_to_wait() {
    fails(|| {
        every_end(|due| {
            if matches!(due, Notification::Call(..)) {
                due.deliver();
            }
        });
    });
}
