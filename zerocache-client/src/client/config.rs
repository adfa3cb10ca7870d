//! What a client is told: by a builder, or by the `ZEROCACHE_*` variables that nodes read too.

use std::{
    ffi::OsStr,
    fmt::Display,
    path::Path,
    str::FromStr,
    sync::{Arc, Once},
    time::Duration,
};

use zerocache_core::{name, route::TierBounds};
use zerocache_net::{
    discovery::{DiscoveryConfig, DiscoverySet, HostPort, Interface, MdnsConfig, NAMES_MAX},
    env_vars,
    transport::Connections,
    units::{parse_duration, parse_size},
};

use super::hedge::Share;
use crate::{
    Error,
    near::{Near, NearSettings, shared},
};

/// The cluster of nodes and clients that are told nothing else.
const CLUSTER_DEFAULT: &str = "zerocache";

/// Above this many bytes values are packed unless told otherwise: where a few microseconds of packing
/// are little beside what sending and keeping the bytes costs.
const COMPRESS_ABOVE_DEFAULT: usize = 16 << 10;

/// The longest total deadline of an operation.
const TOTAL_MAX: Duration = Duration::from_secs(3_600);

/// What is checked once all is said, as a builder and as the environment call it.
type Setting = (&'static str, &'static str);
const CLUSTER: Setting = ("cluster", "ZEROCACHE_CLUSTER");
const NAMESPACE: Setting = ("namespace", "ZEROCACHE_NAMESPACE");
const SEED: Setting = ("seed", "ZEROCACHE_SEED");
const DNS: Setting = ("dns", "ZEROCACHE_DNS");
const NEAR_AGE: Setting = ("near_cache", "ZEROCACHE_NEAR_AGE");

/// By what a client is told.
#[derive(Clone, Copy)]
pub(super) enum By {
    Builder,
    Variables,
}

impl By {
    const fn name(self, (builder, variable): Setting) -> &'static str {
        match self {
            Self::Builder => builder,
            Self::Variables => variable,
        }
    }
}

/// Everything that a client can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) region: String,
    pub(super) cluster: String,
    pub(super) namespace: String,
    pub(super) ways: DiscoverySet,
    pub(super) seeds: Vec<HostPort>,
    pub(super) dns: Vec<HostPort>,
    pub(super) mdns_interface: Option<Interface>,
    pub(super) bounds: TierBounds,
    pub(super) connections: Connections,
    /// No network is used.
    pub(super) offline: bool,
    pub(super) near: NearSettings,
    /// Values larger than this are packed, in bytes; none: no value is.
    pub(super) compress_above: Option<usize>,
    /// The part of the reads that may be hedged; none: no read is.
    pub(super) hedge: Option<Share>,
}

impl Config {
    pub(super) fn new(region: &str) -> Self {
        Self {
            region: region.to_owned(),
            cluster: CLUSTER_DEFAULT.to_owned(),
            namespace: String::new(),
            ways: DiscoverySet::ALL,
            seeds: Vec::new(),
            dns: Vec::new(),
            mdns_interface: None,
            bounds: TierBounds::default(),
            connections: Connections::default(),
            offline: false,
            near: NearSettings::default(),
            compress_above: Some(COMPRESS_ABOVE_DEFAULT),
            hedge: None,
        }
    }

