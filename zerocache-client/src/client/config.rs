//! Configuration of a client, from a builder or from the `ZEROCACHE_*` variables that nodes read too.

use std::{
    ffi::OsStr,
    fmt::Display,
    path::Path,
    str::FromStr,
    sync::{Arc, Once},
    time::Duration,
};

use zerocache_core::{client::HedgeShare, name, route::TierBounds};
use zerocache_net::{
    discovery::{DiscoveryConfig, DiscoverySet, HostPort, Interface, MdnsConfig, NAMES_MAX},
    env_vars,
    security::{SecurityConfig, TlsMode},
    transport::Connections,
    units::{parse_duration, parse_size},
};

use super::{ClientBuilder, credentials, offline::InProcess};
use crate::{
    Error,
    codec::Codec,
    near::{Near, NearSettings, OUTAGE_MAX, shared},
};

/// The cluster that nodes and clients use by default.
const CLUSTER_DEFAULT: &str = "zerocache";

/// Default of the size in bytes above which values are compressed: from there on a few microseconds of
/// compression are little beside the cost of sending and storing the bytes.
const COMPRESS_ABOVE_DEFAULT: usize = 16 << 10;

/// The longest total timeout of an operation.
const TOTAL_MAX: Duration = Duration::from_secs(3_600);

/// A setting that [`Config::validate`] checks: its builder method and its variable.
type Setting = (&'static str, &'static str);
const CLUSTER: Setting = ("cluster", "ZEROCACHE_CLUSTER");
const ZONE: Setting = ("zone", "ZEROCACHE_ZONE");
const NAMESPACE: Setting = ("namespace", "ZEROCACHE_NAMESPACE");
const SEED: Setting = ("seed", "ZEROCACHE_SEED");
const DNS: Setting = ("dns", "ZEROCACHE_DNS");
const COMPRESS_ABOVE: Setting = ("compress_above", "ZEROCACHE_COMPRESS_ABOVE");
const MDNS: Setting = ("mdns", "ZEROCACHE_DISCOVERY");
const TLS: Setting = ("tls", "ZEROCACHE_TLS");
const NEAR_AGE: Setting = ("near_age", "ZEROCACHE_NEAR_AGE");
const NEAR_OUTAGE: Setting = ("near_outage", "ZEROCACHE_NEAR_OUTAGE");

/// The origin of a configuration, for the names in its errors.
#[derive(Clone, Copy)]
pub(super) enum ConfigSource {
    Builder,
    Environment,
}

impl ConfigSource {
    pub(super) const fn name(self, (builder, variable): Setting) -> &'static str {
        match self {
            Self::Builder => builder,
            Self::Environment => variable,
        }
    }
}

/// All settings of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) region: String,
    /// The zone in the region whose nodes are asked before the others there.
    pub(super) zone: Option<String>,
    pub(super) cluster: String,
    pub(super) namespace: String,
    pub(super) discovery_methods: DiscoverySet,
    pub(super) seeds: Vec<HostPort>,
    pub(super) dns: Vec<HostPort>,
    pub(super) mdns_interface: Option<Interface>,
    pub(super) bounds: TierBounds,
    pub(super) connections: Connections,
    /// The client uses no network.
    pub(super) offline: bool,
    /// The nodes in this process that such a client uses, if not one of its own.
    pub(super) nodes: Option<InProcess>,
    pub(super) near: NearSettings,
    /// The size in bytes above which values are compressed; `None` for never.
    pub(super) compress_above: Option<usize>,
    /// The codec in which typed values are written.
    pub(super) codec: Codec,
    /// The part of the reads that may be hedged; `None` for none.
    pub(super) hedge: Option<HedgeShare>,
    /// What the client proves itself by, and whom it trusts.
    pub(super) security: SecurityConfig,
}

impl Config {
    pub(super) fn new(region: &str) -> Self {
        Self {
            region: region.to_owned(),
            zone: None,
            cluster: CLUSTER_DEFAULT.to_owned(),
            namespace: String::new(),
            discovery_methods: DiscoverySet::ALL,
            seeds: Vec::new(),
            dns: Vec::new(),
            mdns_interface: None,
            bounds: TierBounds::default(),
            connections: Connections::default(),
            offline: false,
            nodes: None,
            near: NearSettings::default(),
            compress_above: cfg!(feature = "lz4").then_some(COMPRESS_ABOVE_DEFAULT),
            codec: Codec::default(),
            hedge: None,
            security: SecurityConfig::default(),
        }
    }

