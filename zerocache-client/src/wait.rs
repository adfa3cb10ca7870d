//! Waiting for a future in code without a runtime.
//!
//! A parker of our own, because the runtime's panic where they must not be used:
//! `Handle::block_on` on runtime threads, `block_in_place` on current-thread runtimes. This one
//! works everywhere, provided that what it waits for makes progress on other threads; the client's
//! I/O and timers do.

use std::cell::Cell;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::{Condvar, Mutex};

thread_local! {
    /// How many futures this thread waits for, one inside the other.
    static BLOCKING: Cell<usize> = const { Cell::new(0) };
}

/// Whether this thread sleeps while the future that is polled now waits: then nothing that it waits
/// for may be done by this thread.
pub(crate) fn is_blocking() -> bool {
    BLOCKING.get() > 0
}

/// Marks this thread as one that sleeps.
struct Blocking;

impl Blocking {
    fn begin() -> Self {
        BLOCKING.set(BLOCKING.get() + 1);
        Self
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        BLOCKING.set(BLOCKING.get() - 1);
    }
}

/// A thread's place to sleep until its future can go on.
#[derive(Default)]
struct Parker {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.woken.lock() = true;
        self.changed.notify_one();
    }
}

impl Parker {
    fn park(&self) {
        let mut woken = self.woken.lock();
        while !*woken {
            self.changed.wait(&mut woken);
        }
        *woken = false;
    }
}

/// Runs a future to its end on this thread and sleeps while it waits.
///
/// Made for each call, not kept per thread: a future that blocks inside of another one must not
/// take its wake-ups.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    // Inside a runtime's task the task's budget counts here too. Once it is used up everything
    // would say "not yet" until the task yields, which it cannot do before this returns.
    let mut future = pin!(tokio::task::unconstrained(future));
    let parker = Arc::new(Parker::default());
    let waker = Waker::from(Arc::clone(&parker));
    let mut context = Context::from_waker(&waker);
    let _blocking = Blocking::begin();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        parker.park();
    }
}

/// Waits for a future, such as a timer; without one for ever.
pub(crate) async fn or_forever(future: Option<impl Future<Output = ()>>) {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waits_for_another_thread() {
        let (send, receive) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || send.send(7));
        assert_eq!(block_on(receive), Ok(7));
        assert_eq!(thread.join().expect("the sender ran"), Ok(()));
    }

    #[test]
    fn keeps_a_wake_up_that_comes_before_the_sleep() {
        let mut polls = 0;
        let twice = std::future::poll_fn(|context| {
            polls += 1;
            context.waker().wake_by_ref();
            if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        block_on(twice);
        assert_eq!(polls, 2);
    }

    #[test]
    fn does_not_run_out_of_the_tasks_budget() {
        let (done, finished) = std::sync::mpsc::sync_channel(1);
        let block_often = async {
            for count in 0..1_000 {
                let (send, receive) = tokio::sync::oneshot::channel();
                send.send(count).expect("the receiver is here");
                assert_eq!(block_on(receive), Ok(count));
            }
        };
        std::thread::spawn(move || {
            let current = tokio::runtime::Builder::new_current_thread().build();
            current.expect("a runtime").block_on(block_often);
            done.send(())
        });
        finished.recv_timeout(Duration::from_secs(20)).expect("it ends");
    }

    #[test]
    fn works_inside_both_kinds_of_runtime() {
        let outside = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .build()
            .expect("a runtime");
        // Made on the other runtime: this thread's may have no timers.
        let timer = || outside.spawn(async { tokio::time::sleep(Duration::from_millis(1)).await });
        let current = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        current.block_on(async { block_on(timer()).expect("the timer ran") });
        let multi = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .expect("a runtime");
        let handle = timer();
        let inside = multi.spawn(async move { block_on(handle).expect("the timer ran") });
        multi.block_on(inside).expect("no panic");
    }
}
