//! A network of regions for real server processes: each node in a network namespace of its own, a
//! bridge for each region, and a router between them, which is the namespace of the caller.
//!
//! It is made inside [`namespace::run`](crate::namespace::run) or
//! [`run_program`](crate::namespace::run_program), so that no packet leaves the machine and no root
//! is needed. Region r is 10.r.0.0/16, its node n is 10.r.0.n, and the caller has the address
//! 10.r.255.254 in every region. Faults are nftables rules. The caller still reaches every node,
//! except one in a black hole, so that it can observe both sides of a partition.

mod rules;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use self::rules::Rules;
pub(crate) use self::rules::run_script;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::setup::Setup;

/// The port of every node.
const PORT: u16 = 6789;

/// The number of seeds in each region: one dead seed does not keep a node from joining.
const SEEDS: usize = 2;

/// The names of the regions, in their order.
pub const REGIONS: [&str; 4] = ["london", "sydney", "oslo", "lima"];

/// The region, address and packet rules of a node.
#[derive(Clone, Debug)]
struct Site {
    region: usize,
    ip: Ipv4Addr,
    rules: Rules,
}

impl Site {
    fn name(&self) -> String {
        let [_, region, _, node] = self.ip.octets();
        format!("r{region}n{node}")
    }

    fn file(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.name())
    }
}

/// Changes how each node is started.
type Change = Box<dyn Fn(Setup) -> Setup + Send + Sync>;

/// Regions of nodes on a network of their own. Nodes are counted through all regions.
pub struct Net {
    /// The nodes, the ended ones too.
    pub cluster: Cluster,
    sites: Vec<Site>,
    /// Regions that are cut off from the others.
    cut_off: Vec<usize>,
    change: Change,
}

impl Net {
    /// Makes the network and starts `sizes[r]` nodes in each region r. Each node gets nodes of each
    /// region as seeds. Waits until each node knows all others.
    ///
    /// # Panics
    ///
    /// If that does not happen within [`PATIENCE`](crate::poll::PATIENCE).
    #[must_use]
    pub fn start(sizes: &[usize]) -> Self {
        Self::start_with(sizes, |setup| setup)
    }

    /// Does what [`start`](Self::start) does, with nodes that `change` has changed.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start) does.
    #[must_use]
    pub fn start_with(
        sizes: &[usize],
        change: impl Fn(Setup) -> Setup + Send + Sync + 'static,
    ) -> Self {
        let mut net = Self::without_nodes(sizes, change);
        for n in 0..net.len() {
            let node = net.setup(n).start();
            net.cluster.nodes.push(node);
        }
        net.cluster.wait_until_joined();
        net
    }

    /// Makes the network alone. Nodes are to be added in their order, with [`setup`](Self::setup).
    ///
    /// # Panics
    ///
    /// If that is not possible.
    #[must_use]
    pub fn without_nodes(
        sizes: &[usize],
        change: impl Fn(Setup) -> Setup + Send + Sync + 'static,
    ) -> Self {
        assert!(sizes.len() <= REGIONS.len(), "no more regions have names");
        let mut script = String::from(
            "mount -t tmpfs tmpfs /run\n\
             echo 1 > /proc/sys/net/ipv4/ip_forward\n",
        );
        let mut sites = Vec::new();
        for (region, size) in sizes.iter().enumerate() {
            script += &format!(
                "ip link add br{region} type bridge\n\
                 ip address add 10.{region}.255.254/16 dev br{region}\n\
                 ip link set br{region} up\n"
            );
            for n in 1..=*size {
                let ip = Ipv4Addr::new(10, region as u8, 0, n as u8);
                let site = Site { region, ip, rules: Rules::default() };
                let name = site.name();
                script += &format!(
                    "ip netns add {name}\n\
                     ip link add {name} type veth peer name eth0 netns {name}\n\
                     ip link set {name} master br{region} up\n\
                     ip -n {name} link set lo up\n\
                     ip -n {name} address add {ip}/16 dev eth0\n\
                     ip -n {name} link set eth0 up\n\
                     ip -n {name} route add default via 10.{region}.255.254\n"
                );
                sites.push(site);
            }
        }
        run_script(&script);
        let (cluster, cut_off) = (Cluster { nodes: Vec::new() }, Vec::new());
        Self { cluster, sites, cut_off, change: Box::new(change) }
    }