    /// Checks that this build has the features that the settings need.
    fn check_features(&self, source: ConfigSource) -> Result<(), Error> {
        let has_mdns = self.discovery_methods.mdns || self.mdns_interface.is_some();
        let absent = [
            (COMPRESS_ABOVE, self.compress_above.is_some(), cfg!(feature = "lz4"), "lz4"),
            (MDNS, has_mdns, cfg!(feature = "mdns"), "mdns"),
            (TLS, self.security.mode() != TlsMode::Off, cfg!(feature = "tls"), "tls"),
        ];
        match absent.into_iter().find(|(_, is_set, is_built, _)| *is_set && !is_built) {
            Some((setting, .., feature)) => {
                let why = format!("needs the feature `{feature}` of zerocache-client");
                Err(invalid(source.name(setting), &why))
            }
            None => Ok(()),
        }
    }

    /// Reads the variables of this process; a test uses no network by default.
    pub(super) fn from_env(region: &str) -> Result<Self, Error> {
        Self::from_process(region, is_test())
    }

    /// Reads the variables of this process.
    pub(super) fn from_process(region: &str, is_test: bool) -> Result<Self, Error> {
        static WARNED: Once = Once::new();
        WARNED.call_once(|| {
            for warning in env_vars::unknown_warnings(std::env::vars_os()) {
                tracing::warn!("{warning}");
            }
        });
        Self::from_variables(region, is_test, |name| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(error) => Err(invalid(name, &error)),
        })
    }

    /// Reads the settings from `variable`; an empty variable counts as not set. A program that was built
    /// for tests uses no network unless a variable turns it on.
    pub(super) fn from_variables(
        region: &str,
        is_test: bool,
        variable: impl Fn(&str) -> Result<Option<String>, Error>,
    ) -> Result<Self, Error> {
        let set = |name: &str| Ok::<_, Error>(variable(name)?.filter(|value| !value.is_empty()));
        let mut config = Self::new(region);
        config.zone = set("ZEROCACHE_ZONE")?;
        if let Some(cluster) = set("ZEROCACHE_CLUSTER")? {
            config.cluster = cluster;
        }
        if let Some(namespace) = set("ZEROCACHE_NAMESPACE")? {
            config.namespace = namespace;
        }
        if let Some(methods) = set("ZEROCACHE_DISCOVERY")? {
            let names: Vec<_> = methods.split(',').map(str::trim).collect();
            config.discovery_methods = DiscoverySet::from_names(&names)
                .map_err(|reason| invalid("ZEROCACHE_DISCOVERY", &reason))?;
        }
        config.seeds = list("ZEROCACHE_SEED", set("ZEROCACHE_SEED")?)?;
        config.dns = list("ZEROCACHE_DNS", set("ZEROCACHE_DNS")?)?;
        if let Some(interface) = set("ZEROCACHE_MDNS_INTERFACE")? {
            config.mdns_interface = Some(parse("ZEROCACHE_MDNS_INTERFACE", &interface)?);
        }
        if let Some(connections) = set("ZEROCACHE_CONNECTIONS")? {
            config.connections = parse("ZEROCACHE_CONNECTIONS", &connections)?;
        }
        match set("ZEROCACHE_OFFLINE")? {
            Some(offline) => {
                let parsed = offline.parse();
                let why = format!("{offline:?}; true and false are allowed");
                config.offline = parsed.map_err(|_| invalid("ZEROCACHE_OFFLINE", &why))?;
            }
            None if is_test => config.default_to_offline(),
            None => {}
        }
        config.near.read(set)?;
        if let Some(above) = set("ZEROCACHE_COMPRESS_ABOVE")? {
            config.compress_above = match above.as_str() {
                "off" => None,
                bytes => {
                    let parsed = parse_size(bytes).map_err(|why| format!("{why}, or off"));
                    let bytes = parsed.map_err(|why| invalid("ZEROCACHE_COMPRESS_ABOVE", &why))?;
                    Some(usize::try_from(bytes).unwrap_or(usize::MAX))
                }
            };
        }
        if let Some(codec) = set("ZEROCACHE_CODEC")? {
            config.codec = parse("ZEROCACHE_CODEC", &codec)?;
        }
        if let Some(share) = set("ZEROCACHE_HEDGE")?.filter(|share| share != "off") {
            config.hedge = Some(parse_hedge_share("ZEROCACHE_HEDGE", &share)?);
        }
        config.security = credentials::from_variables(set)?;
        for (name, is_wanted, is_empty) in [
            ("ZEROCACHE_SEED", config.discovery_methods.seeds, config.seeds.is_empty()),
            ("ZEROCACHE_DNS", config.discovery_methods.dns, config.dns.is_empty()),
        ] {
            if config.discovery_methods != DiscoverySet::ALL && is_wanted && is_empty {
                let text =
                    format!("ZEROCACHE_DISCOVERY: a method in it needs {name}, which is not set");
                return Err(Error::Config(text));
            }
        }
        config.validate(ConfigSource::Environment)?;
        Ok(config)
    }

    /// Turns the network off for a test that does not configure it.
    pub(super) fn default_to_offline(&mut self) {
        self.offline = true;
        tracing::warn!(
            region = self.region,
            "client uses no network because the program was built for tests: values stay in this \
             process; set ZEROCACHE_OFFLINE=false, or call offline(false) on its builder, to connect"
        );
    }

    /// Checks the settings that are not checked when they are set.
    pub(super) fn validate(&self, source: ConfigSource) -> Result<(), Error> {
        let wrong = |setting, why: &dyn Display| invalid(source.name(setting), why);
        name::check_region(&self.region).map_err(|error| invalid("region", &error))?;
        name::check(&self.cluster).map_err(|error| wrong(CLUSTER, &error))?;
        if let Some(zone) = &self.zone {
            name::check(zone).map_err(|error| wrong(ZONE, &error))?;
        }
        if !self.namespace.is_empty() {
            name::check(&self.namespace).map_err(|error| wrong(NAMESPACE, &error))?;
        }
        self.check_features(source)?;
        credentials::validate(&self.security, source)?;
        for (setting, names) in [(SEED, &self.seeds), (DNS, &self.dns)] {
            if names.len() > NAMES_MAX {
                return Err(wrong(setting, &format!("at most {NAMES_MAX} are allowed")));
            }
        }
        let TierBounds { local_ms, next_local_ms, nearest_ms, second_nearest_ms, total_ms } =
            self.bounds;
        let all = [local_ms, next_local_ms, nearest_ms, second_nearest_ms, total_ms];
        let most = TOTAL_MAX.as_millis() as u64;
        if all.iter().any(|ms| !(1..=most).contains(ms)) {
            let text = format!("1 to {most} ms are allowed");
            return Err(invalid("tier_timeout and total_timeout", &text));
        }
        if self.near.age_max < Duration::from_millis(1) {
            return Err(wrong(NEAR_AGE, &"an age of at least 1 ms is allowed"));
        }
        if self.near.outage > OUTAGE_MAX {
            return Err(wrong(NEAR_OUTAGE, &"at most 24 h are allowed"));
        }
        Ok(())
    }

    pub(super) fn discovery(&self) -> DiscoveryConfig {
        let sources = DiscoveryConfig::new(self.cluster.clone());
        if self.offline {
            return sources;
        }
        DiscoveryConfig {
            mdns: Some(MdnsConfig { interface: self.mdns_interface.clone() }),
            dns: self.dns.clone(),
            seeds: self.seeds.clone(),
            ..sources
        }
        .restricted_to(self.discovery_methods)
    }

    /// Returns the single-flight group: clients of one cluster and namespace share it, and compute a
    /// memoized call once between them. The upper half is that of all clients of the cluster, however they find it:
    /// purges concern all their computations.
    pub(super) fn flight_group(&self, apart: Apart) -> u64 {
        let cluster = format!("{:?}", (&self.cluster, apart.number));
        let cluster = xxhash_rust::xxh3::xxh3_64(cluster.as_bytes());
        cluster & !u64::from(u32::MAX) | self.group(&self.namespace, apart) & u64::from(u32::MAX)
    }

    /// Returns the near cache, which clients of one cluster share whatever their namespaces; `None` if it
    /// is switched off.
    pub(super) fn near(&self, apart: Apart) -> Option<Arc<Near>> {
        let NearSettings { bytes_max, .. } = self.near;
        (bytes_max > 0).then(|| shared(self.group("", apart), bytes_max))
    }

    fn group(&self, namespace: &str, apart: Apart) -> u64 {
        let Self { cluster, discovery_methods, seeds, dns, mdns_interface, .. } = self;
        let Apart { number, credentials } = apart;
        let found_by = (discovery_methods, seeds, dns, mdns_interface);
        let described = format!("{:?}", (cluster, namespace, found_by, number, credentials));
        xxhash_rust::xxh3::xxh3_64(described.as_bytes())
    }
}

