//! The validated configuration of one node, for embedding and for the binary.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use zerocache_core::{cluster::Replicas, name, store::EvictionPolicy};
use zerocache_net::{
    discovery::{DiscoverySet, HostPort, Interface, NAMES_MAX},
    security::{Source, TlsFiles, TlsMode},
    transport::Connections,
};

use super::address;
use super::disk::{self, DiskConfig};
use super::memory_limit;
use super::security;
use super::values::Compat;
use crate::hot_keys::HotKeyMode;

/// Default cluster.
pub const CLUSTER_DEFAULT: &str = "zerocache";
/// Default port.
pub const PORT_DEFAULT: u16 = 6789;
/// Default maximum key size, in bytes.
pub const KEY_BYTES_DEFAULT: usize = 1 << 10;
/// Default maximum value size, in bytes; less when the byte budget is below 16 times this.
pub const VALUE_BYTES_DEFAULT: u64 = 8 << 20;
/// Default maximum of connections: above the 10,000 idle ones that a node must sustain.
pub const CONNECTIONS_MAX_DEFAULT: usize = 16_384;
/// Default time to keep serving at shutdown.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(2);
/// Default maximum warming time.
pub const WARM_MAX_DEFAULT: Duration = Duration::from_secs(60);

/// Three escaped bytes per key byte must fit into a request target, whose limit is 64 KiB.
const KEY_BYTES_CEILING: usize = 16 << 10;
/// Below this budget its shares are too small to be useful.
const BUDGET_BYTES_MIN: u64 = 1 << 20;
/// A value may take 1/16 of the byte budget.
const VALUE_SHARE: u64 = 16;
/// A drain or warming time above an hour is a configuration error.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// Announced addresses are part of every handshake.
const ADDRESSES_MAX: usize = 16;

