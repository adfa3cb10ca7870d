//! The runtimes of the clients of a process: one on which all do their I/O and keep their time, and one for
//! functions that nobody waits for.
//!
//! They are the clients' own, so that operations work under any executor and in blocking code: a
//! caller that blocks its own runtime does not stop the I/O that it waits for.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use zerocache_net::process::PerProcess;

/// Threads for functions that nobody waits for. They are to wait for others, not to calculate.
const FUNCTION_THREADS: usize = 2;

/// The threads of a runtime do not live on in a forked process, which so has runtimes of its own.
type Started = PerProcess<Result<Runtime, String>>;

/// The background runtime, started at the first call.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn handle() -> io::Result<Handle> {
    static RUNTIME: Started = PerProcess::new();
    #[cfg(feature = "testing")]
    if let Some(handle) = crate::testing::runtime() {
        return Ok(handle);
    }
    start(&RUNTIME, "zerocache-client", 1)
}

/// The runtime for functions that nobody waits for, started at the first call. They are the user's: on the
/// one above one that does not yield would stop all I/O.
///
/// # Errors
/// When the system refuses a thread.
pub(crate) fn function_runtime() -> io::Result<Handle> {
    static RUNTIME: Started = PerProcess::new();
    #[cfg(feature = "testing")]
    if let Some(handle) = crate::testing::runtime() {
        return Ok(handle);
    }
    start(&RUNTIME, "zerocache-function", FUNCTION_THREADS)
}

fn start(runtime: &Started, name: &str, threads: usize) -> io::Result<Handle> {
    let started = runtime.get_or_init(|_| {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build();
        runtime.map_err(|error| error.to_string())
    });
    match started {
        Ok(runtime) => Ok(runtime.handle().clone()),
        Err(error) => Err(io::Error::other(error.clone())),
    }
}
