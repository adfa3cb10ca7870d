//! Discovery over real mDNS and over names with several addresses, each in a namespace of its own.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mdns_sd::{Error, IfKind, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::mpsc;
use tokio::time::timeout;
use zerocache_net::discovery::{
    Announcement, Discovery, DiscoveryConfig, Event, MdnsConfig, Proposal, PythonRecord,
    RECORDS_MAX, Source,
};
use zerocache_tests::namespace;
use zerocache_tests::poll::{until_true, until_true_async};

/// Longer than anything here takes, on a busy machine too.
const PATIENCE: Duration = Duration::from_secs(20);

const NATIVE: &str = "_zerocache._tcp.local.";
const PYTHON: &str = "_server._geocache._tcp.local.";

fn block_on(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async { timeout(2 * PATIENCE, body).await.expect("the test ends in time") });
}

fn mdns(cluster: &str) -> (Discovery, mpsc::Receiver<Event>) {
    mdns_on(cluster, Some("lo"))
}

fn mdns_on(cluster: &str, interface: Option<&str>) -> (Discovery, mpsc::Receiver<Event>) {
    let interface = interface.map(|text| text.parse().expect("an interface"));
    let mut config = DiscoveryConfig::new(cluster);
    config.mdns = Some(MdnsConfig { interface });
    start(config)
}

fn start(config: DiscoveryConfig) -> (Discovery, mpsc::Receiver<Event>) {
    let (sender, events) = mpsc::channel(256);
    (Discovery::start(config, sender).expect("a good configuration"), events)
}

fn announcement(region: &str, incarnation: u64, addresses: &[&str]) -> Announcement {
    Announcement {
        region: region.into(),
        incarnation,
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
        port: 6789,
        python: PythonRecord::None,
    }
}

async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    timeout(PATIENCE, events.recv()).await.expect("an event in time").expect("a running source")
}

/// Waits for a proposal with this incarnation and all these addresses.
async fn found(events: &mut mpsc::Receiver<Event>, incarnation: u64, at: &[&str]) -> Proposal {
    let at: Vec<SocketAddr> = at.iter().map(|text| text.parse().expect("an address")).collect();
    loop {
        if let Event::Proposed(proposal) = next(events).await
            && proposal.incarnation == Some(incarnation)
            && at.iter().all(|address| proposal.addresses.contains(address))
        {
            return proposal;
        }
    }
}

async fn withdrawn(events: &mut mpsc::Receiver<Event>) -> Proposal {
    loop {
        if let Event::Withdrawn(proposal) = next(events).await {
            return proposal;
        }
    }
}

#[test]
fn nodes_see_each_other_come_and_go() {
    namespace::run("nodes_see_each_other_come_and_go", || block_on(come_and_go()));
}

