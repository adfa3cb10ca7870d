//! The binary `zerocache-server`: reads its configuration and runs one node.

use std::process::ExitCode;

use zerocache_server::config::Invocation;
use zerocache_server::{logging, run};

fn main() -> ExitCode {
    let invocation = match Invocation::from_process() {
        Ok(invocation) => invocation,
        Err(stop) => return stop.report(),
    };
    logging::init(&invocation.log);
    for notice in &invocation.notices {
        tracing::warn!("{notice}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let result = runtime.block_on(run(invocation.server));
    // A look-up that hangs in the system's resolver is not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
