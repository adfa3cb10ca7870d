//! The program: reads its configuration and runs one node. `zerocache-server` is nothing else, and
//! `zerocache server` the same within the tool.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::config::Invocation;
use crate::{RunError, logging, run};

/// Runs a node as `argv` (with the program's name first) and the environment of this process say, and returns
/// when it has ended: 0 after a shutdown, 2 with a wrong configuration, 1 otherwise. Errors are one line on
/// standard error.
#[must_use]
pub fn main(argv: Vec<OsString>) -> ExitCode {
    let invocation = match Invocation::with_environment(argv) {
        Ok(invocation) => invocation,
        Err(exit) => return exit.report(),
    };
    let config = &invocation.server;
    logging::init(&invocation.log, &config.region);
    tracing::info!(
        version = logging::VERSION,
        cluster = config.cluster,
        region = config.region,
        "node starts"
    );
    for warning in &invocation.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, ExitCode::FAILURE),
    };
    let result = runtime.block_on(run(invocation.server));
    // Does not wait for a lookup that hangs in the system's resolver.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(RunError::Config(error)) => {
            let flag = format!("--{}: {}", error.setting(), error.reason());
            fail(&flag, ExitCode::from(2))
        }
        Err(error) => {
            let is_usage_error = error.is_usage_error();
            fail(&error, if is_usage_error { ExitCode::from(2) } else { ExitCode::FAILURE })
        }
    }
}

fn fail(error: &dyn std::fmt::Display, code: ExitCode) -> ExitCode {
    // What a file contains may have line breaks.
    let line = error.to_string().replace(char::is_control, " ");
    eprintln!("error: {line}");
    code
}
