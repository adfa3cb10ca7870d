//! Creation of a client with settings from code.

use std::{fmt::Display, path::PathBuf, str::FromStr, time::Duration};

use zerocache_core::route::{Tier, TierBounds};
use zerocache_net::{
    security::{Source, TlsFiles, TlsMode},
    transport::Connections,
};

use super::{
    ZerocacheClient,
    config::{Config, ConfigSource, invalid, is_test, parse_hedge_share},
    instances, millis,
};
use crate::{Error, codec::Codec};

/// Configures a client; from [`ZerocacheClient::builder`]. It does not read the environment.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` or `install`"]
pub struct ClientBuilder {
    config: Config,
    /// The first setting that could not be parsed.
    error: Option<Error>,
    /// A setting says how nodes are found, or that the client is offline.
    has_discovery: bool,
}

impl ClientBuilder {
    pub(super) fn new(region: &str) -> Self {
        Self { config: Config::new(region), error: None, has_discovery: false }
    }

    pub(super) fn from_variables(
        region: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let config = Config::from_variables(region, false, |name| Ok(variable(name)))?;
        Ok(Self::from_config(config, true))
    }

    /// `has_discovery`: the settings say how nodes are found, or that the client is offline.
    pub(super) const fn from_config(config: Config, has_discovery: bool) -> Self {
        Self { config, error: None, has_discovery }
    }

    /// The zone of this process in its region, as in the nodes' `--zone`: nodes there are asked before the others of
    /// the region, which serve when none of the zone can. Default none: all of the region take turns.
    pub fn zone(mut self, name: impl Into<String>) -> Self {
        self.config.zone = Some(name.into());
        self
    }

