//! Child processes of this program: their start, their readiness line, their end.
//!
//! Each child's standard input is a pipe whose other end only the parent holds. When the parent
//! ends, for whatever reason, the pipe ends and the child exits: no process is left behind.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// The text that a child prints before its address once it serves.
const LISTENING: &str = "listening on ";

/// The longest time until a child serves.
const START_MAX: Duration = Duration::from_secs(30);

/// A running child; killed and waited for when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The region of the child.
    pub region: &'static str,
    /// The address on which the child listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts this program again with other arguments, and waits until it serves.
    ///
    /// # Errors
    /// If the child does not start or does not serve in time.
    pub async fn start<A: AsRef<OsStr>>(
        program: &Path,
        region: &'static str,
        args: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("a child has an output")?;
        // The child is killed if anything fails from here on.
        let mut process = Self { child, region, address: ([0, 0, 0, 0], 0).into() };
        let first_line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(START_MAX, first_line).await;
        let line = line.context("a child does not serve")???;
        let address = line.trim().strip_prefix(LISTENING).context("a child ended early")?;
        process.address = address.parse()?;
        Ok(process)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once, as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// If the process cannot be killed.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.kill();
    }
}

/// Prints on standard output that this process serves.
///
/// # Errors
/// If standard output is closed.
pub fn say_listening(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{LISTENING}{address}")?;
    out.flush()
}

/// Ends this process when its standard input ends. Runs on its own thread, so that no busy runtime
/// delays it.
///
/// # Errors
/// If no thread can be started.
pub fn end_with_parent() -> io::Result<()> {
    let watch = || {
        let mut input = io::stdin().lock();
        let mut unused = [0; 64];
        while matches!(input.read(&mut unused), Ok(read) if read > 0) {}
        std::process::exit(0);
    };
    thread::Builder::new().name("parent".into()).spawn(watch).map(drop)
}

/// 127.0.0.`n` where that can be used, else 127.0.0.1: nodes then differ by their ports alone.
#[must_use]
pub fn loopback_address(n: u8) -> IpAddr {
    let own = IpAddr::V4(Ipv4Addr::new(127, 0, 0, n));
    let usable = TcpListener::bind((own, 0)).is_ok();
    if usable { own } else { IpAddr::V4(Ipv4Addr::LOCALHOST) }
}
