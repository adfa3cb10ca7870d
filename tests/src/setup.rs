//! Starting a server process: the real binary, an address of its own, its output collected.

use std::ffi::OsStr;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::node::Node;
use crate::poll::until;
use crate::security::Keys;
use crate::transport;

/// The byte budget of a node that needs no other: enough for values of 8 MiB.
const MAX_BYTES: &str = "128MiB";

/// Names another server than the one that was built with these tests, such as that of a release.
const SERVER: &str = "ZEROCACHE_TEST_SERVER";

/// The bound on a process's collected output.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// The output of a process so far.
pub(crate) type Output = Arc<Mutex<Vec<u8>>>;

/// A node to be started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its region.
    pub region: String,
    /// The address on which it listens; port 0 for a free one. An unspecified address selects the
    /// machine's own, which is for namespaces only.
    pub listen: SocketAddr,
    /// Its byte budget.
    pub max_bytes: &'static str,
    /// Further flags.
    pub flags: Vec<String>,
    /// Variables of its process.
    pub variables: Vec<(String, String)>,
    /// The file that stands for the network namespace to start it in; none for that of the caller.
    pub namespace: Option<PathBuf>,
    /// Who may use it.
    pub access: Access,
}

/// Who may use a node.
#[derive(Clone, Debug)]
pub enum Access {
    /// Callers of its own host; what a node without configuration does.
    Protected,
    /// Everybody.
    Insecure,
    /// Holders of these keys.
    Secret(Keys),
    /// What the flags of the test say.
    Flags,
}

impl Setup {
    /// A node of `region` on an address of its own.
    #[must_use]
    pub fn new(region: &str) -> Self {
        let listen = SocketAddr::new(unique_address(), 0);
        let region = region.to_owned();
        let access = Keys::of_this_run().map_or(Access::Protected, Access::Secret);
        let (flags, variables) = (Vec::new(), Vec::new());
        Self { region, listen, max_bytes: MAX_BYTES, flags, variables, namespace: None, access }
    }

    /// In a network namespace of its own, where it serves everybody who reaches it, unless it has a secret.
    #[must_use]
    pub fn in_namespace(self, file: PathBuf) -> Self {
        Self { namespace: Some(file), ..self }.for_other_hosts()
    }

    /// Serves callers of other hosts too: everybody, unless it has a secret.
    #[must_use]
    pub fn for_other_hosts(mut self) -> Self {
        if matches!(self.access, Access::Protected) {
            self.access = Access::Insecure;
        }
        self
    }

    /// With other rules about who may use it.
    #[must_use]
    pub fn access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// With a flag and its value.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// With a variable of its process.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    /// Starts the node, which finds others by the seeds alone that its flags name, if any.
    ///
    /// # Panics
    ///
    /// If it does not report the address on which it listens.
    #[must_use]
    pub fn start(self) -> Node {
        let seeds = self.flags.iter().any(|flag| flag == "--seed");
        self.flag("--discovery", if seeds { "seeds" } else { "none" }).start_with_discovery()
    }

    /// Starts the node with the discovery that its flags name. mDNS is for namespaces only.
    ///
    /// # Panics
    ///
    /// If its flags name no discovery, or it does not report the address on which it listens.
    #[must_use]
    pub fn start_with_discovery(self) -> Node {
        let Self { region, listen, max_bytes, flags, variables, namespace, access } = self;
        let named = flags.iter().any(|flag| flag == "--discovery");
        assert!(named, "without --discovery a node speaks mDNS to the machine's network");
        let wanted = flags.iter().any(|flag| flag == "--connections");
        let connections = ["--connections", transport::flag(transport::connections())];
        let cluster = flags.iter().skip_while(|flag| *flag != "--cluster").nth(1).cloned();
        let (ip, port) = (listen.ip().to_string(), listen.port().to_string());
        let mut command = match &namespace {
            None => clean_command(server()),
            // It becomes the server: signals reach the right process.
            Some(file) => {
                let mut command = clean_command("nsenter");
                command.arg(format!("--net={}", file.display())).arg(server());
                command
            }
        };
        command
            .args(["--region", &region, "--port", &port])
            .args(["--address", &ip].iter().filter(|_| !listen.ip().is_unspecified()))
            .args(["--max-bytes", max_bytes])
            .args(connections.iter().filter(|_| !wanted))
            .args(flags)
            .envs(variables)
            .args(["--insecure"].iter().filter(|_| matches!(access, Access::Insecure)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let keys = match (access, cluster) {
            (Access::Secret(keys), Some(cluster)) => Some(keys.of_cluster(&cluster)),
            (Access::Secret(keys), None) => Some(keys),
            _ => None,
        };
        if let Some(keys) = &keys {
            command.env("ZEROCACHE_SECRET_FILE", keys.secret_file());
        }
        let mut child = command.spawn().expect("the server starts");
        let (out, log) = (collect(child.stdout.take()), collect(child.stderr.take()));
        let mut node = Node { child, region, address: listen, frozen: false, log, keys };
        node.address = until("the line that says where a node listens", || {
            assert!(node.is_running(), "the node ended while starting");
            let line = text(&out);
            let address = line.strip_prefix("zerocache-server listening on ")?;
            address.strip_suffix('\n')?.parse().ok()
        });
        node
    }
}

/// A loopback address that no other node of this process has; other test processes most probably
/// have others. Where only 127.0.0.1 exists the ports tell nodes apart.
#[must_use]
pub fn unique_address() -> IpAddr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    if !cfg!(target_os = "linux") {
        return Ipv4Addr::LOCALHOST.into();
    }
    let [.., high, low] = std::process::id().to_be_bytes();
    let last = LAST.fetch_add(1, Ordering::Relaxed) % 250 + 1;
    // The lower half of 127/8 is left to tests with fixed addresses.
    Ipv4Addr::new(127, 128 | high, low, last).into()
}

/// The server that was built with these tests, or the one that `ZEROCACHE_TEST_SERVER` names.
///
/// # Panics
///
/// If it was not built.
#[must_use]
pub fn server() -> PathBuf {
    if let Some(chosen) = std::env::var_os(SERVER) {
        return chosen.into();
    }
    program("zerocache-server")
}

/// A program that was built with these tests.
///
/// # Panics
///
/// If it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let program = std::env::current_exe().expect("the path of this test binary");
    // A test is target/PROFILE/deps/TEST, a program target/PROFILE/NAME.
    let beside = program.parent().expect("a folder");
    let built = if beside.ends_with("deps") { beside.parent() } else { Some(beside) };
    let program = built.expect("a folder").join(name);
    assert!(
        program.is_file(),
        "{} is missing: `cargo test --workspace` builds it, `cargo test -p zerocache-tests` alone \
         does not; run `cargo build -p zerocache-server -p zerocache-cli` first",
        program.display()
    );
    program
}

/// Reads a pipe to its end, so that the child never waits for us, and keeps the beginning.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Output {
    let output = Output::default();
    let kept = Arc::clone(&output);
    std::thread::spawn(move || {
        let mut room = [0; 4096];
        let mut pipe = pipe.expect("piped");
        while let Ok(count @ 1..) = pipe.read(&mut room) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let free = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
            kept.extend_from_slice(&room[..count.min(free)]);
        }
    });
    output
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

/// Returns a command that inherits none of the variables that nodes and clients read.
#[must_use]
pub(crate) fn clean_command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ZEROCACHE_") {
            command.env_remove(name);
        }
    }
    command
}