    /// The cluster whose nodes are used; default `zerocache`.
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.config.cluster = name.into();
        self
    }

    /// Separates this client's memoized keys from those of other services and environments in the same
    /// cluster; default none. Keys of `get`, `put` and `delete` are not changed by it.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.config.namespace = name.into();
        self
    }

    /// A node to contact first, as `HOST:PORT`; may be called several times.
    pub fn seed(mut self, address: impl AsRef<str>) -> Self {
        self.has_discovery = true;
        if let Some(seed) = self.parse("seed", address.as_ref()) {
            self.config.seeds.push(seed);
        }
        self
    }

    /// Nodes to contact first, each as by [`seed`](Self::seed); may be called several times.
    ///
    /// ```
    /// use zerocache_client::ZerocacheClient;
    ///
    /// let builder = ZerocacheClient::builder("oslo").mdns(false);
    /// let builder = builder.seeds(["cache-1.internal:6789", "cache-2.internal:6789"]);
    /// # let _ = builder;
    /// ```
    pub fn seeds<A: AsRef<str>>(self, addresses: impl IntoIterator<Item = A>) -> Self {
        addresses.into_iter().fold(self, Self::seed)
    }

    /// A DNS name that resolves to many nodes, such as a headless service, as `NAME:PORT`; may be called
    /// several times.
    pub fn dns(mut self, name: impl AsRef<str>) -> Self {
        self.has_discovery = true;
        if let Some(name) = self.parse("dns", name.as_ref()) {
            self.config.dns.push(name);
        }
        self
    }

    /// Turns discovery by mDNS on or off; default on.
    pub fn mdns(mut self, enabled: bool) -> Self {
        self.has_discovery = true;
        self.config.discovery_methods.mdns = enabled;
        self
    }

    /// The one interface for mDNS, by name or IP address; default all.
    pub fn mdns_interface(mut self, interface: impl AsRef<str>) -> Self {
        self.has_discovery = true;
        if let Some(interface) = self.parse("mdns_interface", interface.as_ref()) {
            self.config.mdns_interface = Some(interface);
        }
        self
    }

    /// Uses no network: values are kept in this process, for this client alone, and end with it. Settings
    /// of discovery and connections have no effect then.
    ///
    /// Meant for tests, each of which can have a cache of its own: see `docs/memoize.md`. It is the default
    /// in programs that cargo built for tests or benchmarks, unless a setting of discovery is given.
    ///
    /// ```
    /// use zerocache_client::{Error, ZerocacheClient};
    ///
    /// let cache = ZerocacheClient::builder("oslo").offline(true).build()?;
    /// cache.put("greeting", "hello", 60).wait()?;
    /// assert_eq!(cache.get("greeting").wait()?.as_deref(), Some(&b"hello"[..]));
    /// # Ok::<_, Error>(())
    /// ```
    pub fn offline(mut self, enabled: bool) -> Self {
        self.has_discovery = true;
        self.config.offline = enabled;
        self
    }

    /// The transport between client and nodes; default [`Connections::Framed`], with a fallback to HTTP
    /// where a node or a proxy refuses it.
    pub fn connections(mut self, connections: Connections) -> Self {
        self.config.connections = connections;
        self
    }

    /// The size in bytes above which values are compressed (LZ4) before they are sent; default 16 KiB,
    /// `None` for never. A value that does not shrink by at least an eighth is sent uncompressed. Readers
    /// decompress by the entry's metadata, whatever their own setting is.
    ///
    /// Compression takes about a millisecond for some hundred KiB, on the thread that polls the write.
    pub fn compress_above(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.config.compress_above = bytes.into();
        self
    }

    /// The codec in which typed values are written: those of memoized functions, and of
    /// [`Value`](crate::Value); default [`Codec::Auto`]. A function's attribute can name another one. Values of
    /// all codecs are read, whatever the setting is.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.config.codec = codec;
        self
    }

    /// Hedges reads: when the first node exceeds its recent p95 latency, the next node is asked too, and the
    /// first answer wins. `share` bounds the part of the reads that are hedged: above 0 and at most 1, such
    /// as 0.05; default none.
    ///
    /// Once a node's latency is known, each read of it costs a timer and an allocation more. Each key of a read of
    /// many counts as one.
    pub fn hedge(mut self, share: impl Into<Option<f64>>) -> Self {
        self.config.hedge = None;
        if let Some(share) = share.into() {
            match parse_hedge_share("hedge", &share.to_string()) {
                Ok(share) => self.config.hedge = Some(share),
                Err(error) => {
                    self.error.get_or_insert(error);
                }
            }
        }
        self
    }

    /// The timeout of a request to a node of `tier`: 1 ms to 1 h; defaults 0.5 s for the two local tiers,
    /// 0.75 s for the nearest and 1 s for the second nearest other region.
    ///
    /// ```
    /// use std::time::Duration;
    /// use zerocache_client::{ZerocacheClient, ops::Tier};
    ///
    /// let builder = ZerocacheClient::builder("oslo")
    ///     .tier_timeout(Tier::Local, Duration::from_millis(200))
    ///     .tier_timeout(Tier::Nearest, Duration::from_secs(1));
    /// # let _ = builder;
    /// ```
    pub fn tier_timeout(mut self, tier: Tier, timeout: Duration) -> Self {
        self.config.bounds.set(tier, millis(timeout));
        self
    }

    /// The timeout of an operation as a whole, unless the operation has a deadline of its own: 1 ms to 1 h;
    /// default 2.75 s.
    pub fn total_timeout(mut self, total: Duration) -> Self {
        self.config.bounds = TierBounds { total_ms: millis(total), ..self.config.bounds };
        self
    }

    /// The size of the near cache in bytes; default 64 MiB, 0 for no near cache.
    ///
    /// All clients of a process that use one cluster, and find its nodes in the same way, share one near
    /// cache. Its size is the largest that one of them sets. Only calls that say `near` use it.
    pub fn near_bytes(mut self, bytes_max: u64) -> Self {
        self.config.near.bytes_max = bytes_max;
        self
    }

    /// The maximum age of values served from the near cache, at least 1 ms; default 5 s.
    pub fn near_age(mut self, age_max: Duration) -> Self {
        self.config.near.age_max = age_max;
        self
    }

    /// How long memoized calls that use the near cache are served values from there while no node can be reached, as
    /// [`near_outage`](crate::memo::Call::near_outage); at most 24 h, default zero: not at all. A function or call can
    /// state another time.
    pub fn near_outage(mut self, outage: Duration) -> Self {
        self.config.near.outage = outage;
        self
    }

    /// The token that the client presents, as `zerocache token create` printed it; default none.
    ///
    /// A token of a cluster with a secret also says by which CA nodes are verified, before the client sends
    /// anything: nothing else need be set. A static token needs [`tls_ca`](Self::tls_ca).
    pub fn token(mut self, text: impl Into<String>) -> Self {
        self.config.security.token = Some(Source::Value(text.into()));
        self
    }

    /// A file with the token, instead of [`token`](Self::token). It is read again when it changes, within ten
    /// seconds.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.security.token = Some(Source::File(path.into()));
        self
    }

    /// A file with the secret of the cluster, one a line; default none. It is read again when it changes.
    ///
    /// Whoever has the secret can be a node: give clients a [`token`](Self::token) where you can.
    pub fn secret_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.security.secret = Some(Source::File(path.into()));
        self
    }

    /// Whether connections are encrypted and nodes verified; default [`TlsMode::Required`] as soon as a token,
    /// a secret or certificates are given, otherwise [`TlsMode::Off`].
    ///
    /// With [`TlsMode::Off`] a token is sent in clear text: whoever sees the network has it then.
    pub fn tls(mut self, mode: TlsMode) -> Self {
        self.config.security.tls = Some(mode);
        self
    }

    /// A PEM file with the CAs by which nodes are verified, where these have certificates from files.
    pub fn tls_ca(mut self, path: impl Into<PathBuf>) -> Self {
        self.files().ca = Some(path.into());
        self
    }

    /// A PEM file with the client's own certificate, and those between it and the CA; needs
    /// [`tls_key`](Self::tls_key) and [`tls_ca`](Self::tls_ca).
    pub fn tls_cert(mut self, path: impl Into<PathBuf>) -> Self {
        self.files().cert = Some(path.into());
        self
    }

    /// A PEM file with the private key of [`tls_cert`](Self::tls_cert).
    pub fn tls_key(mut self, path: impl Into<PathBuf>) -> Self {
        self.files().key = Some(path.into());
        self
    }

    /// The name that nodes are asked for, and that their certificates must have; default
    /// `node.zerocache.internal`, which all certificates of nodes have.
    pub fn tls_server_name(mut self, name: impl Into<String>) -> Self {
        self.config.security.server_name = Some(name.into());
        self
    }

    fn files(&mut self) -> &mut TlsFiles {
        self.config.security.files.get_or_insert_default()
    }

    /// Creates a private client, which [`ZerocacheClient::get_instance`] does not return.
    ///
    /// # Errors
    /// [`Error::Config`] when a setting is not allowed.
    pub fn build(self) -> Result<ZerocacheClient, Error> {
        ZerocacheClient::start(self.validated()?)
    }

    /// Creates a client and registers it as the shared client of its region in this process, which
    /// [`ZerocacheClient::get_instance`] returns from then on.
    ///
    /// # Errors
    /// [`Error::Config`] when a setting is not allowed, or when the region has a client with another
    /// configuration already. A client with the same configuration is returned.
    pub fn install(self) -> Result<ZerocacheClient, Error> {
        instances::install(self.validated()?)
    }

    /// Uses nodes in this process.
    #[cfg(feature = "testing")]
    pub(crate) fn nodes(mut self, nodes: super::offline::InProcess) -> Self {
        self.config.nodes = Some(nodes);
        self.offline(true)
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    fn validated(mut self) -> Result<Config, Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if !self.has_discovery && is_test() {
            self.config.default_to_offline();
        }
        self.config.validate(ConfigSource::Builder)?;
        Ok(self.config)
    }

    /// Parses a setting; `build` and `install` return the first error.
    fn parse<T: FromStr<Err: Display>>(&mut self, setting: &str, text: &str) -> Option<T> {
        let parsed = text.parse().map_err(|error| invalid(setting, &error));
        parsed.map_err(|error| self.error.get_or_insert(error)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_in_a_test_is_offline_unless_discovery_is_configured() {
        let offline = |builder: ClientBuilder| builder.validated().expect("it is allowed").offline;
        let builder = || ClientBuilder::new("oslo").cluster("test");
        assert!(offline(builder()) && offline(builder().offline(true)));
        for configured in [
            builder().offline(false),
            builder().mdns(true),
            builder().mdns_interface("lo"),
            builder().seed("a:2"),
            builder().dns("a:2"),
        ] {
            assert!(!offline(configured));
        }
    }

    #[test]
    fn seeds_add_up_and_the_error_names_the_wrong_one() {
        let builder = ClientBuilder::new("oslo").seed("a:2").seeds(["b:3", "c:4"]);
        let seeds: Vec<_> = builder.config.seeds.iter().map(ToString::to_string).collect();
        assert_eq!(seeds, ["a:2", "b:3", "c:4"]);
        let error = builder.seeds(["d:5", "nowhere", "e:0"]).validated().unwrap_err().to_string();
        assert!(error.contains("seed") && error.contains("nowhere"), "{error}");
    }

    #[test]
    fn timeouts_and_near_cache_are_set_one_by_one() {
        let ms = Duration::from_millis;
        let mut builder = ClientBuilder::new("oslo").near_bytes(7).near_age(ms(8));
        for (tier, timeout) in Tier::ALL.into_iter().zip(1..) {
            builder = builder.tier_timeout(tier, ms(timeout));
        }
        let Config { near, bounds, .. } = builder.total_timeout(ms(9)).validated().unwrap();
        assert_eq!((near.bytes_max, near.age_max), (7, ms(8)));
        assert_eq!(Tier::ALL.map(|tier| bounds.of(tier)), [1, 2, 3, 4]);
        assert_eq!(bounds.total_ms, 9);
    }
}
