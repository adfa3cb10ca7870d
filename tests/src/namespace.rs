//! Tests that need a network of their own: real mDNS, fixed ports, a changed `/etc/hosts`.
//!
//! [`run`] starts the test again, alone, in a child process inside a new user, network and mount
//! namespace that has only the loopback interface, and runs the body there. No packet of the body
//! leaves the machine, and none from outside reaches it. No root is needed.
//!
//! Where the kernel or a sandbox does not permit that, the test reports that it is skipped. Under
//! `CI=true` it fails instead, so that a green run proves that it ran.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::poll::time_until;

/// Set in the child process, in which the body runs.
const INSIDE: &str = "ZEROCACHE_TEST_NAMESPACE";

/// Set in the child: the file that stands in for `/etc/hosts`.
const HOSTS: &str = "ZEROCACHE_TEST_HOSTS";

/// The longest that one test may take inside.
const TEST_MAX: Duration = Duration::from_secs(120);

/// Brings loopback up, binds the hosts file where one is given, and becomes the test.
const SETUP: &str = r#"set -e
ip link set lo up
if [ -n "$ZEROCACHE_TEST_HOSTS" ]; then mount --bind "$ZEROCACHE_TEST_HOSTS" /etc/hosts; fi
exec "$@""#;

/// A script that makes a second host: the namespace `/run/netns/far` with the address 10.1.0.2, joined by a
/// cable to the caller's, which has 10.1.0.1 on the interface `v4`. Multicast goes over the cable.
pub const SECOND_HOST: &str = "mount -t tmpfs tmpfs /run
ip netns add far
ip link add v4 type veth peer name eth0 netns far
ip address add 10.1.0.1/24 dev v4
ip link set v4 up
ip -n far address add 10.1.0.2/24 dev eth0
ip -n far link set lo up
ip -n far link set eth0 up
ip route add 224.0.0.0/4 dev v4
ip -n far route add 224.0.0.0/4 dev eth0";

/// A script that succeeds where namespaces can be linked.
const CABLES: &str = "mount -t tmpfs tmpfs /run
ip netns add n0
ip link add veth0 type veth peer name eth0 netns n0
nsenter --net=/run/netns/n0 true";

/// A script that succeeds where a network of namespaces can be made.
const ROUTE: &str = "mount -t tmpfs tmpfs /run
ip netns add n0
ip link add br0 type bridge
ip link add veth0 type veth peer name eth0 netns n0
echo 1 > /proc/sys/net/ipv4/ip_forward
nsenter --net=/run/netns/n0 nft add table ip faults
nft 'add table ip faults; add chain ip faults forward { type filter hook forward priority 0; }'";

/// Runs `body` inside a namespace, or reports that the test is skipped.
///
/// `test` is the full path of the calling test inside its test binary, such as `"finds_peers"`.
///
/// # Panics
///
/// If the body panics, takes longer than two minutes, or does not run because `test` names another
/// test; and if namespaces are missing under `CI=true`.
pub fn run(test: &str, body: impl FnOnce()) {
    run_with(test, None, body);
}

/// Does what [`run`] does, where also a [`Net`](crate::net::Net) can be made.
///
/// # Panics
///
/// As [`run`] does.
pub fn run_with_network(test: &str, body: impl FnOnce()) {
    run_where(&routable, test, body);
}

/// Does what [`run`] does, where also other namespaces can be joined to that one by cables.
///
/// # Panics
///
/// As [`run`] does.
pub fn run_with_links(test: &str, body: impl FnOnce()) {
    run_where(&|| succeeds(&["sh", "-ec", CABLES]), test, body);
}

fn run_where(possible: &dyn Fn() -> Result<(), String>, test: &str, body: impl FnOnce()) {
    match permitted().and_then(|()| possible()) {
        Err(why) if std::env::var_os(INSIDE).is_none() => {
            skip(test, &format!("networks of namespaces are not permitted here ({why})"));
        }
        _ => run(test, body),
    }
}

/// Does what [`run`] does, with `hosts` as the content of `/etc/hosts`; [`set_hosts`] changes it.
///
/// # Panics
///
/// As [`run`] does.
pub fn run_with_hosts(test: &str, hosts: &str, body: impl FnOnce()) {
    run_with(test, Some(hosts), body);
}