async fn come_and_go() {
    let (london, mut at_london) = mdns("zerocache");
    let (sydney, mut at_sydney) = mdns("zerocache");
    let (client, mut at_client) = mdns("zerocache");
    // Nothing has been announced yet.
    for events in [&mut at_london, &mut at_sydney, &mut at_client] {
        assert_eq!(next(events).await, Event::Complete);
    }
    london.announce(&announcement("london", 1, &["127.0.0.2", "::1"])).expect("announced");
    sydney.announce(&announcement("sydney", 2, &["127.0.0.3"])).expect("announced");

    let proposal = found(&mut at_sydney, 1, &["127.0.0.2:6789"]).await;
    assert_eq!(proposal.region.as_deref(), Some("london"));
    assert_eq!(proposal.source, Source::Mdns);
    found(&mut at_london, 2, &["127.0.0.3:6789"]).await;
    found(&mut at_client, 1, &["127.0.0.2:6789"]).await;
    found(&mut at_client, 2, &["127.0.0.3:6789"]).await;

    // A later one completes discovery with all nodes known, although responders are silent just
    // after they announced themselves or answered others (RFC 6762, section 6).
    let (late, mut at_late) = mdns("zerocache");
    let mut known = BTreeSet::new();
    loop {
        match next(&mut at_late).await {
            Event::Proposed(proposal) => drop(known.insert(proposal.incarnation)),
            Event::Complete => break,
            Event::Withdrawn(proposal) => panic!("withdrawn: {proposal:?}"),
        }
    }
    assert_eq!(known, BTreeSet::from([Some(1), Some(2)]));

    sydney.withdraw().await;
    for events in [&mut at_london, &mut at_client, &mut at_late] {
        assert_eq!(withdrawn(events).await.incarnation, Some(2));
    }
    // Without a separate goodbye, stopping is one.
    london.shutdown().await;
    assert_eq!(withdrawn(&mut at_sydney).await.incarnation, Some(1));
    assert!(!drained(&mut at_london).contains(&Some(1)), "a node proposed itself");
    assert!(!drained(&mut at_sydney).contains(&Some(2)), "a node proposed itself");
    for discovery in [sydney, client, late] {
        discovery.shutdown().await;
    }
    // The daemons have reported their end; their threads exit a moment later.
    until_true("the end of the threads", || mdns_threads() == 0);
}

/// The incarnations of all proposals that have arrived.
fn drained(events: &mut mpsc::Receiver<Event>) -> BTreeSet<Option<u64>> {
    std::iter::from_fn(|| events.try_recv().ok())
        .filter_map(|event| match event {
            Event::Proposed(proposal) => Some(proposal.incarnation),
            _ => None,
        })
        .collect()
}

/// The threads of this process that are mDNS daemons.
fn mdns_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the threads of this process");
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|name| name.trim() == "mDNS_daemon")
        .count()
}

#[test]
fn clusters_on_one_network_stay_apart() {
    namespace::run("clusters_on_one_network_stay_apart", || block_on(apart()));
}

async fn apart() {
    let (staging, _at_staging) = mdns("staging");
    // Here these mean the same as `lo`.
    let (production, mut at_production) = mdns_on("production", None);
    let (other, _at_other) = mdns_on("production", Some("127.0.0.3"));
    staging.announce(&announcement("london", 1, &["127.0.0.2"])).expect("announced");
    other.announce(&announcement("london", 2, &["127.0.0.3"])).expect("announced");
    found(&mut at_production, 2, &["127.0.0.3:6789"]).await;
    until_true_async("a record of another cluster", || production.counts().other_cluster > 0).await;
    assert!(!drained(&mut at_production).contains(&Some(1)));
}

#[test]
fn forged_and_foreign_records_are_tolerated() {
    namespace::run("forged_and_foreign_records_are_tolerated", || block_on(forged()));
}

async fn forged() {
    let (discovery, mut events) = mdns("zerocache");
    let forger = on_loopback();
    let register = |ty: &str, name: &str, port: u16, fields: &[(&str, &str)]| {
        let host = format!("{name}.local.");
        let mut service =
            ServiceInfo::new(ty, name, &host, "127.0.0.9", port, fields).expect("a record");
        service.set_requires_probe(false);
        forger.register(service).expect("registered");
    };
    let cluster = ("cluster", "zerocache");
    register(NATIVE, "no-region", 1, &[cluster]);
    register(NATIVE, "no-port", 0, &[cluster, ("region", "london")]);
    register(NATIVE, "no-fields", 1, &[]);
    register("_printer._tcp.local.", "a-printer", 1, &[cluster, ("region", "london")]);
    register(PYTHON, "no-region-for-python", 1, &[]);
    let strange = [
        ("colour", "blue"),
        cluster,
        ("REGION", "london"),
        ("incarnation", "not hexadecimal"),
        ("version", "999"),
    ];
    register(NATIVE, "unknown-fields", 7, &strange);

    // The one that can be used is used; field names are compared without case (RFC 6763, 6.4).
    let proposal = loop {
        if let Event::Proposed(proposal) = next(&mut events).await {
            break proposal;
        }
    };
    assert_eq!(proposal.addresses, ["127.0.0.9:7".parse().expect("an address")]);
    assert_eq!((proposal.region.as_deref(), proposal.incarnation), (Some("london"), None));
    until_true_async("three malformed records", || discovery.counts().malformed >= 3).await;
    // All other peers are served.
    let (peer, _at_peer) = mdns("zerocache");
    peer.announce(&announcement("sydney", 3, &["127.0.0.3"])).expect("announced");
    found(&mut events, 3, &["127.0.0.3:6789"]).await;
    let stopped = forger.shutdown().expect("stopping");
    let _ = stopped.recv_async().await;
}

