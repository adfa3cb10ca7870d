//! Detects a run that does not reach its next event. An endless loop would otherwise block whoever
//! runs seeds, without naming the seed.

use std::{
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

/// An event takes microseconds, and milliseconds on a busy machine: one that takes longer than this
/// has no end.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(60);

/// Runs something whose `events_handled` rises; calls `stuck` when it has not for `longest`, or up
/// to twice that.
pub(crate) fn watch<R>(
    events_handled: &AtomicU64,
    longest: Duration,
    stuck: impl FnOnce() + Send,
    run: impl FnOnce() -> R,
) -> R {
    thread::scope(|scope| {
        let (running, ended) = sync_channel::<()>(0);
        scope.spawn(move || {
            let mut before = None;
            while ended.recv_timeout(longest) == Err(RecvTimeoutError::Timeout) {
                let at = Some(events_handled.load(Ordering::Relaxed));
                if at == before {
                    return stuck();
                }
                before = at;
            }
        });
        let result = run();
        drop(running);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalled_run_is_detected() {
        let (notice, noticed) = sync_channel(1);
        let stuck = move || notice.send(()).unwrap();
        let events_handled = AtomicU64::new(0);
        // The run continues only once the stall is detected.
        watch(&events_handled, Duration::from_millis(1), stuck, || noticed.recv().unwrap());
    }

    #[test]
    fn finished_run_is_not_reported() {
        let events_handled = AtomicU64::new(0);
        assert_eq!(watch(&events_handled, STALL_LIMIT, || unreachable!("it has ended"), || 7), 7);
    }
}
