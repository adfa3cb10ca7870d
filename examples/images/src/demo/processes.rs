//! Child processes: their start, their readiness line, their end.
//!
//! The standard input of a child is a pipe whose other end only this process holds. When this process ends, for
//! whatever reason, so does the child.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::run::LISTENING;

/// The longest time until a child serves.
const START_MAX: Duration = Duration::from_secs(30);

/// A running child; killed and waited for when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Process {
    /// Starts this program again, and waits until it serves.
    pub(super) async fn start(
        program: &Path,
        args: &[String],
        variables: &[(&str, String)],
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        // What is set for other programs does not change a demonstration.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("ZEROCACHE_") || name.starts_with("IMAGES_") {
                command.env_remove(&*name);
            }
        }
        command.env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "off".to_owned()));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn()?;
        let out = child.stdout.take().context("a child has an output")?;
        let mut process = Self { child, address: ([0, 0, 0, 0], 0).into() };
        let first_line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(START_MAX, first_line)
            .await
            .context("a child does not serve")???;
        let address = line.trim().strip_prefix(LISTENING);
        process.address =
            address.with_context(|| format!("a child ended early: {args:?}"))?.parse()?;
        Ok(process)
    }

    /// Ends the process at once, as `kill -9` does.
    pub(super) fn kill(&mut self) {
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
    }

    /// Freezes the process, or resumes it.
    pub(super) fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ends this process when its standard input ends. On a thread of its own, so that no busy runtime delays it.
///
/// # Errors
/// If no thread can be started.
pub fn end_with_parent() -> std::io::Result<()> {
    let watch = || {
        let mut input = std::io::stdin().lock();
        while matches!(input.read(&mut [0; 64]), Ok(read) if read > 0) {}
        std::process::exit(0);
    };
    std::thread::Builder::new().name("parent".into()).spawn(watch).map(drop)
}