/// The settings of one node. Start with [`ServerConfig::new`] and change fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerConfig {
    /// The cluster of the node; nodes of other clusters are refused.
    pub cluster: String,
    /// The region of the node. `v1` is refused.
    pub region: String,
    /// The zone inside the region, if any.
    pub zone: Option<String>,
    /// The name under which the node comes back after a restart. `None`: its first announced address and port.
    pub node_name: Option<String>,
    /// How many nodes of the region keep a value. Default: all.
    pub replicas: Replicas,
    /// The announced addresses, at most 16. Empty: see
    /// [`ServerConfig::announced_addresses`].
    pub addresses: Vec<IpAddr>,
    /// The announced port, default 6789; 0 picks a free one and announces that.
    pub port: u16,
    /// The listen address. `None`: see [`ServerConfig::listen_addresses`].
    pub listen: Option<SocketAddr>,
    /// The discovery methods, as far as they are configured. Default: all.
    pub discovery: DiscoverySet,
    /// Nodes that are dialled at the start and whenever they are not members, at most 64.
    pub seeds: Vec<HostPort>,
    /// Names whose addresses are dialled, resolved every few seconds, at most 64.
    pub dns: Vec<HostPort>,
    /// The interface for mDNS. `None`: all.
    pub mdns_interface: Option<Interface>,
    /// Maximum number of entries, at least 1. `None`: limited by the byte budget alone.
    pub max_entries: Option<usize>,
    /// The byte budget, at least 1 MiB. Default: half of the memory that the process may use.
    pub max_bytes: u64,
    /// The order in which entries are evicted that have not expired. Default: scan-resistant.
    pub eviction: EvictionPolicy,
    /// Maximum key size in bytes, 1 to 16 KiB.
    pub max_key_bytes: usize,
    /// Maximum value size in bytes, at most 1/16 of `max_bytes`. `None`: see
    /// [`ServerConfig::value_bytes_max`].
    pub max_value_bytes: Option<u64>,
    /// Maximum number of open connections, at least 1; the limit of open files may lower it.
    pub max_connections: usize,
    /// Time to keep serving at shutdown, at most 1 h.
    pub drain: Duration,
    /// Maximum warming time, at most 1 h: after it the node is ready although it still copies.
    pub warm_max: Duration,
    /// The snapshot file. `None`: no snapshots. Not beside a disk.
    pub snapshot: Option<PathBuf>,
    /// Where evicted values go, which are there after a restart, too. `None`: nowhere.
    pub disk: Option<DiskConfig>,
    /// A foreign protocol that is also served.
    pub compat: Option<Compat>,
    /// The address of a further listener, without TLS and for callers of this host, that serves the paths of
    /// `compat` alone; they are not served elsewhere then. Must be an IPv4 loopback address.
    pub compat_listen: Option<SocketAddr>,
    /// The address of a further listener for operators, which serves health, metrics, the page and the paths for
    /// administration, and neither entries nor messages. `None`: they are on the port of the node alone.
    pub admin_listen: Option<SocketAddr>,
    /// Whether everybody may do everything. If not, and there are no credentials either, callers of other
    /// hosts are refused.
    pub insecure: bool,
    /// The secret of the cluster: who has it can be a node.
    pub secret: Option<Source>,
    /// Certificates, instead of those that nodes make from the secret. All three files, or none.
    pub tls_files: TlsFiles,
    /// Whether connections are encrypted. `None`: always, as soon as there is a secret or certificates.
    pub tls: Option<TlsMode>,
    /// Further DNS names of this node for the certificate that it makes from the secret, at most 64.
    pub tls_names: Vec<String>,
    /// The name that the certificates of other nodes must have. `None`: `node.zerocache.internal`.
    pub tls_server_name: Option<String>,
    /// The access file: who has which role. It needs a secret or certificates.
    pub access: Option<PathBuf>,
    /// Host names under which web pages may reach the node, beside addresses and names without dots, at
    /// most 64.
    pub allowed_hosts: Vec<String>,
    /// Whether the node has a page for people at `/page/`. Default: it has.
    pub page: bool,
    /// What the node keeps of the keys that are read most. Default: hashes.
    pub hot_keys: HotKeyMode,
    /// Connections to other nodes, and whether callers may upgrade to frames.
    pub connections: Connections,
}

/// A setting whose value is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    setting: &'static str,
    reason: String,
}

impl ConfigError {
    pub(crate) fn new(setting: &'static str, reason: String) -> Self {
        Self { setting, reason }
    }