impl ClientBuilder {
    /// Where nodes are found, and the credentials. For the tool of this project; no part of the public
    /// interface.
    #[doc(hidden)]
    #[must_use]
    pub fn connection_settings(&self) -> (DiscoveryConfig, SecurityConfig) {
        (self.config().discovery(), self.config().security.clone())
    }
}

impl NearSettings {
    /// Takes the variables that are set.
    fn read(
        &mut self,
        set: impl Fn(&'static str) -> Result<Option<String>, Error>,
    ) -> Result<(), Error> {
        if let Some(bytes) = set("ZEROCACHE_NEAR_BYTES")? {
            let parsed = parse_size(&bytes);
            self.bytes_max = parsed.map_err(|why| invalid("ZEROCACHE_NEAR_BYTES", &why))?;
        }
        if let Some(age) = set("ZEROCACHE_NEAR_AGE")? {
            let parsed = parse_duration(&age);
            self.age_max = parsed.map_err(|why| invalid("ZEROCACHE_NEAR_AGE", &why))?;
        }
        if let Some(outage) = set("ZEROCACHE_NEAR_OUTAGE")? {
            let parsed = parse_duration(&outage);
            self.outage = parsed.map_err(|why| invalid("ZEROCACHE_NEAR_OUTAGE", &why))?;
        }
        Ok(())
    }
}

/// What keeps clients from sharing near values and computations, although they use one cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Apart {
    /// Of a client without a network, which shares nothing; else 0.
    pub(super) number: u64,
    /// Of the credentials: what one client may read another one may not.
    pub(super) credentials: u64,
}

