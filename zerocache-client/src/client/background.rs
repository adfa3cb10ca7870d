//! The runtime on which all clients of a process do their I/O and keep their time.
//!
//! It is the clients' own, so that operations work under any executor and in blocking code: a
//! caller that blocks its own runtime does not stop the I/O that it waits for.

use std::{io, sync::OnceLock};

use tokio::runtime::{Builder, Handle, Runtime};

static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();

/// The background runtime, started at the first call.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn handle() -> io::Result<Handle> {
    let started = RUNTIME.get_or_init(|| {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("zerocache-client")
            .enable_all()
            .build();
        runtime.map_err(|error| error.to_string())
    });
    match started {
        Ok(runtime) => Ok(runtime.handle().clone()),
        Err(error) => Err(io::Error::other(error.clone())),
    }
}
