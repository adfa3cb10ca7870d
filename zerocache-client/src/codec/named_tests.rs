//! Values that bincode does not read back, and the choice of the codec.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::tests::there_and_back_in;
use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flattened {
    id: u64,
    #[serde(flatten)]
    part: Part,
    #[serde(flatten)]
    rest: BTreeMap<String, Json>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    address: IpAddr,
    next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Fraction(f64),
    Address(IpAddr),
    Numbers(BTreeMap<u64, u8>),
    Named { name: String, address: IpAddr },
    Many(Vec<Untagged>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Tagged {
    Created { id: u64, by: IpAddr, labels: BTreeMap<String, i32> },
    Part(Part),
    Nothing,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sparse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u32>,
    second: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    third: Vec<Sparse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fourth: Option<String>,
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)]
}

fn fraction() -> impl Strategy<Value = f64> {
    use prop::num::f64::{INFINITE, NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    POSITIVE | NEGATIVE | NORMAL | SUBNORMAL | ZERO | INFINITE
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        fraction().prop_map(Json::from),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

fn part() -> impl Strategy<Value = Part> {
    (address(), any::<Option<String>>()).prop_map(|(address, next)| Part { address, next })
}

fn flattened() -> impl Strategy<Value = Flattened> {
    // Names that are not those of fields.
    let rest = prop::collection::btree_map("x[a-z]{0,6}", json(), 0..4);
    (any::<u64>(), part(), rest).prop_map(|(id, part, rest)| Flattened { id, part, rest })
}

fn untagged() -> impl Strategy<Value = Untagged> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Untagged::Number),
        fraction().prop_map(Untagged::Fraction),
        address().prop_map(Untagged::Address),
        // An empty map is read as one whatever its keys are.
        any::<BTreeMap<u64, u8>>().prop_map(Untagged::Numbers),
        (any::<String>(), address()).prop_map(|(name, address)| Untagged::Named { name, address }),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop::collection::vec(inner, 1..3).prop_map(Untagged::Many)
    })
}

fn tagged() -> impl Strategy<Value = Tagged> {
    let labels = any::<BTreeMap<String, i32>>();
    prop_oneof![
        (any::<u64>(), address(), labels).prop_map(|(id, by, labels)| Tagged::Created {
            id,
            by,
            labels
        }),
        part().prop_map(Tagged::Part),
        Just(Tagged::Nothing),
    ]
}

fn sparse() -> impl Strategy<Value = Sparse> {
    let fields = (any::<Option<u32>>(), any::<u8>(), any::<Option<String>>());
    let leaf = fields.clone().prop_map(|(first, second, fourth)| Sparse {
        first,
        second,
        fourth,
        ..Sparse::default()
    });
    leaf.prop_recursive(2, 8, 3, move |inner| {
        (fields.clone(), prop::collection::vec(inner, 0..3))
            .prop_map(|((first, second, fourth), third)| Sparse { first, second, third, fourth })
    })
}

/// Checks that the value is read back from MessagePack and from what `Auto` writes.
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    for codec in [Codec::MessagePack, Codec::Auto] {
        let bytes = encode_compared(value, codec).expect("encodes");
        assert_eq!(decode::<T>(&bytes).as_ref(), Ok(value), "{codec:?}");
    }
    let bytes = encode_as(value, Codec::MessagePack).expect("encodes");
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(value));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn json_is_read_back(value in json()) {
        survives(&value);
    }

    #[test]
    fn flattened_fields_are_read_back(value in flattened()) {
        survives(&value);
    }

    #[test]
    fn untagged_enums_are_read_back(value in untagged()) {
        survives(&value);
    }

    #[test]
    fn internally_tagged_enums_are_read_back(value in tagged()) {
        survives(&value);
    }

    #[test]
    fn omitted_fields_are_read_back(value in sparse()) {
        survives(&value);
    }

    #[test]
    fn kinds_inside_of_each_other_are_read_back(
        value in prop::collection::vec((flattened(), untagged(), tagged(), sparse()), 0..3),
    ) {
        survives(&value);
    }

    #[test]
    fn decoding_messagepack_never_panics(payload: Vec<u8>) {
        let mut bytes = encode_as(&Sparse::default(), Codec::MessagePack).expect("encodes").to_vec();
        bytes.truncate(HEADER_LEN);
        bytes.extend(&payload);
        let _ = decode::<Sparse>(&bytes);
        let mut bytes = encode_as(&Json::Null, Codec::MessagePack).expect("encodes").to_vec();
        bytes.truncate(HEADER_LEN);
        bytes.extend(payload);
        let _ = decode::<Json>(&bytes);
    }
}

