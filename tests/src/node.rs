//! One real server process.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

use crate::http::{self, Answer};
use crate::poll::{until, until_true};
use crate::security::Keys;
use crate::setup::{Output, text};

/// The number of a node's log lines that a failed test shows.
const LOG_LINES_SHOWN: usize = 40;

/// A running server process; killed when dropped, and its log shown if the test fails.
#[derive(Debug)]
pub struct Node {
    pub(crate) child: Child,
    pub(crate) region: String,
    pub(crate) address: SocketAddr,
    pub(crate) frozen: bool,
    pub(crate) log: Output,
    pub(crate) keys: Option<Keys>,
}

impl Node {
    /// Returns the address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its region.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Returns its log.
    #[must_use]
    pub fn log(&self) -> String {
        text(&self.log)
    }

    /// Returns whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// The memory that the process uses, in bytes; none where the system does not tell.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<u64> {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    }

    /// Stops the process where it is; its sockets stay open.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
        self.frozen = true;
        let stat = format!("/proc/{}/stat", self.child.id());
        if Path::new(&stat).exists() {
            // The signal takes effect when each thread next looks.
            until_true("a stopped process", || {
                let stat = std::fs::read_to_string(&stat).unwrap_or_default();
                stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
            });
        }
    }

    /// Resumes a frozen process, and waits until it answers. For a moment it refuses requests that
    /// were queued during a long freeze.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.frozen = false;
        until_true("an answer after the resume", || {
            self.try_http("GET", "/v1/cluster", b"").is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Returns whether it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Ends the process at once, as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Has the process end at once, as [`kill`](Self::kill) does, and waits for nothing.
    pub fn abort(&self) {
        self.signal(Signal::KILL);
    }

    /// Asks the process to shut down.
    pub fn shut_down(&self) {
        self.signal(Signal::TERM);
    }

    /// Makes the process read its files again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Waits for the end of the process.
    pub fn ended(&mut self) -> ExitStatus {
        until("the end of a node", || self.child.try_wait().expect("a child"))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("signalled");
    }

    /// One request without a query or further headers.
    ///
    /// # Panics
    ///
    /// If there is no answer.
    #[must_use]
    pub fn http(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        self.try_http(method, target, body)
            .unwrap_or_else(|error| panic!("{method} {target} at {}: {error}", self.address))
    }

    /// One request without a query or further headers, with all rights.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn try_http(&self, method: &str, target: &str, body: &[u8]) -> io::Result<Answer> {
        http::send_with(self.address, self.keys.as_ref(), method, target, &[], body)
    }

    /// Reads a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Answer {
        self.http("GET", &entry(key), b"")
    }

    /// The value of a key, if the node has one.
    #[must_use]
    pub fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        let answer = self.get(key);
        match answer.status {
            200 => Some(answer.body),
            404 => None,
            other => panic!("GET answers {other}: {}", answer.json()),
        }
    }

    /// Writes a key; `query` such as `"ttl=60&ack=all"`. Returns the answer's JSON.
    ///
    /// # Panics
    ///
    /// If it does not answer 200.
    pub fn put(&self, key: &[u8], value: &[u8], query: &str) -> Json {
        self.write("PUT", &format!("{}?{query}", entry(key)), value)
    }

    /// Deletes a key. Returns the answer's JSON.
    ///
    /// # Panics
    ///
    /// If it does not answer 200.
    pub fn delete(&self, key: &[u8], query: &str) -> Json {
        self.write("DELETE", &format!("{}?{query}", entry(key)), b"")
    }

    /// Sends a write, again while the node asks to try again: as one does that has just started.
    fn write(&self, method: &str, target: &str, body: &[u8]) -> Json {
        let accepted = || Some(self.http(method, target, body)).filter(|one| one.status != 503);
        let answer = until("a node that takes writes", accepted);
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.json()
    }

    /// A number of `/v1/stats`.
    ///
    /// # Panics
    ///
    /// If there is no such number.
    #[must_use]
    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.http("GET", "/v1/stats", b"").json();
        stats[name].as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"))
    }

    /// Returns whether `/readyz` answers 200.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.http("GET", "/readyz", b"").status == 200
    }

    /// The nodes of `/v1/cluster`, this one first, each with its address and its state.
    #[must_use]
    pub fn cluster(&self) -> Vec<(SocketAddr, String)> {
        members_of(&self.http("GET", "/v1/cluster", b"").json())
    }

    /// The nodes of `/v1/cluster` that this one cannot reach, in the order of their addresses. None
    /// when it does not answer.
    #[must_use]
    pub fn unreachable(&self) -> Option<Vec<SocketAddr>> {
        let answer = self.try_http("GET", "/v1/cluster", b"").ok()?;
        let out =
            members_of(&answer.json()).into_iter().filter(|(_, state)| state == "unreachable");
        let mut out: Vec<_> = out.map(|(address, _)| address).collect();
        out.sort_unstable();
        Some(out)
    }

    /// Returns the incarnations of the nodes of `/v1/cluster`, this node's first.
    #[must_use]
    pub fn incarnations(&self) -> Vec<String> {
        let view = self.http("GET", "/v1/cluster", b"").json();
        let nodes = view["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter_map(|node| Some(node["id"].as_str()?.to_owned())).collect()
    }

    /// The nodes that this one knows and can reach, itself included.
    #[must_use]
    pub fn reaches(&self) -> usize {
        self.cluster().iter().filter(|(_, state)| state != "unreachable").count()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = text(&self.log);
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- {} at {}:\n{}", self.region, self.address, last.join("\n"));
        }
    }
}

/// The addresses and states of the nodes of an answer of `/v1/cluster`.
fn members_of(view: &Json) -> Vec<(SocketAddr, String)> {
    let nodes = view["nodes"].as_array().cloned().unwrap_or_default();
    let place = |node: &Json| {
        let ip: IpAddr = node["address"].as_str()?.parse().ok()?;
        let port = u16::try_from(node["port"].as_u64()?).ok()?;
        Some((SocketAddr::new(ip, port), node["state"].as_str()?.to_owned()))
    };
    nodes.iter().filter_map(place).collect()
}

/// The path of an entry.
#[must_use]
pub fn entry(key: &[u8]) -> String {
    format!("/v1/entries/{}", http::escaped(key))
}