    /// Returns the name of the setting: its flag without the dashes, such as `max-value-bytes`.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        self.setting
    }

    /// Returns the reason, and the allowed values.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl ServerConfig {
    /// Creates the default configuration of a node in `region`. Reads the memory limits of this machine
    /// for `max_bytes`.
    #[must_use]
    pub fn new(region: impl Into<String>) -> Self {
        Self {
            cluster: CLUSTER_DEFAULT.to_owned(),
            region: region.into(),
            zone: None,
            node_name: None,
            replicas: Replicas::All,
            addresses: Vec::new(),
            port: PORT_DEFAULT,
            listen: None,
            discovery: DiscoverySet::ALL,
            seeds: Vec::new(),
            dns: Vec::new(),
            mdns_interface: None,
            max_entries: None,
            max_bytes: (memory_limit::available_bytes() / 2).max(BUDGET_BYTES_MIN),
            eviction: EvictionPolicy::default(),
            max_key_bytes: KEY_BYTES_DEFAULT,
            max_value_bytes: None,
            max_connections: CONNECTIONS_MAX_DEFAULT,
            drain: DRAIN_DEFAULT,
            warm_max: WARM_MAX_DEFAULT,
            snapshot: None,
            disk: None,
            compat: None,
            compat_listen: None,
            admin_listen: None,
            insecure: false,
            secret: None,
            tls_files: TlsFiles::default(),
            tls: None,
            tls_names: Vec::new(),
            tls_server_name: None,
            access: None,
            allowed_hosts: Vec::new(),
            page: true,
            hot_keys: HotKeyMode::default(),
            connections: Connections::default(),
        }
    }

    /// Returns the addresses to announce: the configured ones, else the address of `listen` unless that
    /// is all interfaces, else the address of the default route, else 127.0.0.1. A node that announces
    /// the machine's address follows it when it changes.
    #[must_use]
    pub fn announced_addresses(&self) -> Vec<IpAddr> {
        self.configured_addresses().unwrap_or_else(|| vec![address::machine_address()])
    }

    /// Returns the machine's new address when it is no longer `before`.
    pub(crate) fn changed_addresses(&self, before: IpAddr) -> Option<Vec<IpAddr>> {
        let now = address::current_machine_address(before);
        (now != before).then(|| vec![now])
    }

    /// Returns the configured addresses; none when the machine's address is announced.
    pub(crate) fn configured_addresses(&self) -> Option<Vec<IpAddr>> {
        if !self.addresses.is_empty() {
            return Some(self.addresses.clone());
        }
        let listen = self.listen.map(|listen| listen.ip());
        listen.filter(|ip| !ip.is_unspecified()).map(|ip| vec![ip])
    }

    /// Returns the candidate listen addresses; the first that can be bound is used. They are: `listen` if
    /// it is set; else the port on the configured address if that is one loopback address; else the port
    /// on all interfaces, including later ones, with IPv6 where the machine has it.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        if let Some(listen) = self.listen {
            return vec![listen];
        }
        match self.addresses.as_slice() {
            [address] if address.is_loopback() => vec![SocketAddr::new(*address, self.port)],
            _ => vec![
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.port),
                SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.port),
            ],
        }
    }

    /// Returns the maximum value size in bytes: the configured one, else the lesser of 8 MiB and 1/16 of
    /// the byte budget.
    #[must_use]
    pub fn value_bytes_max(&self) -> u64 {
        let share = self.max_bytes / VALUE_SHARE;
        self.max_value_bytes.unwrap_or(VALUE_BYTES_DEFAULT.min(share))
    }

    /// Validates every field.
    ///
    /// # Errors
    /// The first setting that is not allowed, with the reason.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_names()?;
        self.validate_addresses()?;
        self.validate_limits()?;
        security::validate(self)?;
        disk::validate(self)?;
        let waits = [("drain", self.drain), ("warm-max", self.warm_max)];
        for (setting, wait) in waits {
            check(wait <= WAIT_MAX, setting, || {
                format!("{} s is too long; use at most {} s", wait.as_secs(), WAIT_MAX.as_secs())
            })?;
        }
        Ok(())
    }

    fn validate_names(&self) -> Result<(), ConfigError> {
        let zone = self.zone.as_ref().map(|zone| ("zone", zone));
        let node_name = self.node_name.as_ref().map(|name| ("node-name", name));
        let names = [Some(("cluster", &self.cluster)), zone, node_name];
        for (setting, text) in names.into_iter().flatten() {
            name::check(text).map_err(|error| ConfigError::new(setting, error.to_string()))?;
        }
        name::check_region(&self.region)
            .map_err(|error| ConfigError::new("region", error.to_string()))
    }

    fn validate_addresses(&self) -> Result<(), ConfigError> {
        for address in &self.addresses {
            let announceable = !address.is_unspecified() && !address.is_multicast();
            check(announceable, "address", || {
                format!("{address} cannot be announced; use an address that others can dial")
            })?;
        }
        let lists = [
            ("address", self.addresses.len(), ADDRESSES_MAX),
            ("seed", self.seeds.len(), NAMES_MAX),
            ("dns", self.dns.len(), NAMES_MAX),
        ];
        for (setting, count, most) in lists {
            check(count <= most, setting, || format!("{count} are too many; use at most {most}"))?;
        }
        Ok(())
    }

    fn validate_limits(&self) -> Result<(), ConfigError> {
        check(self.max_entries != Some(0), "max-entries", || {
            "0 is too few; use at least 1".into()
        })?;
        check(self.max_connections > 0, "max-connections", || {
            "0 is too few; use at least 1".into()
        })?;
        check(self.max_bytes >= BUDGET_BYTES_MIN, "max-bytes", || {
            format!("{} bytes are too few; use at least 1MiB", self.max_bytes)
        })?;
        let keys = 1..=KEY_BYTES_CEILING;
        check(keys.contains(&self.max_key_bytes), "max-key-bytes", || {
            format!("{} is out of range; use 1 to {KEY_BYTES_CEILING}", self.max_key_bytes)
        })?;
        let share = self.max_bytes / VALUE_SHARE;
        let wanted = self.value_bytes_max();
        check((1..=share).contains(&wanted), "max-value-bytes", || {
            format!(
                "{wanted} is out of range; use 1 to {share}, which is 1/{VALUE_SHARE} of max-bytes ({})",
                self.max_bytes
            )
        })
    }
}