/// Starts this program again with its arguments inside a namespace and returns its exit code.
/// Returns none in that second process, which continues.
///
/// # Errors
/// The reason why namespaces are not permitted.
pub fn run_program() -> Result<Option<ExitCode>, String> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(None);
    }
    permitted()?;
    routable()?;
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let mut command = inside();
    command.arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    let status = command.status().map_err(|error| format!("unshare: {error}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(Some(code.map_or(ExitCode::FAILURE, ExitCode::from)))
}

/// Replaces the content of `/etc/hosts`, for the body of [`run_with_hosts`].
///
/// # Panics
///
/// If called elsewhere.
pub fn set_hosts(hosts: &str) {
    let file = std::env::var(HOSTS).expect("set_hosts is for the body of run_with_hosts");
    // Written in place: the mount is of this very file.
    std::fs::write(file, hosts).expect("the hosts file can be written");
}

/// Runs the lines of a shell script, for the body of a test here; the first that fails ends it.
///
/// # Panics
///
/// If one fails.
pub fn script(lines: &str) {
    crate::net::run_script(lines);
}

/// Reports on the terminal that `test` is skipped, and why. libtest does not capture the line.
///
/// # Panics
///
/// Under `CI=true`, where nothing may be skipped.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} must run under CI=true: {why}");
    // One write, so that tests that run beside this one do not come in between.
    let line = format!("\n{test}: skipped: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn run_with(test: &str, hosts: Option<&str>, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if let Err(why) = permitted() {
        return skip(test, &format!("network namespaces are not permitted here ({why})"));
    }
    let hosts = hosts.map(|content| {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(content.as_bytes()).expect("a temporary file can be written");
        file
    });
    let output = run_child(test, hosts.as_ref().map(tempfile::NamedTempFile::path));
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{stdout}");
    eprint!("{stderr}");
    assert!(output.status.success(), "{test} failed inside its namespace: {}", output.status);
    assert!(stdout.contains("test result: ok. 1 passed"), "no test is called {test}");
}

/// Tells once per process whether namespaces can be made.
fn permitted() -> Result<(), String> {
    static PERMITTED: OnceLock<Result<(), String>> = OnceLock::new();
    PERMITTED.get_or_init(|| succeeds(&["true"])).clone()
}

/// Tells once per process whether namespaces can be joined by bridges, with rules for packets.
fn routable() -> Result<(), String> {
    static ROUTABLE: OnceLock<Result<(), String>> = OnceLock::new();
    ROUTABLE.get_or_init(|| succeeds(&["sh", "-ec", ROUTE])).clone()
}

/// Runs a command inside a namespace; the error is its first line of output.
fn succeeds(command: &[&str]) -> Result<(), String> {
    let output = inside().args(command).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("unshare: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().next().unwrap_or("unshare failed").to_owned())
}

/// A command that makes the namespaces and then runs what is added as arguments.
fn inside() -> Command {
    let mut command = Command::new("unshare");
    command.args(["-Urnm", "--", "sh", "-c", SETUP, "sh"]).env_remove(HOSTS);
    command
}

fn run_child(test: &str, hosts: Option<&Path>) -> Output {
    let mut command = inside();
    command
        .arg(std::env::current_exe().expect("the path of this test binary"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // One process group, so that leftovers of a failing body are killed with it.
        .process_group(0);
    if let Some(hosts) = hosts {
        command.env(HOSTS, hosts);
    }
    let mut child = command.spawn().expect("unshare starts");
    let group = Pid::from_child(&child);
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait(&mut child);
    let _ = kill_process_group(group, Signal::KILL);
    let status = match status {
        Some(status) => status,
        None => {
            eprintln!("{test}: ended after {TEST_MAX:?}");
            child.wait().expect("the child can be waited for")
        }
    };
    let joined = |reader: std::thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Output { status, stdout: joined(stdout), stderr: joined(stderr) }
}

/// Waits up to [`TEST_MAX`].
fn wait(child: &mut Child) -> Option<std::process::ExitStatus> {
    let mut status = None;
    let _after = time_until(TEST_MAX, || {
        status = child.try_wait().expect("the child can be waited for");
        status.is_some()
    });
    status
}

/// Reads a pipe to its end, so that the child never waits for us.
fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