    /// The configuration that the variables of this process describe.
    pub(super) fn from_env(region: &str) -> Result<Self, Error> {
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            for sentence in env_vars::unknown_warnings(std::env::vars_os()) {
                tracing::warn!("{sentence}");
            }
        });
        Self::from_variables(region, is_test(), |name| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(error) => Err(mistake(name, &error)),
        })
    }

    /// The configuration that `variable` describes; an empty variable counts as not set. What is built for
    /// tests uses no network unless that is said.
    fn from_variables(
        region: &str,
        is_test: bool,
        variable: impl Fn(&str) -> Result<Option<String>, Error>,
    ) -> Result<Self, Error> {
        let set = |name: &str| Ok::<_, Error>(variable(name)?.filter(|value| !value.is_empty()));
        let mut config = Self::new(region);
        if let Some(cluster) = set("ZEROCACHE_CLUSTER")? {
            config.cluster = cluster;
        }
        if let Some(namespace) = set("ZEROCACHE_NAMESPACE")? {
            config.namespace = namespace;
        }
        if let Some(ways) = set("ZEROCACHE_DISCOVERY")? {
            let names: Vec<_> = ways.split(',').map(str::trim).collect();
            config.ways = DiscoverySet::from_names(&names)
                .map_err(|reason| mistake("ZEROCACHE_DISCOVERY", &reason))?;
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
                config.offline = parsed.map_err(|_| mistake("ZEROCACHE_OFFLINE", &why))?;
            }
            None if is_test => config.stay_offline(),
            None => {}
        }
        if let Some(bytes) = set("ZEROCACHE_NEAR_BYTES")? {
            let parsed = parse_size(&bytes);
            config.near.bytes_max = parsed.map_err(|why| mistake("ZEROCACHE_NEAR_BYTES", &why))?;
        }
        if let Some(age) = set("ZEROCACHE_NEAR_AGE")? {
            let parsed = parse_duration(&age);
            config.near.age_max = parsed.map_err(|why| mistake("ZEROCACHE_NEAR_AGE", &why))?;
        }
        if let Some(above) = set("ZEROCACHE_COMPRESS_ABOVE")? {
            config.compress_above = match above.as_str() {
                "off" => None,
                bytes => {
                    let parsed = parse_size(bytes).map_err(|why| format!("{why}, or off"));
                    let bytes = parsed.map_err(|why| mistake("ZEROCACHE_COMPRESS_ABOVE", &why))?;
                    // More than there can be is as much as there can be.
                    Some(usize::try_from(bytes).unwrap_or(usize::MAX))
                }
            };
        }
        if let Some(share) = set("ZEROCACHE_HEDGE")?.filter(|share| share != "off") {
            config.hedge = Some(share_of("ZEROCACHE_HEDGE", &share)?);
        }
        for (name, asked_for, none) in [
            ("ZEROCACHE_SEED", config.ways.seeds, config.seeds.is_empty()),
            ("ZEROCACHE_DNS", config.ways.dns, config.dns.is_empty()),
        ] {
            if config.ways != DiscoverySet::ALL && asked_for && none {
                let text = format!("ZEROCACHE_DISCOVERY names a way that needs {name}");
                return Err(Error::Config(text));
            }
        }
        config.validate(By::Variables)?;
        Ok(config)
    }

    /// Has a test that does not say otherwise use no network.
    pub(super) fn stay_offline(&mut self) {
        self.offline = true;
        tracing::warn!(
            region = self.region,
            "this program was built for tests: the client uses no network, and what it stores is in \
             this process alone; ZEROCACHE_OFFLINE=false, or offline(false) of its builder, has it \
             look for nodes"
        );
    }

    /// Checks what is not checked when it is said, `by` whatever.
    pub(super) fn validate(&self, by: By) -> Result<(), Error> {
        let wrong = |setting, why: &dyn Display| mistake(by.name(setting), why);
        name::check_region(&self.region).map_err(|error| mistake("region", &error))?;
        name::check(&self.cluster).map_err(|error| wrong(CLUSTER, &error))?;
        if !self.namespace.is_empty() {
            name::check(&self.namespace).map_err(|error| wrong(NAMESPACE, &error))?;
        }
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
            return Err(mistake("tier_timeouts and total_timeout", &text));
        }
        if self.near.age_max < Duration::from_millis(1) {
            return Err(wrong(NEAR_AGE, &"an age of at least 1 ms is allowed"));
        }
        Ok(())
    }

    pub(super) fn discovery(&self) -> DiscoveryConfig {
        let mut discovery = DiscoveryConfig::new(self.cluster.clone());
        if self.offline {
            return discovery;
        }
        if self.ways.mdns {
            discovery.mdns = Some(MdnsConfig { interface: self.mdns_interface.clone() });
        }
        if self.ways.dns {
            discovery.dns.clone_from(&self.dns);
        }
        if self.ways.seeds {
            discovery.seeds.clone_from(&self.seeds);
        }
        discovery
    }

    /// A number that clients of the same cluster and namespace share: between them, one computation
    /// of a memoized call is enough. `apart` sets one apart from all others, unless it is 0.
    pub(super) fn flight_group(&self, apart: u64) -> u64 {
        self.group(&self.namespace, apart)
    }

    /// The near cache, which clients of the same cluster share whatever their namespaces; none where it
    /// is switched off.
    pub(super) fn near(&self, apart: u64) -> Option<Arc<Near>> {
        let NearSettings { bytes_max, .. } = self.near;
        (bytes_max > 0).then(|| shared(self.group("", apart), bytes_max))
    }

    fn group(&self, namespace: &str, apart: u64) -> u64 {
        let Self { cluster, ways, seeds, dns, mdns_interface, .. } = self;
        let found_by = (ways, seeds, dns, mdns_interface);
        let described = format!("{:?}", (cluster, namespace, found_by, apart));
        xxhash_rust::xxh3::xxh3_64(described.as_bytes())
    }
}