/// A daemon of the test itself, for records that a node would not send and for the view of others.
fn on_loopback() -> ServiceDaemon {
    let daemon = ServiceDaemon::new().expect("a daemon");
    daemon.disable_interface(IfKind::All).expect("configured");
    daemon.enable_interface("lo").expect("configured");
    daemon.set_service_name_len_max(30).expect("configured");
    daemon
}

#[test]
fn flood_of_records_is_bounded_and_survived() {
    namespace::run("flood_of_records_is_bounded_and_survived", || {
        block_on(flood());
    });
}

async fn flood() {
    let mut config = DiscoveryConfig::new("zerocache");
    config.mdns = Some(MdnsConfig { interface: Some("lo".parse().expect("an interface")) });
    config.interval = Duration::from_millis(200);
    let (discovery, mut events) = start(config);
    assert_eq!(next(&mut events).await, Event::Complete);
    let forger = on_loopback();
    for number in 0..RECORDS_MAX + 400 {
        let name = format!("flood-{number}");
        let host = format!("{name}.local.");
        let fields = [("cluster", "zerocache"), ("region", "london")];
        let mut service =
            ServiceInfo::new(NATIVE, &name, &host, "127.0.0.9", 1, &fields[..]).expect("a record");
        service.set_requires_probe(false);
        while let Err(Error::Again) = forger.register(service.clone()) {
            std::thread::yield_now();
        }
    }
    // This blocks the only thread of the runtime, so that the daemon finds its receiver slow.
    std::thread::sleep(Duration::from_secs(3));
    while discovery.counts().browse_restarts == 0 {
        drained(&mut events);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while discovery.counts().over_limit == 0 {
        drained(&mut events);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The flood ends, but most of its records stay until their TTL: a real node still gets its
    // share of a channel that is smaller than the records are many.
    let stopped = forger.shutdown().expect("stopping");
    let _ = stopped.recv_async().await;
    let (peer, _at_peer) = mdns("zerocache");
    peer.announce(&announcement("sydney", 3, &["127.0.0.3"])).expect("announced");
    found(&mut events, 3, &["127.0.0.3:6789"]).await;
}

#[test]
fn python_client_finds_a_node_in_compatibility_mode() {
    namespace::run("python_client_finds_a_node_in_compatibility_mode", || block_on(for_python()));
}

async fn for_python() {
    let (discovery, _events) = mdns("zerocache");
    let announcement = Announcement {
        python: PythonRecord::OfNode,
        ..announcement("london", 1, &["127.0.0.2", "::1"])
    };
    discovery.announce(&announcement).expect("announced");
    let observer = on_loopback();
    let seen = observer.browse(PYTHON).expect("browsing");
    let (mut name, mut gone) = (None, None);
    while gone.is_none() {
        let event = timeout(PATIENCE, seen.recv_async()).await.expect("an event in time");
        match event.expect("browsing continues") {
            ServiceEvent::ServiceResolved(service) if name.is_none() => {
                assert_eq!(service.get_property_val_str("region"), Some("london"));
                assert_eq!(service.get_port(), 6789);
                let addresses: Vec<IpAddr> =
                    service.get_addresses().iter().map(|scoped| scoped.to_ip_addr()).collect();
                assert_eq!(addresses, [IpAddr::from([127, 0, 0, 2])]);
                name = Some(service.get_fullname().to_owned());
                discovery.withdraw().await;
            }
            ServiceEvent::ServiceRemoved(_, fullname) => gone = Some(fullname),
            _ => {}
        }
    }
    assert_eq!(gone, name);
    let stopped = observer.shutdown().expect("stopping");
    let _ = stopped.recv_async().await;
}

#[test]
fn python_clients_of_this_host_find_a_node_on_loopback_only() {
    namespace::run("python_clients_of_this_host_find_a_node_on_loopback_only", || {
        block_on(for_local_python());
    });
}

async fn for_local_python() {
    // Without an interface of its own choice the daemon leaves loopback out.
    let (discovery, _events) = mdns_on("zerocache", None);
    let python = PythonRecord::Loopback("127.0.0.1:6790".parse().expect("an address"));
    let announcement = Announcement { python, ..announcement("london", 1, &["127.0.0.2"]) };
    discovery.announce(&announcement).expect("announced");
    let observer = on_loopback();
    let seen = observer.browse(PYTHON).expect("browsing");
    loop {
        let event = timeout(PATIENCE, seen.recv_async()).await.expect("an event in time");
        if let ServiceEvent::ServiceResolved(service) = event.expect("browsing continues") {
            assert_eq!(service.get_port(), 6790);
            let addresses = service.get_addresses().iter().map(|scoped| scoped.to_ip_addr());
            assert_eq!(addresses.collect::<Vec<_>>(), [IpAddr::from([127, 0, 0, 1])]);
            break;
        }
    }
    discovery.shutdown().await;
    let stopped = observer.shutdown().expect("stopping");
    let _ = stopped.recv_async().await;
}

#[test]
fn all_addresses_of_a_name_are_proposed_and_changes_noticed() {
    namespace::run_with_hosts(
        "all_addresses_of_a_name_are_proposed_and_changes_noticed",
        "127.0.0.1 localhost\n127.0.0.2 cache\n127.0.0.3 cache\n127.0.0.4 cache\n::1 seed\n",
        || block_on(names()),
    );
}

async fn names() {
    let mut config = DiscoveryConfig::new("zerocache");
    config.dns = vec!["cache:6789".parse().expect("a name"), "later:1".parse().expect("a name")];
    config.seeds = vec!["seed:6790".parse().expect("a name")];
    config.interval = Duration::from_millis(200);
    let (discovery, mut events) = start(config);
    let mut known = BTreeSet::new();
    loop {
        match next(&mut events).await {
            Event::Proposed(proposal) => known.extend(said(proposal)),
            Event::Complete => break,
            Event::Withdrawn(proposal) => panic!("withdrawn: {proposal:?}"),
        }
    }
    let expected = [
        ("127.0.0.2:6789", Source::Dns),
        ("127.0.0.3:6789", Source::Dns),
        ("127.0.0.4:6789", Source::Dns),
        ("[::1]:6790", Source::Seed),
    ]
    .map(|(address, source)| (address.to_owned(), source as u8));
    assert_eq!(known, BTreeSet::from(expected));
    assert!(discovery.counts().lookups_failed > 0, "\"later\" has no address yet");

    namespace::set_hosts("127.0.0.5 cache\n127.0.0.6 later\n");
    let mut missing = BTreeSet::from(["127.0.0.5:6789".to_owned(), "127.0.0.6:1".to_owned()]);
    while !missing.is_empty() {
        if let Event::Proposed(proposal) = next(&mut events).await {
            for (address, _) in said(proposal) {
                missing.remove(&address);
            }
        }
    }
    discovery.shutdown().await;
}

fn said(proposal: Proposal) -> impl Iterator<Item = (String, u8)> {
    let source = proposal.source as u8;
    proposal.addresses.into_iter().map(move |address| (address.to_string(), source))
}
