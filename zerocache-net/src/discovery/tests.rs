//! Discovery without multicast: names and seeds on loopback addresses, which need no resolver.
//! mDNS runs in `zerocache-tests`, inside a network namespace.

use super::*;

fn config(seeds: &[&str], dns: &[&str]) -> DiscoveryConfig {
    let names = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    DiscoveryConfig { seeds: names(seeds), dns: names(dns), ..DiscoveryConfig::new("test") }
}

fn proposed(event: Event) -> Proposal {
    match event {
        Event::Proposed(proposal) => proposal,
        other => panic!("expected a proposal, got {other:?}"),
    }
}

#[tokio::test]
async fn seeds_and_names_are_proposed_before_completion() {
    let (sender, mut events) = mpsc::channel(16);
    let config = config(&["127.0.0.1:7001"], &["127.0.0.2:7002", "[::1]:7003"]);
    let discovery = Discovery::start(config, sender).unwrap();
    let mut found = Vec::new();
    loop {
        match events.recv().await.unwrap() {
            Event::Proposed(proposal) => found.push(proposal),
            Event::Complete => break,
            Event::Withdrawn(proposal) => panic!("withdrawn: {proposal:?}"),
        }
    }
    found.sort_by_key(|proposal| proposal.addresses[0].port());
    let sources: Vec<_> = found.iter().map(|proposal| proposal.source).collect();
    assert_eq!(sources, [Source::Seed, Source::Dns, Source::Dns]);
    assert_eq!(found[0].addresses, ["127.0.0.1:7001".parse().unwrap()]);
    assert_eq!(found[2].addresses, ["[::1]:7003".parse().unwrap()]);
    assert_eq!(discovery.counts().proposed, 3);
    discovery.shutdown().await;
    assert_eq!(events.recv().await, None);
}

#[tokio::test]
async fn discovery_without_sources_completes_at_once() {
    let (sender, mut events) = mpsc::channel(1);
    let discovery = Discovery::start(config(&[], &[]), sender).unwrap();
    assert_eq!(events.recv().await, Some(Event::Complete));
    let announcement = Announcement {
        region: "london".into(),
        incarnation: 1,
        addresses: Vec::new(),
        port: 1,
        python: PythonRecord::None,
    };
    discovery.announce(&announcement).unwrap();
    discovery.withdraw().await;
}

#[tokio::test]
async fn unresolvable_name_is_counted_and_delays_completion_to_its_bound() {
    let (sender, mut events) = mpsc::channel(1);
    let started = clock::elapsed();
    // An empty label: no resolver is asked.
    let discovery = Discovery::start(config(&["a..b:1"], &[]), sender).unwrap();
    assert_eq!(events.recv().await, Some(Event::Complete));
    // A failure is no answer: it was tried again until the end.
    assert!(
        clock::elapsed().saturating_sub(started)
            >= INITIAL_DISCOVERY_MAX - Duration::from_millis(10)
    );
    assert!(discovery.counts().lookups_failed > 1);
    let [status] = &discovery.sources()[..] else { panic!("one seed") };
    assert_eq!((status.source, status.name.as_str()), (Source::Seed, "a..b:1"));
    assert!(matches!(status.state, SourceState::Unresolved(_)), "{status:?}");
}

#[tokio::test]
async fn known_addresses_are_proposed_again() {
    let (sender, mut events) = mpsc::channel(16);
    let mut config = config(&["127.0.0.1:7001"], &[]);
    config.interval = Duration::from_millis(100);
    let _discovery = Discovery::start(config, sender).unwrap();
    let first = proposed(events.recv().await.unwrap());
    assert_eq!(events.recv().await, Some(Event::Complete));
    assert_eq!(proposed(events.recv().await.unwrap()), first);
}

#[tokio::test]
async fn full_channel_drops_proposals_but_not_completion() {
    let (sender, mut events) = mpsc::channel(1);
    let names: Vec<String> = (1..=20).map(|last| format!("127.0.0.{last}:1")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let discovery = Discovery::start(config(&[], &names), sender).unwrap();
    // Nobody receives until all have answered.
    while discovery.counts().proposed + discovery.counts().dropped < 20 {
        tokio::task::yield_now().await;
    }
    proposed(events.recv().await.unwrap());
    assert_eq!(events.recv().await, Some(Event::Complete));
    assert_eq!((discovery.counts().proposed, discovery.counts().dropped), (1, 19));
}

#[tokio::test]
async fn invalid_configuration_is_refused() {
    let start = |config| Discovery::start(config, mpsc::channel(1).0).map(drop);
    let error = start(DiscoveryConfig::new("")).unwrap_err().to_string();
    assert!(error.starts_with("cluster: \"\" is not a name"), "{error}");
    let many: Vec<&str> = vec!["localhost:1"; NAMES_MAX + 1];
    let error = start(config(&many, &[])).unwrap_err().to_string();
    assert_eq!(error, "65 seeds: at most 64 are allowed");

    let discovery = Discovery::start(config(&[], &[]), mpsc::channel(1).0).unwrap();
    let announcement = Announcement {
        region: String::new(),
        incarnation: 1,
        addresses: Vec::new(),
        port: 0,
        python: PythonRecord::None,
    };
    assert!(discovery.announce(&announcement).is_err());
    let announcement = Announcement { region: "london".into(), ..announcement };
    assert!(matches!(discovery.announce(&announcement), Err(DiscoveryError::NoPort)));
}

#[test]
fn names_of_a_source_that_is_off_are_not_used() {
    let all = || DiscoveryConfig {
        mdns: Some(MdnsConfig::default()),
        ..config(&["127.0.0.1:1"], &["x:1"])
    };
    let none = all().restricted_to(DiscoverySet::NONE);
    assert!(none.mdns.is_none() && none.dns.is_empty() && none.seeds.is_empty());
    let seeds = all().restricted_to(DiscoverySet::SEEDS);
    assert!(seeds.mdns.is_none() && seeds.dns.is_empty());
    assert_eq!(seeds.seeds, all().seeds);
}