#[test]
fn messagepack_is_read_from_nothing_less_or_more() {
    there_and_back_in(&Sparse { second: 1, ..Sparse::default() }, Codec::MessagePack);
    there_and_back_in(&Untagged::Many(vec![Untagged::Number(1)]), Codec::MessagePack);
    there_and_back_in(&serde_json::json!({ "a": [1, "b", null] }), Codec::MessagePack);
    there_and_back_in(&(u128::MAX, i128::MIN, 'ß', f32::MIN_POSITIVE), Codec::MessagePack);
    there_and_back_in(&vec![u128::MAX, 0], Codec::MessagePack);
    there_and_back_in(&(), Codec::MessagePack);
    there_and_back_in(&vec![(); 3], Codec::MessagePack);
    let nan = encode_as(&f64::NAN, Codec::MessagePack).expect("encodes");
    assert_eq!(decode::<f64>(&nan).map(f64::to_bits), Ok(f64::NAN.to_bits()));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Pins what is stored. A change here makes stored values unreadable.
#[test]
fn golden_bytes_of_messagepack() {
    let sparse = Sparse { second: 7, fourth: Some("a".to_owned()), ..Sparse::default() };
    let tagged = Tagged::Created { id: 300, by: [127, 0, 0, 1].into(), labels: BTreeMap::new() };
    let values = [
        encode_as(&sparse, Codec::MessagePack),
        encode_as(&tagged, Codec::MessagePack),
        encode_as(&serde_json::json!({ "a": [1, -1, 0.5, null, true] }), Codec::MessagePack),
    ];
    let values = values.map(|bytes| hex(&bytes.expect("encodes")));
    assert_eq!(values, GOLDEN);
}

const GOLDEN: [&str; 3] = [
    "8264a269f9900ca99982a67365636f6e6407a6666f75727468a161",
    "82c885be54b9ae92b384a474797065a763726561746564a26964cd012ca26279a93132372e302e302e31a66c6162656c7380",
    "82c885be54b9ae92b381a1619501ffcb3fe0000000000000c0c3",
];

#[test]
fn deep_nesting_is_refused() {
    let mut value = Json::Null;
    for _ in 0..200 {
        value = Json::Array(vec![value]);
    }
    assert!(matches!(encode(&value), Err(CodecError::Encode(_))));
}

/// The field is never written, so that its value would be lost.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    #[serde(default, skip_serializing)]
    secret: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<u8>,
}

/// Writes all the fields that [`Account`] reads, and one more.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct WiderAccount {
    secret: u8,
    note: Option<u8>,
    more: u8,
}

/// Writes all the fields that [`Account`] reads.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct WholeAccount {
    secret: u8,
    note: Option<u8>,
}

/// Variants with the same fields, of which one does not write all.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Holder {
    Public {
        id: u8,
        #[serde(default, skip_serializing)]
        secret: u8,
    },
    Full {
        id: u8,
        secret: u8,
    },
}

/// An alias cannot be told from a field that is never written.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Aliased {
    #[serde(alias = "remark", skip_serializing_if = "Option::is_none")]
    note: Option<u8>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Skipping {
    #[serde(skip)]
    #[allow(dead_code, reason = "only its place counts")]
    Skipped,
    Second(u8),
}

/// Reads less than was written.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Trimmed(#[serde(deserialize_with = "trimmed")] String);

fn trimmed<'de, D: serde::Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    Ok(String::deserialize(input)?.trim().to_owned())
}

