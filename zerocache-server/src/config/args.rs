//! The flags. The names of their variables are derived in [`super::invocation`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use zerocache_core::{
    cluster::{REPLICAS_MAX, Replicas},
    store::EvictionPolicy,
};
use zerocache_net::{
    discovery::{HostPort, Interface},
    security::TlsMode,
    transport::Connections,
    units::{parse_count, parse_duration, parse_size},
};

use super::address::parse_port;
use super::disk::DiskAdmission;
use super::values::{Compat, LogFilter, LogFormat, PageMode};
use crate::hot_keys::HotKeyMode;

const IDENTITY: &str = "Identity";
const NETWORK: &str = "Network";
const SECURITY: &str = "Security";
const DISCOVERY: &str = "Discovery";
const LIMITS: &str = "Limits";
const DISK: &str = "Disk";
const LIFECYCLE: &str = "Lifecycle";
const LOGS: &str = "Logging (to standard error)";

const EXAMPLES: &str = "\
Every flag has an environment variable, shown in brackets. A flag overrides its variable. Lists are
separated by commas.

Examples:
  A node that discovers the others on this network:
    zerocache-server --region london

  Two regions on one machine:
    zerocache-server --region london --address 127.0.0.2 --max-bytes 256MiB
    zerocache-server --region sydney --address 127.0.0.3 --max-bytes 256MiB --seed 127.0.0.2:6789

  In Kubernetes, behind a headless Service:
    zerocache-server --region eu --discovery dns --dns zerocache-nodes:6789

  Then, from any host:
    curl -X PUT --data-binary hello 'http://127.0.0.2:6789/v1/entries/greeting?ttl=60'
    curl http://127.0.0.2:6789/v1/entries/greeting";

/// A zerocache node: stores entries with a TTL and replicates them to all regions.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "zerocache-server", version, after_help = EXAMPLES, max_term_width = 100, next_line_help = true)]
pub struct Args {
    /// Region of this node (required); any name but v1
    #[arg(long, value_name = "NAME", help_heading = IDENTITY)]
    pub region: Option<String>,

    /// Cluster of this node; nodes of other clusters are refused [default: zerocache]
    #[arg(long, value_name = "NAME", help_heading = IDENTITY)]
    pub cluster: Option<String>,

    /// Zone of this node inside its region, such as a data centre or a rack
    #[arg(long, value_name = "NAME", help_heading = IDENTITY)]
    pub zone: Option<String>,

    /// Name under which this node comes back after a restart, with the same keys where --replicas
    /// is a number [default: the announced address and port]
    #[arg(long, value_name = "NAME", help_heading = IDENTITY)]
    pub node_name: Option<String>,

    /// Nodes of this region that keep a value: all, or 1 to 8, so that capacity grows with the
    /// nodes; the largest number counts that a node of the region states [default: all]
    #[arg(long, value_name = "COUNT", help_heading = LIMITS, value_parser = replicas)]
    pub replicas: Option<Replicas>,

    /// Address to announce to other nodes and to clients; repeatable [default: the address of the
    /// default route]
    #[arg(long, value_name = "IP", help_heading = NETWORK, value_delimiter = ',', value_parser = ip)]
    pub address: Vec<IpAddr>,

    /// Port to announce and to listen on; 0 picks a free one and prints it [default: 6789]
    #[arg(long, value_name = "PORT", help_heading = NETWORK, value_parser = port)]
    pub port: Option<u16>,

    /// Address and port to listen on [default: the port on all interfaces, or on --address
    /// alone if that is one loopback address]
    #[arg(long, value_name = "IP:PORT", help_heading = NETWORK, value_parser = listen)]
    pub listen: Option<SocketAddr>,

    /// Discovery methods: mdns, dns, seeds, or none [default: mdns, and those configured below]
    #[arg(long, value_name = "METHODS", help_heading = DISCOVERY, value_delimiter = ',')]
    pub discovery: Vec<String>,

    /// Node to connect to at the start; repeatable. One is enough: it names the others
    #[arg(long, value_name = "HOST:PORT", help_heading = DISCOVERY, value_delimiter = ',')]
    pub seed: Vec<HostPort>,

