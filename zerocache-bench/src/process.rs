//! Child processes that end with this one, however it ends.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tempfile::TempDir;

use crate::child_roles;

/// The time limit for a server to become ready.
pub const START_MAX: Duration = Duration::from_secs(10);
/// The number of a server's log lines that a failed start shows.
const LOG_LINES_SHOWN: usize = 10;

/// A running child. Killed by its id and waited for when dropped.
pub struct Process {
    child: Child,
    directory: TempDir,
}

impl Process {
    /// Starts `program` through our own launcher, so that the kernel kills it when this process
    /// ends without a chance to clean up. It has `threads` workers if it is written with tokio.
    ///
    /// To be called on the main thread alone: the kernel takes the end of the starting thread for
    /// the end of the parent.
    pub fn start<A: AsRef<OsStr>>(
        program: &OsStr,
        args: impl IntoIterator<Item = A>,
        threads: usize,
    ) -> Result<Self> {
        Self::start_with(program, args, threads, Stdio::null(), None)
    }

    /// As [`start`](Self::start), for a child that inherits this process's output.
    pub fn start_inheriting_output<A: AsRef<OsStr>>(
        program: &OsStr,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        Self::start_with(program, args, 1, Stdio::inherit(), Some(Stdio::inherit()))
    }

    fn start_with<A: AsRef<OsStr>>(
        program: &OsStr,
        args: impl IntoIterator<Item = A>,
        threads: usize,
        stdout: Stdio,
        stderr: Option<Stdio>,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("zerocache-bench-").tempdir()?;
        let log = directory.path().join("log");
        let mut command = Command::new(own_executable()?);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("ZEROCACHE_") {
                command.env_remove(name);
            }
        }
        command
            .arg(child_roles::LAUNCH)
            .arg(std::process::id().to_string())
            .arg(program)
            .args(args)
            .env("TOKIO_WORKER_THREADS", threads.to_string())
            .stdin(Stdio::null())
            .stdout(stdout);
        // Files of a server go with the directory; our own child needs our working directory for
        // its paths.
        if stderr.is_none() {
            command.current_dir(directory.path());
        } else {
            // A child of ours that is killed cannot tidy up.
            command.env("TMPDIR", directory.path());
        }
        let stderr = stderr.map_or_else(|| File::create(log).map(Stdio::from), Ok)?;
        command.stderr(stderr);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        Ok(Self { child, directory })
    }

    /// Starts a server and waits for the line that reports its address.
    pub fn start_and_read_address<A: AsRef<OsStr>>(
        program: &OsStr,
        args: impl IntoIterator<Item = A>,
        threads: usize,
        prefix: &'static str,
    ) -> Result<(Self, SocketAddr)> {
        let mut process = Self::start_with(program, args, threads, Stdio::piped(), None)?;
        let out = process.child.stdout.take().context("a pipe")?;
        let (sender, lines) = mpsc::sync_channel(1);
        // Reads on to the end, so that the server never waits for us.
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix(prefix) {
                    let _nobody_waits_any_more = sender.try_send(address.to_owned());
                }
            }
        });
        let Ok(address) = lines.recv_timeout(START_MAX) else {
            bail!("{} does not say where it listens\n{}", program.display(), process.log());
        };
        let address = address.trim().parse().with_context(|| format!("the address {address}"))?;
        Ok((process, address))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether it has ended, and with success.
    pub fn ended(&mut self) -> Result<Option<bool>> {
        Ok(self.child.try_wait()?.map(|status| status.success()))
    }

    /// The end of what it wrote to standard error.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This program, to be started once more.
pub fn own_executable() -> Result<PathBuf> {
    env::current_exe().context("the path of this program")
}

/// The path of a program that the system has installed.
pub fn installed(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// A port of the loopback address that is free at this moment.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Starts a server that needs its port as an option; tries another port if another process takes it
/// first.
pub async fn start_on_free_port(
    name: &str,
    start: impl Fn(u16) -> Result<Process>,
) -> Result<(Process, SocketAddr)> {
    let mut failed = anyhow!("{name} was not started");
    for _ in 0..3 {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut process = start(port)?;
        match accepts(&mut process, address).await {
            Ok(()) => return Ok((process, address)),
            Err(error) => failed = error.context(format!("{name}: {}", process.log())),
        }
    }
    Err(failed)
}

/// Waits until a process takes connections.
async fn accepts(process: &mut Process, address: SocketAddr) -> Result<()> {
    let connected = async {
        loop {
            if process.ended()?.is_some() {
                bail!("it ended at once");
            }
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(START_MAX, connected).await.context("it takes no connections")?
}
