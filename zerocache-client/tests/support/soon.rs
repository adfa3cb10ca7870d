//! Waiting for what threads of a cluster do behind a call: a moment of real time, also in paused time.

use std::time::Duration;

/// Repeats `attempt` until it returns true.
///
/// # Panics
/// If it does not within 20 s.
pub async fn soon(mut attempt: impl AsyncFnMut() -> bool) {
    for _ in 0..20_000 {
        if attempt().await {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no end within 20 s");
}