/// Whether this program is a test.
pub(super) fn is_test() -> bool {
    std::env::current_exe().is_ok_and(|program| is_built_for_tests(&program))
}

/// Whether cargo built this program for tests or benchmarks: it names these `deps/NAME-HASH`, and those of
/// documentation `rust_out`. What is built by other means has to say so.
fn is_built_for_tests(program: &Path) -> bool {
    let name = program.file_stem().and_then(OsStr::to_str).unwrap_or_default();
    let is_hash =
        |hash: &str| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_hashed = name.rsplit_once('-').is_some_and(|(_, hash)| is_hash(hash));
    let folder = program.parent().and_then(Path::file_name);
    (is_hashed && folder == Some(OsStr::new("deps"))) || name == "rust_out"
}

/// A mistake, and in what.
pub(super) fn mistake(what: &str, why: &dyn Display) -> Error {
    Error::Config(format!("{what}: {why}"))
}

/// A part of the reads that may be hedged.
pub(super) fn share_of(name: &str, part: &str) -> Result<Share, Error> {
    let share = part.parse().ok().and_then(Share::new);
    let why = format!("{part} is no share; above 0 and at most 1 is allowed, such as 0.05");
    share.ok_or_else(|| mistake(name, &why))
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
    text.parse().map_err(|error| mistake(name, &error))
}

