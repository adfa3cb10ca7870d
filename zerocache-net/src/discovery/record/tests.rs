//! Validation of records, our own ones included.

use zerocache_core::name::NAME_BYTES_MAX;

use super::{super::error::check_name, *};

type Fields<'a> = &'a [(&'a str, &'a str)];

const GOOD: Fields<'_> =
    &[("cluster", "zerocache"), ("region", "london"), ("incarnation", "00000000000000ff")];

fn resolved(addresses: &str, port: u16, fields: Fields<'_>) -> ResolvedService {
    ServiceInfo::new(TYPE_NATIVE, "x", "x.local.", addresses, port, fields)
        .unwrap()
        .as_resolved_service()
}

fn judge(addresses: &str, port: u16, fields: Fields<'_>) -> Result<Proposal, Reject> {
    proposal(&resolved(addresses, port, fields), "zerocache")
}

fn announcement(addresses: &[&str]) -> Announcement {
    Announcement {
        region: "sydney".into(),
        incarnation: 0xfedc_ba98_7654_3210,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        port: 6789,
        python: PythonRecord::OfNode,
    }
}

#[test]
fn valid_record_becomes_a_proposal() {
    let proposal = judge("127.0.0.2", 6789, GOOD).unwrap();
    assert_eq!(proposal.addresses, ["127.0.0.2:6789".parse().unwrap()]);
    assert_eq!(proposal.region.as_deref(), Some("london"));
    assert_eq!(proposal.incarnation, Some(255));
    assert_eq!(proposal.source, Source::Mdns);
}

#[test]
fn record_without_a_required_field_is_rejected() {
    let without_region: Fields<'_> = &[("cluster", "zerocache")];
    let other: Fields<'_> = &[("cluster", "staging"), ("region", "london")];
    let empty: Fields<'_> = &[("cluster", "zerocache"), ("region", "")];
    let control: Fields<'_> = &[("cluster", "zerocache"), ("region", "a\nb")];
    assert_eq!(judge("127.0.0.2", 6789, without_region), Err(Reject::NoRegion));
    assert_eq!(judge("127.0.0.2", 6789, empty), Err(Reject::NoRegion));
    assert_eq!(judge("127.0.0.2", 6789, control), Err(Reject::NoRegion));
    assert_eq!(judge("127.0.0.2", 6789, other), Err(Reject::OtherCluster));
    assert_eq!(judge("127.0.0.2", 6789, &[("region", "london")]), Err(Reject::NoCluster));
    assert_eq!(judge("127.0.0.2", 6789, &[]), Err(Reject::NoCluster));
    assert_eq!(judge("127.0.0.2", 0, GOOD), Err(Reject::NoPort));
    assert_eq!(judge("0.0.0.0,224.0.0.251,255.255.255.255", 1, GOOD), Err(Reject::NoAddress));
}

#[test]
fn record_with_a_non_text_region_is_rejected() {
    let fields = vec![
        mdns_sd::TxtProperty::from(("cluster", "zerocache")),
        mdns_sd::TxtProperty::from(("region", &[0xff_u8, 0xfe][..])),
    ];
    let service = ServiceInfo::new(TYPE_NATIVE, "x", "x.local.", "127.0.0.2", 1, fields);
    let service = service.unwrap().as_resolved_service();
    assert_eq!(proposal(&service, "zerocache"), Err(Reject::NoRegion));
}

#[test]
fn unknown_fields_and_a_bad_incarnation_are_tolerated() {
    for bad in ["", "+1", "xyz", "11112222333344445"] {
        let fields = [
            ("colour", "blue"),
            ("cluster", "zerocache"),
            ("region", "london"),
            ("incarnation", bad),
            ("version", "999"),
        ];
        let proposal = judge("127.0.0.2", 6789, &fields).unwrap();
        assert_eq!(proposal.incarnation, None, "{bad}");
    }
}

#[test]
fn addresses_are_ordered_and_bounded() {
    // Link-local IPv6 without an interface is left out.
    let proposal = judge("fe80::1,2001:db8::1,169.254.0.1,10.0.0.2,10.0.0.1", 1, GOOD).unwrap();
    let expected = ["10.0.0.1:1", "10.0.0.2:1", "[2001:db8::1]:1", "169.254.0.1:1"];
    assert_eq!(proposal.addresses, expected.map(|address| address.parse().unwrap()));

    let many: Vec<String> = (0..100).map(|last| format!("10.0.0.{last}")).collect();
    let proposal = judge(&many.join(","), 1, GOOD).unwrap();
    assert_eq!(proposal.addresses.len(), ADDRESSES_PER_RECORD_MAX);
}

#[test]
fn announced_record_is_accepted() {
    let announcement = announcement(&["127.0.0.2", "::1"]);
    let service = native("zerocache", &announcement).unwrap();
    assert!(!service.requires_probe() && !service.is_addr_auto());
    let proposal = proposal(&service.as_resolved_service(), "zerocache").unwrap();
    assert_eq!(proposal.incarnation, Some(announcement.incarnation));
    assert_eq!(proposal.region, Some(announcement.region));
    assert_eq!(proposal.addresses.len(), 2);
}

#[test]
fn python_record_has_only_the_region_and_ipv4_addresses() {
    let service = python(&announcement(&["127.0.0.2", "::1"])).unwrap().unwrap();
    assert_eq!(service.get_type(), TYPE_PYTHON);
    assert_eq!(service.get_property_val_str("region"), Some("sydney"));
    assert_eq!(service.get_properties().len(), 1);
    assert_eq!(service.get_addresses().len(), 1);
    assert!(python(&announcement(&["::1"])).unwrap().is_none());
    assert!(python(&announcement(&[])).unwrap().unwrap().is_addr_auto());
}

#[test]
fn longest_name_can_be_announced() {
    let longest = "x".repeat(NAME_BYTES_MAX);
    check_name("cluster", &longest).unwrap();
    let announcement = Announcement { region: longest.clone(), ..announcement(&[]) };
    native(&longest, &announcement).unwrap();
    assert!(check_name("cluster", &"x".repeat(NAME_BYTES_MAX + 1)).is_err());
    assert!(check_name("region", "").is_err());
}