    /// Returns the number of sites for nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Returns whether there is no site for a node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// Returns the address on which node `n` listens.
    #[must_use]
    pub fn address(&self, n: usize) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.sites[n].ip), PORT)
    }

    /// Returns the addresses on which the nodes listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        (0..self.len()).map(|n| self.address(n)).collect()
    }

    /// The region of node `n`, as a number.
    #[must_use]
    pub fn region_of(&self, n: usize) -> usize {
        self.sites[n].region
    }

    /// The nodes of a region.
    #[must_use]
    pub fn nodes_of(&self, region: usize) -> Vec<usize> {
        (0..self.len()).filter(|n| self.sites[*n].region == region).collect()
    }

    /// Returns the setup of node `n` without seeds.
    #[must_use]
    pub fn setup_alone(&self, n: usize) -> Setup {
        let site = &self.sites[n];
        let mut setup = Setup::new(REGIONS[site.region]);
        setup.listen = self.address(n);
        setup = setup.in_namespace(site.file());
        setup.flag("--listen", self.address(n))
    }

    /// Returns the setup of node `n`.
    #[must_use]
    pub fn setup(&self, n: usize) -> Setup {
        let mut setup = self.setup_alone(n);
        for region in 0..REGIONS.len() {
            for seed in self.nodes_of(region).into_iter().filter(|seed| *seed != n).take(SEEDS) {
                setup = setup.flag("--seed", self.address(seed));
            }
        }
        (self.change)(setup)
    }

    /// Starts node `n`, which has ended, again where it stood.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn restart(&mut self, n: usize) {
        self.cluster[n] = self.setup(n).start();
    }

    /// Ends all nodes at once and starts new ones in their places, which know nothing of the past;
    /// waits until each knows all.
    ///
    /// # Panics
    ///
    /// If that does not happen within [`PATIENCE`](crate::poll::PATIENCE).
    pub fn restart_all(&mut self) {
        self.repair_all_links();
        for node in &mut self.cluster.nodes {
            node.kill();
        }
        for n in 0..self.len() {
            self.restart(n);
        }
        self.cluster.wait_until_joined();
    }

    /// Cuts a region off from the others, in both directions.
    pub fn cut_region(&mut self, region: usize) {
        self.cut_off.push(region);
        self.route();
    }

    /// Joins all regions again.
    pub fn join_regions(&mut self) {
        self.cut_off.clear();
        self.route();
    }

    /// Drops packets from one node to another; the opposite direction stays open.
    pub fn cut_link(&mut self, from: usize, to: usize) {
        let from = self.sites[from].ip;
        self.change_rules(to, |rules| rules.dropped_sources.extend([from]));
    }

    /// Drops the datagrams from one node to another; the opposite direction stays open.
    pub fn cut_datagrams(&mut self, from: usize, to: usize) {
        let from = self.sites[from].ip;
        self.change_rules(to, |rules| rules.unheard.extend([from]));
    }

    /// Drops what one node sends to another one on the connections that it has opened, or opens; those of the
    /// opposite direction stay, and so do datagrams.
    pub fn cut_calls(&mut self, from: usize, to: usize) {
        let from = self.sites[from].ip;
        self.change_rules(to, |rules| rules.uncalled.extend([from]));
    }

    /// Cuts a node off from all other nodes, in both directions.
    pub fn cut_node(&mut self, n: usize) {
        self.change_rules(n, |rules| rules.isolated = true);
    }

    /// Lets nothing to or from a node pass, the caller's packets included.
    pub fn black_hole(&mut self, n: usize) {
        self.change_rules(n, |rules| rules.black_hole = true);
    }

    /// Loses this share of the packets that arrive at each node from other nodes.
    pub fn lose_percent(&mut self, percent: u8) {
        for n in 0..self.len() {
            self.change_rules(n, |rules| rules.lost_percent = percent);
        }
    }

    /// Lets no datagrams pass between nodes.
    pub fn without_datagrams(&mut self) {
        for n in 0..self.len() {
            self.change_rules(n, |rules| rules.tcp_only = true);
        }
    }

    /// Mends what was done to the network around a node.
    pub fn repair_link(&mut self, n: usize) {
        self.change_rules(n, |rules| *rules = Rules::default());
    }

    /// Mends the whole network.
    pub fn repair_all_links(&mut self) {
        if !self.cut_off.is_empty() {
            self.join_regions();
        }
        for n in 0..self.len() {
            self.repair_link(n);
        }
    }

    /// All nodes but one.
    pub fn others(&self, but: usize) -> impl Iterator<Item = &Node> {
        self.cluster.nodes.iter().enumerate().filter(move |(n, _)| *n != but).map(|(_, node)| node)
    }

    fn change_rules(&mut self, n: usize, change: impl FnOnce(&mut Rules)) {
        let site = &mut self.sites[n];
        let before = site.rules.clone();
        change(&mut site.rules);
        if site.rules != before {
            site.rules.apply(&site.file());
        }
    }

    fn route(&self) {
        rules::apply_to_router(&self.cut_off);
    }
}