    /// DNS name whose A and AAAA records are the nodes, resolved every few seconds; repeatable
    #[arg(long, value_name = "NAME:PORT", help_heading = DISCOVERY, value_delimiter = ',')]
    pub dns: Vec<HostPort>,

    /// Network interface for mDNS: a name such as lo or eth0, or its IP address [default: all]
    #[arg(long, value_name = "INTERFACE", help_heading = DISCOVERY)]
    pub mdns_interface: Option<Interface>,

    /// Memory for entries and tombstones: bytes, or 512MiB, 2g [default: half of the memory limit of
    /// the cgroup or the machine]
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, value_parser = parse_size)]
    pub max_bytes: Option<u64>,

    /// Maximum number of entries [default: limited by --max-bytes alone]
    #[arg(long, value_name = "COUNT", help_heading = LIMITS, value_parser = parse_count)]
    pub max_entries: Option<usize>,

    /// Order in which entries are evicted that have not expired: scan-resistant, or lru (exactly by last access
    /// on this node) [default: scan-resistant]
    #[arg(long, value_name = "ORDER", help_heading = LIMITS)]
    pub eviction: Option<EvictionPolicy>,

    /// Maximum key size, up to 16KiB [default: 1KiB]
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, value_parser = parse_size)]
    pub max_key_bytes: Option<u64>,

    /// Maximum value size, up to 1/16 of --max-bytes [default: 8MiB, or that sixteenth if it is less]
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, value_parser = parse_size)]
    pub max_value_bytes: Option<u64>,

    /// Maximum number of open connections; lowered if the limit of open files requires it [default: 16384]
    #[arg(long, value_name = "COUNT", help_heading = LIMITS, value_parser = parse_count)]
    pub max_connections: Option<usize>,

    /// Time to keep serving after SIGTERM, SIGINT or SIGQUIT: seconds, or 500ms [default: 2s]
    #[arg(long, value_name = "TIME", help_heading = LIFECYCLE, value_parser = parse_duration)]
    pub drain: Option<Duration>,

    /// Maximum warming time: after it the node is ready although peers have not answered or entries are
    /// still to be copied; copying continues [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = LIFECYCLE, value_parser = parse_duration)]
    pub warm_max: Option<Duration>,

    /// Snapshot file: written when the node shuts down, loaded at the start if no other node has entries
    #[arg(long, value_name = "PATH", help_heading = LIFECYCLE)]
    pub snapshot: Option<PathBuf>,

    /// Directory for values that memory evicts; they are found there, and again after a restart. It belongs to one
    /// node, and needs --disk-bytes
    #[arg(long, value_name = "PATH", help_heading = DISK)]
    pub disk: Option<PathBuf>,

    /// Size of that directory: bytes, or 500GiB
    #[arg(long, value_name = "SIZE", help_heading = DISK, value_parser = parse_size)]
    pub disk_bytes: Option<u64>,

    /// Smallest value that goes to disk: memory keeps about 110 bytes of each, and the key [default: 2KiB]
    #[arg(long, value_name = "SIZE", help_heading = DISK, value_parser = parse_size)]
    pub disk_min_value: Option<u64>,

    /// Values that go to disk when they are evicted: read (at least once), or all [default: read]
    #[arg(long, value_name = "WHICH", help_heading = DISK)]
    pub disk_admit: Option<DiskAdmission>,

    /// Connections to other nodes and from callers: framed (HTTP where the upgrade is refused), or http
    /// alone [default: framed]
    #[arg(long, value_name = "KIND", help_heading = NETWORK)]
    pub connections: Option<Connections>,

    /// Compatibility: also serve the HTTP paths and announce the mDNS type of zerocache-py, the Python
    /// package zerocache
    #[arg(long, value_name = "PRODUCT", help_heading = LIFECYCLE)]
    pub compat: Option<Compat>,

    /// Address and port of a further listener for the paths of --compat alone, without TLS and for callers
    /// of this host [default: they are served on the port]
    #[arg(long, value_name = "IP:PORT", help_heading = LIFECYCLE, value_parser = listen)]
    pub compat_listen: Option<SocketAddr>,

    /// File with the secret of the cluster, as `zerocache secret` prints it; or the secret itself in the
    /// variable ZEROCACHE_SECRET. Connections are encrypted and proven then
    #[arg(long, value_name = "FILE", help_heading = SECURITY)]
    pub secret_file: Option<PathBuf>,

    /// Certificate of this node in PEM form, with those between it and the CA; instead of one that is made
    /// from the secret
    #[arg(long, value_name = "FILE", help_heading = SECURITY)]
    pub tls_cert: Option<PathBuf>,

    /// Private key of the certificate, in PEM form
    #[arg(long, value_name = "FILE", help_heading = SECURITY)]
    pub tls_key: Option<PathBuf>,

    /// Certificates of the accepted CAs, in PEM form
    #[arg(long, value_name = "FILE", help_heading = SECURITY)]
    pub tls_ca: Option<PathBuf>,

    /// Encryption of connections: off, optional (for the time in which a cluster changes over), or required
    /// [default: required with a secret or certificates, else off]
    #[arg(long, value_name = "MODE", help_heading = SECURITY)]
    pub tls: Option<TlsMode>,

    /// Further DNS name of this node, for curl, in the certificate that it makes from the secret; repeatable
    #[arg(long, value_name = "NAME", help_heading = SECURITY, value_delimiter = ',')]
    pub tls_name: Vec<String>,

    /// Name that the certificates of other nodes must have [default: node.zerocache.internal]
    #[arg(long, value_name = "NAME", help_heading = SECURITY)]
    pub tls_server_name: Option<String>,

    /// File that says which certificates and tokens have which role
    #[arg(long, value_name = "FILE", help_heading = SECURITY)]
    pub access: Option<PathBuf>,

    /// Host name under which web pages may reach this node, beside addresses and names without dots;
    /// repeatable
    #[arg(long, value_name = "NAME", help_heading = SECURITY, value_delimiter = ',')]
    pub allowed_host: Vec<String>,

    /// Serve everybody who reaches the port. Without it and without credentials, callers of other hosts
    /// are refused
    #[arg(long, help_heading = SECURITY)]
    pub insecure: bool,

    /// Further address for operators: health, metrics, the page and administration, without entries; encrypted
    /// like the port, with the same roles [default: these paths are on the port alone]
    #[arg(long, value_name = "IP:PORT", help_heading = NETWORK, value_parser = listen)]
    pub admin_listen: Option<SocketAddr>,

    /// Page for people, at /page/ on the port: on or off [default: on]
    #[arg(long, value_name = "MODE", help_heading = LIFECYCLE)]
    pub page: Option<PageMode>,

    /// Keys that are read most: off, hash (hashes and lengths), or plain (names too, for callers with the role
    /// admin) [default: hash]
    #[arg(long, value_name = "MODE", help_heading = LIFECYCLE)]
    pub hot_keys: Option<HotKeyMode>,

    /// Log filter: error, warn, info, debug, trace, off, or pairs like zerocache_net=debug
    /// [default: info]
    #[arg(long, value_name = "FILTER", help_heading = LOGS)]
    pub log: Option<LogFilter>,

    /// Log format: text or json [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = LOGS)]
    pub log_format: Option<LogFormat>,
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not an IP address; use one like 10.0.0.5"))
}

fn port(text: &str) -> Result<u16, String> {
    parse_port(text).ok_or_else(|| format!("\"{text}\" is not a port; use 0 to 65535"))
}

fn replicas(text: &str) -> Result<Replicas, String> {
    let number = if text == "all" { Some(0) } else { text.parse().ok().filter(|n| *n > 0) };
    let number = number.filter(|number| *number <= REPLICAS_MAX as u64);
    number.map(Replicas::from_number).ok_or_else(|| {
        format!("\"{text}\" is no number of replicas; use 1 to {REPLICAS_MAX}, or all")
    })
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not an address to listen on; use IP:PORT, for example 0.0.0.0:6789")
    })
}
