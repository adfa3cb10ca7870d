//! What nodes say of themselves and send where not every node keeps everything.

use alloc::borrow::ToOwned;

use super::*;
use crate::{cluster::Replicas, key::KeyHash, store::CopyRange};

/// A node with a name and a number of replicas.
pub(super) fn named(incarnation: u64) -> NodeInfo {
    let replicas = Replicas::from_number(2);
    NodeInfo { name: Some("cache-2".into()), replicas, ..info(incarnation) }
}

pub(super) fn absent() -> [AbsentNode; 2] {
    let one = AbsentNode {
        name: "127.0.0.1:6789".into(),
        incarnation: Incarnation(5),
        zone: Some("x".into()),
        bytes_max: 1 << 30,
        replicas: Replicas::from_number(2),
        absent_ms: 12_345,
    };
    [AbsentNode { zone: None, ..one.clone() }, one]
}

pub(super) fn requests() -> [Request; 3] {
    let version = Version::new(42 << 16, Incarnation(9));
    let change = Change::Put {
        value: Bytes::new(),
        metadata: Bytes::from_static(b"meta"),
        expires: NOW.plus_ms(1_500),
    };
    let record = Record { key: key("k"), version, change };
    [
        Request::Offer(vec![(KeyHash(7), version), (KeyHash(8), version)]),
        Request::Replicate(vec![ReplicatedRecord { record, relay: true, witness: true }]),
        Request::Copy { first_shard: 3, last_shard: 5, range: CopyRange::default(), owned: true },
    ]
}

#[test]
fn bytes_of_offers_and_of_records_for_witnesses_are_pinned() {
    let hex = |bytes: Bytes| bytes.iter().map(|b| alloc::format!("{b:02x}")).collect::<String>();
    let pinned = requests().map(|request| hex(message(request).encode(NOW)));
    let envelope = "0109f9ab90cdaad1b19568020107040288270502f40306012a";
    let offered = "07000000000000000000000000000000".to_owned()
        + "00000000002a00000000000000000009"
        + "08000000000000000000000000000000"
        + "00000000002a00000000000000000009";
    let expected = [
        alloc::format!("1d{envelope}3840{offered}"),
        alloc::format!(
            "07{envelope}162701016b021000000000002a00000000000000000009030004046d657461\
             0502dc0b060101080101"
        ),
        alloc::format!("0c{envelope}1e0103210105370101"),
    ];
    assert_eq!(pinned, expected);
}

#[test]
fn witness_gets_no_value() {
    let version = Version::new(42 << 16, Incarnation(9));
    let change = Change::Put {
        value: Bytes::from_static(b"a value"),
        metadata: Bytes::new(),
        expires: NOW.plus_ms(1_500),
    };
    let record = Record { key: key("k"), version, change };
    let batch = vec![ReplicatedRecord { record, relay: false, witness: true }];
    let bytes = message(Request::Replicate(batch)).encode(NOW);
    assert!(!bytes.windows(7).any(|window| window == b"a value"));
}

#[test]
fn handshake_without_a_region_survives_the_round_trip() {
    let nowhere = message(Request::Hello(Box::new(Hello { region: String::new(), ..hello() })));
    assert_eq!(RequestMessage::decode(nowhere.encode(NOW), NOW), Ok(nowhere));
}