pub(super) fn check(
    good: bool,
    setting: &'static str,
    reason: impl FnOnce() -> String,
) -> Result<(), ConfigError> {
    if good { Ok(()) } else { Err(ConfigError { setting, reason: reason() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut ServerConfig)) -> &'static str {
        let mut config = ServerConfig::new("london");
        assert_eq!(config.validate(), Ok(()));
        change(&mut config);
        config.validate().expect_err("a mistake").setting()
    }

    #[test]
    fn invalid_settings_are_named() {
        assert_eq!(refused(|c| c.region = "v1".into()), "region");
        assert_eq!(refused(|c| c.region = String::new()), "region");
        assert_eq!(refused(|c| c.cluster = "a b".into()), "cluster");
        assert_eq!(refused(|c| c.zone = Some("/".into())), "zone");
        assert_eq!(refused(|c| c.node_name = Some("a b".into())), "node-name");
        assert_eq!(refused(|c| c.addresses = vec![Ipv4Addr::UNSPECIFIED.into()]), "address");
        assert_eq!(refused(|c| c.max_entries = Some(0)), "max-entries");
        assert_eq!(refused(|c| c.max_bytes = 1000), "max-bytes");
        assert_eq!(refused(|c| c.max_key_bytes = 0), "max-key-bytes");
        assert_eq!(refused(|c| c.max_connections = 0), "max-connections");
        assert_eq!(refused(|c| c.drain = Duration::from_secs(3601)), "drain");
    }

    #[test]
    fn value_size_is_at_most_a_sixteenth_of_the_budget() {
        let mut config = ServerConfig::new("london");
        config.max_bytes = 16 << 20;
        assert_eq!(config.value_bytes_max(), 1 << 20);
        config.max_value_bytes = Some((1 << 20) + 1);
        assert_eq!(config.validate().expect_err("too large").setting(), "max-value-bytes");
        config.max_bytes = 1 << 30;
        config.max_value_bytes = None;
        assert_eq!(config.value_bytes_max(), VALUE_BYTES_DEFAULT);
    }

    #[test]
    fn loopback_address_is_the_only_listen_address() {
        let mut config = ServerConfig::new("london");
        config.addresses = vec![Ipv4Addr::new(127, 0, 0, 2).into()];
        assert_eq!(config.listen_addresses(), ["127.0.0.2:6789".parse().expect("an address")]);
        config.addresses = vec![Ipv4Addr::new(10, 0, 0, 2).into()];
        assert!(config.listen_addresses().iter().all(|a| a.ip().is_unspecified()));
        // A machine without a network may get one.
        config.addresses.clear();
        assert!(config.listen_addresses().iter().all(|a| a.ip().is_unspecified()));
        config.listen = Some("10.0.0.3:7000".parse().expect("an address"));
        assert_eq!(config.announced_addresses(), [Ipv4Addr::new(10, 0, 0, 3)]);
    }
}