#[test]
fn value_that_messagepack_would_read_as_another_one_is_refused() {
    fn is_refused<T: Serialize + DeserializeOwned>(value: &T) {
        assert!(matches!(encode_as(value, Codec::MessagePack), Err(CodecError::Encode(_))));
    }
    is_refused(&Account { secret: 7, note: None });
    is_refused(&vec![Some(Account { secret: 7, note: Some(1) })]);
    // Whatever else is in the value.
    let whole = || WholeAccount { secret: 1, note: None };
    is_refused(&(Account { secret: 7, note: None }, whole()));
    let wider = || WiderAccount { secret: 1, note: None, more: 2 };
    is_refused(&(Account { secret: 7, note: Some(1) }, wider()));
    is_refused(&vec![(wider(), Account { secret: 7, note: Some(1) }, whole())]);
    there_and_back_in(&vec![(wider(), whole())], Codec::MessagePack);
    is_refused(&(vec![whole(), whole()], Some(Account { secret: 7, note: Some(1) })));
    let full = || Holder::Full { id: 1, secret: 2 };
    is_refused(&vec![full(), Holder::Public { id: 3, secret: 4 }, full()]);
    there_and_back_in(&vec![full(), full()], Codec::MessagePack);
    is_refused(&Aliased { note: Some(1) });
    is_refused(&Trimmed(" a".to_owned()));
    is_refused(&Some(None::<u8>));
    // Variants have names here.
    there_and_back_in(&Skipping::Second(1), Codec::MessagePack);
}

#[test]
fn auto_writes_bincode_unless_it_does_not_read_back() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Local(Option<Option<u8>>, Vec<Small>);
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Small {
        #[serde(skip_serializing_if = "Option::is_none")]
        first: Option<u8>,
    }
    let tag = |value: &Local| encode(value).expect("encodes")[0];
    let whole = Local(Some(Some(1)), vec![Small { first: Some(1) }]);
    let sparse = || vec![Small { first: None }];
    assert_eq!(encode(&7_u64).expect("encodes")[0], TAG);
    // A value for which bincode fails decides for the next one of the type, but not for all.
    assert_eq!(tag(&whole), TAG);
    assert_eq!(tag(&Local(None, sparse())), MessagePack::TAG, "a field is left out");
    assert_eq!(tag(&whole), MessagePack::TAG);
    assert_eq!(tag(&whole), TAG);
    // What neither reads back is refused, and decides nothing.
    assert!(encode(&Local(Some(None), sparse())).is_err());
    assert_eq!(tag(&whole), TAG);
    assert!(encode(&Account { secret: 7, note: None }).is_err());
    assert!(encode(&Trimmed(" a".to_owned())).is_err());
    assert_eq!(encode(&Trimmed("a".to_owned())).expect("encodes")[0], TAG);
    // What MessagePack alone does not read back is written by bincode.
    assert_eq!(encode(&Some(None::<u8>)).expect("encodes")[0], TAG);
    assert_eq!(tag(&Local(None, sparse())), MessagePack::TAG);
    assert_eq!(tag(&Local(Some(None), vec![])), TAG);
}

#[test]
fn values_that_no_codec_reads_back_cost_no_other_value() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Odd(Option<Option<u8>>, Trimmed);
    let odd = |text: &str| encode(&Odd(Some(None), Trimmed(text.to_owned())));
    for _ in 0..20 {
        assert!(odd(" a").is_err());
    }
    // This one is read back by bincode alone.
    for _ in 0..20 {
        assert_eq!(odd("a").expect("encodes")[0], TAG);
        assert!(odd(" a").is_err());
    }
}

#[test]
fn shape_goes_on_behind_any_value() {
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only read")]
    struct Behind<A, B>(A, B);
    let of_any = shape_of::<Behind<Json, u32>>();
    assert_ne!(of_any, shape_of::<Behind<Json, u64>>());
    assert_ne!(of_any, shape_of::<Behind<u64, u32>>());
    assert_ne!(shape_of::<Behind<Json, Sparse>>(), shape_of::<Behind<Json, Account>>());
    // A struct with a `flatten` field does not go on.
    assert_eq!(shape_of::<Behind<Flattened, u32>>(), shape_of::<Behind<Flattened, u64>>());
}

#[test]
fn codecs_are_named() {
    for (text, codec) in
        [("auto", Codec::Auto), ("bincode", Codec::Bincode), ("messagepack", Codec::MessagePack)]
    {
        assert_eq!(text.parse(), Ok(codec));
    }
    let error = "json".parse::<Codec>().expect_err("there is none");
    assert!(error.contains("\"json\"") && error.contains("messagepack"), "{error}");
}
