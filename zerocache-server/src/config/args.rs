//! The flags. Their variables are derived from their names in [`super::invocation`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use zerocache_net::{
    discovery::{HostPort, Interface},
    transport::Connections,
    units::{parse_count, parse_duration, parse_size},
};

use super::address::parse_port;
use super::values::{Compat, LogFilter, LogFormat};

const IDENTITY: &str = "Who the node is";
const NETWORK: &str = "Where it is";
const DISCOVERY: &str = "How nodes find each other";
const LIMITS: &str = "How much it keeps";
const LIFE: &str = "Start and end";
const LOGS: &str = "Logs (on standard error)";

const EXAMPLES: &str = "\
Every flag has a variable, named in brackets; a flag wins over its variable, and lists are
separated by commas.

Examples:
  A node that finds the others on this network by itself:
    zerocache-server --region london

  Two regions on one machine:
    zerocache-server --region london --address 127.0.0.2
    zerocache-server --region sydney --address 127.0.0.3 --seed 127.0.0.2:6789

  In Kubernetes, behind a headless Service:
    zerocache-server --region eu --discovery dns --dns zerocache-nodes:6789

  Then, from anywhere:
    curl -X PUT --data-binary hello 'http://127.0.0.2:6789/v1/entries/greeting?ttl=60'
    curl http://127.0.0.2:6789/v1/entries/greeting";

/// A zerocache node: keeps entries for a limited time and replicates them to all regions.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "zerocache-server", version, after_help = EXAMPLES, max_term_width = 100, next_line_help = true)]
pub struct Args {
    /// Region that this node stands in (required); any name but v1
    #[arg(long, value_name = "NAME", help_heading = IDENTITY)]
    pub region: Option<String>,

    /// Cluster to belong to; other clusters on the same network stay apart [default: zerocache]
    #[arg(long, value_name = "NAME", help_heading = IDENTITY)]
    pub cluster: Option<String>,

    /// Zone inside the region, such as a data centre or a rack
    #[arg(long, value_name = "NAME", help_heading = IDENTITY)]
    pub zone: Option<String>,

    /// Address to announce to other nodes and to clients; repeatable [default: the one that this
    /// machine reaches others from]
    #[arg(long, value_name = "IP", help_heading = NETWORK, value_delimiter = ',', value_parser = ip)]
    pub address: Vec<IpAddr>,

    /// Port to announce and to listen on; 0 picks a free one and prints it [default: 6789]
    #[arg(long, value_name = "PORT", help_heading = NETWORK, value_parser = port)]
    pub port: Option<u16>,

    /// Address and port to listen on [default: the port on all interfaces, or on --address
    /// alone if that is one loopback address]
    #[arg(long, value_name = "IP:PORT", help_heading = NETWORK, value_parser = listen)]
    pub listen: Option<SocketAddr>,

    /// Ways to find nodes: mdns, dns, seeds, or none [default: mdns, and what is configured below]
    #[arg(long, value_name = "WAYS", help_heading = DISCOVERY, value_delimiter = ',')]
    pub discovery: Vec<String>,

    /// Node to dial at the start; repeatable. One is enough: it tells the others
    #[arg(long, value_name = "HOST:PORT", help_heading = DISCOVERY, value_delimiter = ',')]
    pub seed: Vec<HostPort>,

    /// DNS name whose A and AAAA records are all nodes, resolved every few seconds; repeatable
    #[arg(long, value_name = "NAME:PORT", help_heading = DISCOVERY, value_delimiter = ',')]
    pub dns: Vec<HostPort>,

    /// The only interface for mDNS: a name such as lo or eth0, or its IP address [default: all]
    #[arg(long, value_name = "INTERFACE", help_heading = DISCOVERY)]
    pub mdns_interface: Option<Interface>,

    /// Most bytes of keys and values to keep: bytes, or 512MiB, 2g [default: half of the memory
    /// that the cgroup or the machine allows]
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, value_parser = parse_size)]
    pub max_bytes: Option<u64>,

    /// Most entries to keep [default: as many as the bytes allow]
    #[arg(long, value_name = "COUNT", help_heading = LIMITS, value_parser = parse_count)]
    pub max_entries: Option<usize>,

    /// Longest key, up to 16KiB [default: 1KiB]
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, value_parser = parse_size)]
    pub max_key_bytes: Option<u64>,

    /// Longest value, up to 1/16 of --max-bytes [default: 8MiB, or that sixteenth if it is less]
    #[arg(long, value_name = "SIZE", help_heading = LIMITS, value_parser = parse_size)]
    pub max_value_bytes: Option<u64>,

    /// Most open connections; lowered if the limit of open files requires it [default: 16384]
    #[arg(long, value_name = "COUNT", help_heading = LIMITS, value_parser = parse_count)]
    pub max_connections: Option<usize>,

    /// How long to keep answering after SIGTERM, SIGINT or SIGQUIT: seconds, or 500ms [default: 2s]
    #[arg(long, value_name = "TIME", help_heading = LIFE, value_parser = parse_duration)]
    pub drain: Option<Duration>,

    /// When to be ready although the start is not over: peers that have not answered, or entries still to
    /// be copied; the node goes on with it [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = LIFE, value_parser = parse_duration)]
    pub warm_max: Option<Duration>,

    /// File to keep the entries in while the node is stopped: written when it leaves, read when no other
    /// node has any
    #[arg(long, value_name = "PATH", help_heading = LIFE)]
    pub snapshot: Option<PathBuf>,

    /// How to talk to other nodes, and what callers may use: framed (and HTTP where the upgrade to it
    /// is refused), or http alone [default: framed]
    #[arg(long, value_name = "KIND", help_heading = NETWORK)]
    pub connections: Option<Connections>,

    /// Also serve the HTTP paths of another product and announce its mDNS type: zerocache-py (the
    /// Python package zerocache)
    #[arg(long, value_name = "PRODUCT", help_heading = LIFE)]
    pub compat: Option<Compat>,

    /// What to log: error, warn, info, debug, trace, off, or pairs like zerocache_net=debug
    /// [default: info]
    #[arg(long, value_name = "FILTER", help_heading = LOGS)]
    pub log: Option<LogFilter>,

    /// Form of the log lines: text or json [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = LOGS)]
    pub log_format: Option<LogFormat>,
}

fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not an IP address; use one like 10.0.0.5"))
}

fn port(text: &str) -> Result<u16, String> {
    parse_port(text).ok_or_else(|| format!("\"{text}\" is not a port; use 0 to 65535"))
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("\"{text}\" is not an address to listen on; use IP:PORT, for example 0.0.0.0:6789")
    })
}
