//! Roles of this program as its own child process: launch a server, or be one.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use rustix::process::getppid;
use zerocache_server::config::Invocation;

use crate::contenders::raw_tcp;
use crate::platform::end_with_parent;

/// `launch PARENT PROGRAM ARGS…`: becomes the program, and ends with the parent.
pub const LAUNCH: &str = "launch";
/// `serve ARGS…`: a node, as the binary `zerocache-server` with the same flags.
pub const SERVE: &str = "serve";
/// `raw-server VALUE_BYTES`: the server of the raw TCP contender.
pub const RAW_SERVER: &str = "raw-server";

/// Plays the role that the first argument names, if it is one of these.
pub fn run() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let role = args.next()?;
    let rest: Vec<OsString> = args.collect();
    let done = match role.to_str()? {
        LAUNCH => launch(&rest),
        SERVE => return Some(serve(rest)),
        RAW_SERVER => raw_tcp::serve(&rest),
        _ => return None,
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn launch(args: &[OsString]) -> Result<()> {
    let [parent, program, args @ ..] = args else { bail!("launch PARENT PROGRAM ARGS") };
    end_with_parent()?;
    // The parent may have ended before the kernel knew what to do then.
    let alive = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if alive.as_deref() != parent.to_str() {
        bail!("the parent has ended");
    }
    let error = Command::new(program).args(args).exec();
    Err(error).with_context(|| format!("start {}", program.display()))
}

fn serve(args: Vec<OsString>) -> ExitCode {
    let argv = std::iter::once(SERVE.into()).chain(args).collect();
    let invocation = match Invocation::parse(argv, |_| None) {
        Ok(invocation) => invocation,
        Err(stop) => return stop.report(),
    };
    zerocache_server::logging::init(&invocation.log, &invocation.server.region);
    let run = || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(runtime.block_on(zerocache_server::run(invocation.server))?)
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