#[cfg(test)]
mod tests {
    use zerocache_net::env_vars::ReadBy;

    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<Config, Error> {
        Config::from_variables("oslo", false, |name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        })
    }

    #[test]
    fn variables_are_those_of_the_nodes() {
        let config = config(&[
            ("ZEROCACHE_CLUSTER", "staging"),
            ("ZEROCACHE_NAMESPACE", "shop"),
            ("ZEROCACHE_DISCOVERY", "seeds, dns"),
            ("ZEROCACHE_SEED", "127.0.0.2:6789, [::1]:6789"),
            ("ZEROCACHE_DNS", "zerocache.default.svc:6789"),
            ("ZEROCACHE_MDNS_INTERFACE", ""),
            ("ZEROCACHE_CONNECTIONS", "http"),
            ("ZEROCACHE_COMPRESS_ABOVE", "4KiB"),
            ("ZEROCACHE_HEDGE", "0.05"),
        ])
        .unwrap();
        assert_eq!((config.cluster.as_str(), config.namespace.as_str()), ("staging", "shop"));
        assert_eq!(config.ways, DiscoverySet { mdns: false, dns: true, seeds: true });
        assert_eq!((config.seeds.len(), config.dns.len()), (2, 1));
        assert!(config.discovery().mdns.is_none());
        assert_eq!(config.connections, Connections::Http);
        assert_eq!(config.compress_above, Some(4_096));
        assert_eq!(config.hedge, Share::new(0.05));
    }

    #[test]
    fn packing_and_hedging_can_be_turned_off() {
        assert_eq!(config(&[]).unwrap().compress_above, Some(COMPRESS_ABOVE_DEFAULT));
        let off =
            config(&[("ZEROCACHE_COMPRESS_ABOVE", "off"), ("ZEROCACHE_HEDGE", "off")]).unwrap();
        assert_eq!((off.compress_above, off.hedge), (None, None));
    }

    #[test]
    fn what_is_built_for_tests_uses_no_network_unless_told_so() {
        let offline = |variable: Option<&str>| {
            let given = |name: &str| variable.filter(|_| name == "ZEROCACHE_OFFLINE");
            let config =
                Config::from_variables("oslo", true, |name| Ok(given(name).map(str::to_owned)));
            config.unwrap().offline
        };
        assert!(offline(None) && offline(Some("")) && offline(Some("true")));
        assert!(!offline(Some("false")));
        assert!(!config(&[]).unwrap().offline);
        assert!(config(&[("ZEROCACHE_OFFLINE", "true")]).unwrap().offline);
        let is_test = |path: &str| is_built_for_tests(Path::new(path));
        assert!(is_test("/home/a/target/debug/deps/orders-0123456789abcdef"));
        assert!(is_test("/tmp/rustdoctestXyz/rust_out"));
        assert!(!is_test("/home/a/target/debug/orders") && !is_test("/usr/bin/orders"));
        assert!(!is_test("/srv/deps/orders-service") && !is_test("/srv/orders-0123456789abcdef"));
        // This one was.
        assert!(is_built_for_tests(&std::env::current_exe().expect("it has a path")));
    }

    /// The first two columns of the table of all settings.
    fn documented() -> String {
        let page = include_str!("../../../docs/client.md");
        let (_, table) = page.split_once("\n## All settings\n").expect("it has such a part");
        let rows = table.lines().filter(|line| line.starts_with('|'));
        rows.flat_map(|row| row.split('|').skip(1).take(2)).collect()
    }

    #[test]
    fn the_page_lists_all_settings_and_no_others() {
        let table = documented();
        let read = std::cell::RefCell::new(Vec::new());
        let variable = |name: &str| {
            read.borrow_mut().push(format!("`{name}`"));
            Ok(None)
        };
        Config::from_variables("oslo", false, variable).expect("nothing is set");
        let read = read.into_inner();
        let clients = [ReadBy::Clients, ReadBy::Both];
        let known = env_vars::ALL.iter().filter(|(_, by)| clients.contains(by));
        let known: Vec<_> = known.map(|(name, _)| format!("`{name}`")).collect();
        assert!(known.iter().all(|name| read.contains(name)), "{known:?} {read:?}");
        assert_eq!(known.len(), read.len());
        assert!(read.iter().all(|name| table.contains(name)), "{read:?} {table}");
        assert_eq!(table.matches("ZEROCACHE_").count(), read.len(), "{table}");
        let builder = include_str!("builder.rs").lines();
        let methods = builder.filter_map(|line| line.strip_prefix("    pub fn "));
        let methods = methods.map(|method| method.split(['(', '<']).next().unwrap_or_default());
        let settings = methods.filter(|name| !["build", "install"].contains(name));
        let missing: Vec<_> =
            settings.filter(|name| !table.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "{missing:?} {table}");
    }

    #[test]
    fn a_mistake_names_its_variable() {
        for (name, value) in [
            ("ZEROCACHE_SEED", "nowhere"),
            ("ZEROCACHE_DNS", "a:0"),
            ("ZEROCACHE_DISCOVERY", "magic"),
            ("ZEROCACHE_MDNS_INTERFACE", "a b"),
            ("ZEROCACHE_CONNECTIONS", "grpc"),
            ("ZEROCACHE_COMPRESS_ABOVE", "much"),
            ("ZEROCACHE_HEDGE", "1.5"),
            ("ZEROCACHE_OFFLINE", "perhaps"),
            ("ZEROCACHE_HEDGE", "a few"),
            ("ZEROCACHE_CLUSTER", "a b"),
            ("ZEROCACHE_NAMESPACE", "a b"),
            ("ZEROCACHE_NEAR_AGE", "0"),
            ("ZEROCACHE_NEAR_AGE", "soon"),
            ("ZEROCACHE_NEAR_BYTES", "64 Mb/s"),
        ] {
            let error = config(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            // It says what was given, or what is allowed.
            assert!(error.contains(value) || error.contains("allowed"), "{error}");
        }
        let seeds = vec!["a:1"; NAMES_MAX + 1].join(",");
        let error = config(&[("ZEROCACHE_SEED", &seeds)]).unwrap_err().to_string();
        assert!(error.contains("ZEROCACHE_SEED") && error.contains("at most"), "{error}");
        let error = config(&[("ZEROCACHE_DISCOVERY", "seeds")]).unwrap_err().to_string();
        assert!(error.contains("ZEROCACHE_SEED"), "{error}");
    }
}
