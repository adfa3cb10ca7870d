//! The options that every command takes: where the cluster is, and who asks.

use std::{path::PathBuf, time::Duration};

use zerocache_net::{discovery::HostPort, security::TlsMode, units::parse_duration};

use super::{parse_name, parse_region};

/// The heading of these options in the help.
const HEADING: &str = "Options of all commands (without one, the variable in brackets)";

/// Where the cluster is, and who asks.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(crate) struct Global {
    /// Print one JSON object, with the exit code in it as "exit"
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print nothing but the result
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,

    /// Ask this node only, as HOST:PORT
    #[arg(long, value_name = "ADDR", global = true)]
    pub(crate) node: Option<HostPort>,

    /// How long an answer may take, such as 500ms or 5s
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_timeout, global = true)]
    pub(crate) timeout: Duration,

    /// Cluster (ZEROCACHE_CLUSTER)
    #[arg(long, value_name = "NAME", value_parser = parse_name, global = true)]
    pub(crate) cluster: Option<String>,

    /// Region in which the client stands [ZEROCACHE_REGION; or that of the first node that answers]
    #[arg(long, value_name = "NAME", value_parser = parse_region, global = true)]
    pub(crate) region: Option<String>,

    /// Node to ask first, as HOST:PORT; repeatable (ZEROCACHE_SEED)
    #[arg(long, value_name = "ADDR", global = true)]
    pub(crate) seed: Vec<HostPort>,

    /// DNS name of many nodes, as NAME:PORT; repeatable (ZEROCACHE_DNS)
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) dns: Vec<HostPort>,

    /// Ways to find nodes, of mdns, dns and seeds, with commas (ZEROCACHE_DISCOVERY)
    #[arg(long, value_name = "WAYS", global = true)]
    pub(crate) discovery: Option<String>,

    /// File with the token to present [ZEROCACHE_TOKEN_FILE or ZEROCACHE_TOKEN]
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) token_file: Option<PathBuf>,

    /// File with the secrets, one a line [ZEROCACHE_SECRET_FILE; or ZEROCACHE_SECRET with one secret]
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) secret_file: Option<PathBuf>,

    /// Whether connections are encrypted: off, optional or required (ZEROCACHE_TLS)
    #[arg(long, value_name = "MODE", global = true)]
    pub(crate) tls: Option<TlsMode>,

    /// File with the CAs of the nodes (ZEROCACHE_TLS_CA)
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) tls_ca: Option<PathBuf>,

    /// File with the certificate to present (ZEROCACHE_TLS_CERT)
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) tls_cert: Option<PathBuf>,

    /// File with the key of --tls-cert (ZEROCACHE_TLS_KEY)
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) tls_key: Option<PathBuf>,

    /// Name that certificates of nodes must have (ZEROCACHE_TLS_SERVER_NAME)
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) tls_server_name: Option<String>,
}

impl Global {
    /// Returns the value of a variable that clients read, as an option states it or else the environment.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let list = |list: &[HostPort]| {
            let list: Vec<_> = list.iter().map(ToString::to_string).collect();
            (!list.is_empty()).then(|| list.join(","))
        };
        let option = match name {
            "ZEROCACHE_CLUSTER" => self.cluster.clone(),
            "ZEROCACHE_REGION" => self.region.clone(),
            "ZEROCACHE_SEED" => list(&self.seed),
            "ZEROCACHE_DNS" => list(&self.dns),
            "ZEROCACHE_DISCOVERY" => self.discovery.clone(),
            "ZEROCACHE_TOKEN_FILE" => path(&self.token_file),
            "ZEROCACHE_TOKEN" if self.token_file.is_some() => return None,
            "ZEROCACHE_SECRET_FILE" => path(&self.secret_file),
            "ZEROCACHE_SECRET" if self.secret_file.is_some() => return None,
            "ZEROCACHE_TLS" => self.tls.map(|mode| mode.to_string()),
            "ZEROCACHE_TLS_CA" => path(&self.tls_ca),
            "ZEROCACHE_TLS_CERT" => path(&self.tls_cert),
            "ZEROCACHE_TLS_KEY" => path(&self.tls_key),
            "ZEROCACHE_TLS_SERVER_NAME" => self.tls_server_name.clone(),
            // The tool is there to talk to nodes.
            "ZEROCACHE_OFFLINE" => return None,
            _ => None,
        };
        option.or_else(|| {
            let variable = std::env::var_os(name).filter(|value| !value.is_empty());
            variable.map(|value| value.to_string_lossy().into_owned())
        })
    }
}

pub(super) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    let is_allowed = (1..=3_600_000).contains(&timeout.as_millis());
    is_allowed.then_some(timeout).ok_or_else(|| format!("{text:?}: 1ms to 1h are allowed"))
}
