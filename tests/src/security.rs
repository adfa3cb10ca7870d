//! Secrets and tokens for nodes and clients of tests, made by the `zerocache` tool as a user makes them.
//!
//! With `ZEROCACHE_TEST_SECRET=FILE` every node of a test run has the secret in that file, and every client a
//! token, unless a test chooses otherwise.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use crate::setup::{clean_command, program};

/// Names the file with the secret of all nodes of a test run.
const WITH_SECRET: &str = "ZEROCACHE_TEST_SECRET";

/// The name by which nodes are verified.
pub const NODE_NAME: &str = "node.zerocache.internal";

/// A secret in a file, and what a test needs to reach the nodes of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    inner: Arc<Inner>,
    /// A token of the cluster with the role *admin*.
    admin: Arc<str>,
}

struct Inner {
    secret: PathBuf,
    /// Of a secret that was made for one test.
    _directory: Option<TempDir>,
    tls: Arc<ClientConfig>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

impl Keys {
    /// Makes a new secret.
    ///
    /// # Panics
    ///
    /// If the tool fails.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("secret");
        write_private(&file, tool(&["secret"], None).as_bytes());
        Self::of_file(file, Some(directory))
    }

    fn of_file(secret: PathBuf, directory: Option<TempDir>) -> Self {
        let admin = token_of(&secret, &["--name", "tests", "--role", "admin"]).into();
        let tls = tls_config(&tool(&["cert", "ca"], Some(&secret)));
        Self { inner: Arc::new(Inner { secret, _directory: directory, tls }), admin }
    }

    /// Returns the same keys for the nodes of another cluster.
    ///
    /// # Panics
    ///
    /// If the tool fails.
    #[must_use]
    pub fn of_cluster(&self, cluster: &str) -> Self {
        let args = ["--name", "tests", "--role", "admin", "--cluster", cluster];
        self.with_token(self.token(&args))
    }

    /// Returns the same keys for a holder of `token`, in place of one with all rights.
    #[must_use]
    pub fn with_token(&self, token: String) -> Self {
        Self { admin: token.into(), ..self.clone() }
    }

    /// Returns the keys of this test run, if its nodes have a secret.
    #[must_use]
    pub fn of_this_run() -> Option<Self> {
        static KEYS: OnceLock<Option<Keys>> = OnceLock::new();
        let of_file = |file: std::ffi::OsString| Self::of_file(file.into(), None);
        KEYS.get_or_init(|| std::env::var_os(WITH_SECRET).map(of_file)).clone()
    }

    /// Returns the file with the secret.
    #[must_use]
    pub fn secret_file(&self) -> PathBuf {
        self.inner.secret.clone()
    }

    /// Returns the content of the file with the secret.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn secret(&self) -> String {
        std::fs::read_to_string(self.secret_file()).expect("a secret")
    }

    /// Makes a token that is valid for an hour, with these further arguments of `zerocache token create`.
    ///
    /// # Panics
    ///
    /// If the tool fails.
    #[must_use]
    pub fn token(&self, args: &[&str]) -> String {
        token_of(&self.secret_file(), args)
    }

    /// Returns a token with the role *admin*.
    #[must_use]
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Returns the header that presents `token`.
    #[must_use]
    pub fn bearer(token: &str) -> String {
        format!("Bearer {token}")
    }

    /// Returns a configuration that trusts the nodes with this secret, and presents nothing.
    #[must_use]
    pub fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.inner.tls)
    }

    /// Returns the CAs of the secrets in the file, as PEM.
    ///
    /// # Panics
    ///
    /// If the tool fails.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        tool(&["cert", "ca"], Some(&self.secret_file()))
    }
}

/// Writes a file that only its owner can read.
///
/// # Panics
///
/// If it cannot be written.
pub fn write_private(path: &Path, content: &[u8]) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content)).expect("written");
}

/// Makes a token with the secret in `file`.
///
/// # Panics
///
/// If the tool fails.
#[must_use]
pub fn token_of(file: &Path, args: &[&str]) -> String {
    let mut all = vec!["token", "create"];
    if !args.contains(&"--for") {
        all.extend(["--for", "1h"]);
    }
    all.extend(args);
    tool(&all, Some(file)).trim().to_owned()
}

/// Runs the `zerocache` tool and returns what it prints.
///
/// # Panics
///
/// If it fails.
#[must_use]
pub fn tool(args: &[&str], secret: Option<&Path>) -> String {
    let mut command = clean_command(program("zerocache"));
    command.args(args).stdin(Stdio::null());
    if let Some(file) = secret {
        command.env("ZEROCACHE_SECRET_FILE", file);
    }
    let output = command.output().expect("the tool starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "zerocache {}: {errors}", args.join(" "));
    String::from_utf8(output.stdout).expect("text")
}

/// A configuration of TLS that trusts the CAs in `pem`.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn tls_config(pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(ca.expect("a certificate")).expect("a CA");
    }
    assert!(!roots.is_empty(), "no CA in {pem}");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("TLS 1.3");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}