/// Returns true if cargo built this program for tests or benchmarks.
pub(super) fn is_test() -> bool {
    std::env::current_exe().is_ok_and(|program| is_built_for_tests(&program))
}

/// Returns true for the paths that cargo gives to tests and benchmarks (`deps/NAME-HASH`) and to
/// documentation tests (`rust_out`). Tests that other tools build must set `ZEROCACHE_OFFLINE`.
fn is_built_for_tests(program: &Path) -> bool {
    let name = program.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let is_hash =
        |hash: &str| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_hashed = name.rsplit_once('-').is_some_and(|(_, hash)| is_hash(hash));
    let folder = program.parent().and_then(Path::file_name);
    (is_hashed && folder == Some(OsStr::new("deps"))) || name == "rust_out"
}

/// Returns the error for a setting.
pub(super) fn invalid(what: &str, why: &dyn Display) -> Error {
    Error::Config(format!("{what}: {why}"))
}

/// Parses the share of hedged reads.
pub(super) fn parse_hedge_share(name: &str, text: &str) -> Result<HedgeShare, Error> {
    let share = text.parse().ok().and_then(HedgeShare::new);
    let why = format!("{text} is no share; above 0 and at most 1 is allowed, such as 0.05");
    share.ok_or_else(|| invalid(name, &why))
}

fn list<T>(name: &str, value: Option<String>) -> Result<Vec<T>, Error>
where
    T: FromStr<Err: Display>,
{
    let value = value.unwrap_or_default();
    let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| parse(name, part)).collect()
}

pub(super) fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error| invalid(name, &error))
}

#[cfg(test)]
mod tests;
