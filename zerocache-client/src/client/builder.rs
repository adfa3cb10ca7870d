//! Making a client with a configuration of its own.

use std::{fmt::Display, time::Duration};

use zerocache_core::route::TierBounds;
use zerocache_net::{
    discovery::{HostPort, Interface},
    transport::Connections,
};

use super::{
    ZerocacheClient,
    config::{By, Config, is_test, mistake, share_of},
    instances, millis,
};
use crate::{Error, near::NearSettings};

/// Configures a client; from [`ZerocacheClient::builder`]. It does not read the environment.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` or `install`"]
pub struct ClientBuilder {
    config: Config,
    mistake: Option<Error>,
    /// It was said how nodes are found, or that none are.
    is_placed: bool,
}

impl ClientBuilder {
    pub(super) fn new(region: &str) -> Self {
        Self { config: Config::new(region), mistake: None, is_placed: false }
    }

    /// The cluster whose nodes are used; default `zerocache`.
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.config.cluster = name.into();
        self
    }

    /// What sets this client's memoized keys apart from those of other services and environments in
    /// the same cluster; default none. Keys of `get`, `put` and `delete` are taken as they are.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.config.namespace = name.into();
        self
    }

    /// A node to ask first: `HOST:PORT` as text, or an address; may be called several times.
    pub fn seed(mut self, address: impl Display) -> Self {
        self.is_placed = true;
        match address.to_string().parse::<HostPort>() {
            Ok(seed) => self.config.seeds.push(seed),
            Err(error) => self.note("seed", &error),
        }
        self
    }

    /// Nodes to ask first, each as one [`seed`](Self::seed); may be called several times.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use zerocache_client::ZerocacheClient;
    ///
    /// let one = SocketAddr::from(([127, 0, 0, 2], 6789));
    /// let builder = ZerocacheClient::builder("oslo").seeds([one]).mdns(false);
    /// let builder = builder.seeds(["cache-1.internal:6789", "cache-2.internal:6789"]);
    /// # let _ = builder;
    /// ```
    pub fn seeds<A: Display>(self, addresses: impl IntoIterator<Item = A>) -> Self {
        addresses.into_iter().fold(self, Self::seed)
    }

    /// A name that stands for many nodes, `NAME:PORT`, such as a headless service; may be called
    /// several times.
    pub fn dns(mut self, name: impl Display) -> Self {
        self.is_placed = true;
        match name.to_string().parse::<HostPort>() {
            Ok(name) => self.config.dns.push(name),
            Err(error) => self.note("dns", &error),
        }
        self
    }

    /// Whether nodes are looked for by mDNS; default true.
    pub fn mdns(mut self, wanted: bool) -> Self {
        self.is_placed = true;
        self.config.ways.mdns = wanted;
        self
    }

    /// The one interface for mDNS, by name or address; default all.
    pub fn mdns_interface(mut self, interface: impl Display) -> Self {
        self.is_placed = true;
        match interface.to_string().parse::<Interface>() {
            Ok(interface) => self.config.mdns_interface = Some(interface),
            Err(error) => self.note("mdns_interface", &error),
        }
        self
    }

    /// Uses no network: values are kept in this process, for this client alone, and end with it. Settings
    /// about finding nodes and talking to them mean nothing then.
    ///
    /// For tests, each of which can have a cache of its own: see `docs/memoize.md`. It is the default in
    /// programs that cargo built for tests or benchmarks, where nothing is said of how nodes are found.
    ///
    /// ```
    /// use zerocache_client::{Error, ZerocacheClient};
    ///
    /// let cache = ZerocacheClient::builder("oslo").offline(true).build()?;
    /// cache.put("greeting", "hello", 60).wait()?;
    /// assert_eq!(cache.get("greeting").wait()?.as_deref(), Some(&b"hello"[..]));
    /// # Ok::<_, Error>(())
    /// ```
    pub fn offline(mut self, wanted: bool) -> Self {
        self.is_placed = true;
        self.config.offline = wanted;
        self
    }

    /// How nodes are talked to; default [`Connections::Framed`], over HTTP where that is refused.
    pub fn connections(mut self, connections: Connections) -> Self {
        self.config.connections = connections;
        self
    }

    /// Above how many bytes values are packed (LZ4) before they are sent; default 16 KiB, none for
    /// never. A value that does not become smaller by an eighth is left as it is. Readers unpack by what
    /// stands beside the value, whatever they were told themselves.
    ///
    /// Packing takes a millisecond for some hundred KiB, on the thread that polls the write.
    pub fn compress_above(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.config.compress_above = bytes.into();
        self
    }

    /// Hedges reads: when the node that is asked first takes longer than 95 of 100 of its last answers, the
    /// next one is asked too, and the first answer wins. `share` is the part of the reads for which that
    /// may be done, above 0 and at most 1, such as 0.05; default none.
    ///
    /// Reads that are hedged do not take the shortest way: each costs a timer and an allocation more.
    /// Reads of many keys and explained ones are not hedged.
    pub fn hedge(mut self, share: impl Into<Option<f64>>) -> Self {
        self.config.hedge = None;
        if let Some(part) = share.into() {
            match share_of("hedge", &part.to_string()) {
                Ok(share) => self.config.hedge = Some(share),
                Err(error) => {
                    self.mistake.get_or_insert(error);
                }
            }
        }
        self
    }

    /// How long a local node, the next local node, the nearest and the second nearest other region
    /// may take; defaults 0.5, 0.5, 0.75 and 1 s. Each is at least 1 ms.
    pub fn tier_timeouts(mut self, tiers: [Duration; 4]) -> Self {
        let [local, next_local, nearest, second_nearest] = tiers.map(millis);
        let bounds = &mut self.config.bounds;
        (bounds.local_ms, bounds.next_local_ms) = (local, next_local);
        (bounds.nearest_ms, bounds.second_nearest_ms) = (nearest, second_nearest);
        self
    }

    /// How long an operation may take in all, unless it says otherwise; default 2.75 s, at least
    /// 1 ms.
    pub fn total_timeout(mut self, total: Duration) -> Self {
        self.config.bounds = TierBounds { total_ms: millis(total), ..self.config.bounds };
        self
    }

    /// How many bytes the near cache may take, and how old what it serves may be; defaults 64 MiB and
    /// 5 s. No bytes switch it off; the age is at least 1 ms.
    ///
    /// All clients of a process that use one cluster, and find its nodes in the same way, share one near
    /// cache, which may take as many bytes as the most generous of them allows. Only calls that say `near` use it.
    pub fn near_cache(mut self, max_bytes: u64, max_age: Duration) -> Self {
        self.config.near = NearSettings { bytes_max: max_bytes, age_max: max_age };
        self
    }

    /// Makes a client that is nobody else's.
    ///
    /// # Errors
    /// [`Error::Config`] when something is not allowed.
    pub fn build(self) -> Result<ZerocacheClient, Error> {
        ZerocacheClient::start(self.checked()?)
    }

    /// Makes the client of its region for this process: what
    /// [`ZerocacheClient::get_instance`] returns from then on.
    ///
    /// # Errors
    /// [`Error::Config`] when something is not allowed, or when the region has a client with another
    /// configuration already. One with the same configuration is returned.
    pub fn install(self) -> Result<ZerocacheClient, Error> {
        instances::install(self.checked()?)
    }

    fn checked(mut self) -> Result<Config, Error> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        if !self.is_placed && is_test() {
            self.config.stay_offline();
        }
        self.config.validate(By::Builder)?;
        Ok(self.config)
    }

    fn note(&mut self, what: &str, error: &dyn Display) {
        self.mistake.get_or_insert(mistake(what, error));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_in_a_test_stays_offline() {
        let offline = |builder: ClientBuilder| builder.checked().expect("it is allowed").offline;
        let builder = || ClientBuilder::new("oslo").cluster("test");
        assert!(offline(builder()) && offline(builder().offline(true)));
        for placed in [
            builder().offline(false),
            builder().mdns(true),
            builder().mdns_interface("lo"),
            builder().seed("a:2"),
            builder().dns("a:2"),
        ] {
            assert!(!offline(placed));
        }
    }

    #[test]
    fn seeds_are_added_up_and_mistakes_named() {
        let one = std::net::SocketAddr::from(([127, 0, 0, 2], 1));
        let builder = ClientBuilder::new("oslo").seed("a:2").seeds([one]).seeds(["b:3", "c:4"]);
        let seeds: Vec<_> = builder.config.seeds.iter().map(ToString::to_string).collect();
        assert_eq!(seeds, ["a:2", "127.0.0.2:1", "b:3", "c:4"]);
        let mistake = builder.seeds(["d:5", "nowhere", "e:0"]).checked().unwrap_err().to_string();
        assert!(mistake.contains("seed") && mistake.contains("nowhere"), "{mistake}");
    }
}
