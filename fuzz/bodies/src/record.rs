//! Parsing of mDNS records.

use std::net::{IpAddr, Ipv6Addr};

use mdns_sd::{ServiceInfo, TxtProperty};
use zerocache_core::name;
use zerocache_net::discovery::{ADDRESSES_PER_RECORD_MAX, fuzzing};

/// The cluster that looks.
const CLUSTER: &str = "zerocache";

/// Judges a record: `port (2) ‖ n (1) ‖ n addresses (16 each) ‖ TXT strings (length ‖ bytes)`.
pub fn record(data: &[u8]) {
    let Some((head, mut rest)) = data.split_first_chunk::<3>() else { return };
    let port = u16::from_be_bytes([head[0], head[1]]);
    let mut addresses = Vec::new();
    for _ in 0..head[2] {
        let Some((address, more)) = rest.split_first_chunk::<16>() else { break };
        // An IPv4 address is written as an IPv6 address that maps it.
        addresses.push(IpAddr::V6(Ipv6Addr::from(*address)).to_canonical());
        rest = more;
    }
    let mut properties = Vec::new();
    while let Some((length, more)) = rest.split_first() {
        let (text, more) = more.split_at(usize::from(*length).min(more.len()));
        properties.push(property(text));
        rest = more;
    }
    let (kind, host) = ("_zerocache._tcp.local.", "x.local.");
    let service = ServiceInfo::new(kind, "x", host, &addresses[..], port, properties);
    let Ok(service) = service.map(ServiceInfo::as_resolved_service) else { return };
    let Some(proposal) = fuzzing::proposal(&service, CLUSTER) else { return };
    assert!((1..=ADDRESSES_PER_RECORD_MAX).contains(&proposal.addresses.len()), "no such number");
    for address in &proposal.addresses {
        assert!(address.port() == port && port != 0, "a port that the record does not name");
        let ip = address.ip();
        assert!(!ip.is_unspecified() && !ip.is_multicast(), "an address that leads to no node");
    }
    let region = proposal.region.expect("a record without a region was taken");
    assert_eq!(name::check(&region), Ok(()), "a region that is no name");
}

/// One string of a TXT record: `key=value`, or a key alone.
fn property(text: &[u8]) -> TxtProperty {
    match text.iter().position(|byte| *byte == b'=') {
        Some(at) => (String::from_utf8_lossy(&text[..at]), &text[at + 1..]).into(),
        None => (&*String::from_utf8_lossy(text)).into(),
    }
}
