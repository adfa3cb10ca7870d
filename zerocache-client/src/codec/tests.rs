//! Golden bytes and shapes, and what decoding refuses.

use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::fmt::Debug;
use std::net::IpAddr;
use std::num::NonZeroU32;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Size {
    width: u32,
    height: u32,
}

mod swapped {
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    pub(super) struct Size {
        pub(super) height: u32,
        pub(super) width: u32,
    }
}

mod wider {
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    pub(super) struct Size {
        pub(super) width: u64,
        pub(super) height: u32,
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Started,
    Moved(i32, i32),
    Said { text: String },
    Nested(Box<Event>),
    Many(Vec<Event>),
}

mod fewer {
    #[derive(serde::Deserialize)]
    #[allow(dead_code)]
    pub(super) enum Event {
        Started,
        Moved(i32, i64),
        Said { text: String },
        Nested(Box<Event>),
        Many(Vec<Event>),
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Chain {
    value: u8,
    next: Option<Box<Chain>>,
    by_name: BTreeMap<String, Chain>,
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum Endless {
    One(Box<Endless>),
    Two(Box<Endless>, u8),
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let bytes = encode(&value).expect("encodes");
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(&value));
    for length in 0..bytes.len() {
        assert!(decode::<T>(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    assert!(decode::<T>(&[&bytes[..], b"!"].concat()).is_err(), "with a byte more");
}

#[test]
fn values_come_back_and_nothing_else_is_taken_for_them() {
    there_and_back(7_u64);
    there_and_back(String::from("text"));
    there_and_back(Some(Size { width: 1, height: 2 }));
    there_and_back(vec![
        Event::Started,
        Event::Moved(-1, 2),
        Event::Said { text: "a".to_owned() },
        Event::Nested(Box::new(Event::Many(vec![Event::Started]))),
    ]);
    let end = Chain { value: 2, next: None, by_name: BTreeMap::new() };
    there_and_back(Chain {
        value: 1,
        next: Some(Box::new(end.clone())),
        by_name: BTreeMap::from([("a".to_owned(), end)]),
    });
    there_and_back((NonZeroU32::MIN, IpAddr::from([127, 0, 0, 1])));
    there_and_back(HashMap::from([(1_u8, 'a')]));
}

/// Takes owned text and bytes, as `serde_bytes` does, inside of everything that has parts.
#[derive(Clone, Debug, PartialEq)]
struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taken;
        impl serde::de::Visitor<'_> for Taken {
            type Value = Raw;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }
        }
        deserializer.deserialize_byte_buf(Taken)
    }
}

#[test]
fn owned_text_and_bytes_are_read_at_any_depth() {
    type Deep = BTreeMap<String, Vec<Option<(String, Result<String, [String; 2]>)>>>;
    let texts = vec![None, Some(("a".to_owned(), Ok("b".to_owned())))];
    let errors = vec![Some(("ä".to_owned(), Err(["c".to_owned(), String::new()])))];
    there_and_back::<Deep>(BTreeMap::from([("x".to_owned(), texts), (String::new(), errors)]));
    there_and_back((Wrapped("text".to_owned()), 'ß', 1.5_f64, -7_i128, u128::MAX, ()));
    // As bincode itself writes bytes.
    let bytes = encode(&vec![Raw(vec![1, 2]), Raw(vec![])]).expect("encodes");
    assert_eq!(decode::<Vec<Raw>>(&bytes), Ok(vec![Raw(vec![1, 2]), Raw(vec![])]));
    let mut broken = encode(&"ab".to_owned()).expect("encodes").to_vec();
    *broken.last_mut().expect("it has bytes") = 0xff;
    assert!(matches!(decode::<String>(&broken), Err(CodecError::Decode(_))), "no UTF-8");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(String);

/// Pins what is stored. A change here makes every stored value a miss.
#[test]
fn golden_bytes() {
    let size = encode(&Size { width: 1, height: 300 }).expect("encodes");
    assert_eq!(hex(&size), "81f93213e2115f224901fb2c01");
    assert_eq!(hex(&encode(&7_u64).expect("encodes")), "81821e432d8589827c07");
    let shapes = [
        shape::of::<Event>().fingerprint,
        shape::of::<Chain>().fingerprint,
        shape::of::<Result<Option<String>, Vec<u8>>>().fingerprint,
        shape::of::<IpAddr>().fingerprint,
        shape::of::<Endless>().fingerprint,
    ];
    assert_eq!(
        shapes.map(|shape| format!("{shape:016x}")),
        [
            "b81b1ac3bc8308c1",
            "95b3e593da0befe0",
            "da91a9f0f8565097",
            "ba834c115e9585e7",
            "96ef7eb438a93961"
        ]
    );
}

#[test]
fn another_shape_is_refused() {
    let bytes = encode(&Size { width: 1, height: 2 }).expect("encodes");
    assert_eq!(decode::<swapped::Size>(&bytes).map(|s| s.width), Err(CodecError::Shape));
    assert_eq!(decode::<wider::Size>(&bytes).map(|s| s.width), Err(CodecError::Shape));
    assert_eq!(decode::<(u32, u32)>(&bytes), Err(CodecError::Shape));
    // The difference is inside the second variant.
    assert_ne!(shape::of::<Event>(), shape::of::<fewer::Event>());
}

#[test]
fn raw_bytes_are_no_typed_value() {
    for raw in [&b""[..], b"text that is longer than a header", b"{\"a\":1,\"b\":2}"] {
        assert_eq!(decode::<String>(raw), Err(CodecError::Untyped));
    }
}

#[test]
fn a_forged_length_reserves_nothing() {
    let mut bytes = encode(&String::from("a")).expect("encodes").to_vec();
    bytes.truncate(HEADER_LEN);
    // bincode's mark for a length of eight bytes, and the largest one.
    bytes.push(253);
    bytes.extend([0xff; 8]);
    assert!(matches!(decode::<String>(&bytes), Err(CodecError::Decode(_))));
}

#[test]
fn elements_without_bytes_are_neither_written_nor_read() {
    #[derive(Clone, Serialize, Deserialize)]
    struct Empty;
    #[derive(Serialize, Deserialize)]
    struct Nested {
        inner: Vec<(Empty, [(); 3])>,
    }
    assert!(matches!(encode(&vec![(); 3]), Err(CodecError::Encode(_))));
    assert!(encode(&Nested { inner: vec![] }).is_err());
    assert!(encode(&std::collections::BTreeMap::from([((), Empty)])).is_err());
    assert!(encode(&((), Empty, [(); 3], vec![Some(())], vec![((), 1u8)])).is_ok());

    let mut forged = vec![Bincode::TAG];
    forged.extend_from_slice(&shape::of::<Vec<()>>().fingerprint.to_be_bytes());
    forged.push(253);
    forged.extend([0x3f; 8]);
    assert!(matches!(decode::<Vec<()>>(&forged), Err(CodecError::Decode(_))));
}

#[test]
fn raw_values_are_stored_as_they_are() {
    let all = [
        "bar".into_value(),
        b"bar".into_value(),
        (*b"bar").into_value(),
        b"bar"[..].into_value(),
        String::from("bar").into_value(),
        (&String::from("bar")).into_value(),
        b"bar".to_vec().into_value(),
        (&b"bar".to_vec()).into_value(),
        Bytes::from_static(b"bar").into_value(),
        (&Bytes::from_static(b"bar")).into_value(),
        std::borrow::Cow::Borrowed("bar").into_value(),
    ];
    for value in all {
        assert_eq!(value, Ok(Bytes::from_static(b"bar")));
    }
    let typed = Value(&7_u64).into_value().expect("encodes");
    assert_eq!(decode::<u64>(&typed), Ok(7));
}

/// What is read in place of the field is what follows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    #[serde(default, skip_serializing)]
    cursor: u32,
    items: Vec<u32>,
    total: u32,
}

/// Can only be written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    Number { value: u64 },
}

fn is_refused<T: Serialize + DeserializeOwned>(value: &T) {
    for _ in 0..2 {
        let refused = encode(value).expect_err("is not written");
        assert!(matches!(refused, CodecError::Encode(_)), "{refused}");
    }
}

fn is_written<T: Serialize + DeserializeOwned>(value: &T) {
    assert!(encode(value).is_ok());
}

#[test]
fn a_value_says_nothing_of_the_next_one_of_its_type() {
    let page = Page { cursor: 0, items: vec![1, 7], total: 9 };
    is_written(&None::<Page>);
    is_refused(&Some(page.clone()));
    is_written(&Vec::<Page>::new());
    is_refused(&vec![page.clone()]);
    is_written(&HashMap::<u8, Page>::new());
    is_refused(&HashMap::from([(1_u8, page.clone())]));
    is_written(&Err::<Page, u8>(1));
    is_refused(&Ok::<Page, u8>(page));
    is_written(&Vec::<Untagged>::new());
    is_refused(&vec![Untagged::Number(1)]);
    is_written(&(1, None::<Tagged>));
    is_refused(&(1, Some(Tagged::Number { value: 1 })));
    is_written(&[None::<Beside>, None]);
    is_refused(&[None, Some(Beside::Number(1))]);
    is_refused(&[Some(Beside::Named { text: String::new() }), None]);
}

/// Bytes of one number after the other, under names that do not agree.
#[derive(Serialize, Deserialize)]
#[allow(dead_code, reason = "only read")]
struct Shifted {
    #[serde(skip_serializing, default)]
    read: u8,
    both: u8,
    #[serde(skip_deserializing, default = "seven")]
    written: u8,
}

fn seven() -> u8 {
    7
}

#[derive(Serialize, Deserialize)]
#[allow(dead_code, reason = "only read")]
struct Replaced {
    #[serde(skip_serializing, default)]
    read: u8,
    #[serde(skip_deserializing)]
    written: u8,
}

#[test]
fn what_is_read_in_the_place_of_something_else_is_refused() {
    // All of these are read, and written again with the same bytes.
    is_refused(&Shifted { read: 0, both: 7, written: 7 });
    is_refused(&Replaced { read: 5, written: 0 });
    is_refused(&[Replaced { read: 5, written: 0 }]);
}

/// Its numbers are written and read with another sign.
#[derive(Serialize, Deserialize)]
struct Signs(#[serde(with = "signs")] i64);

mod signs {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(number: &i64, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64(number.unsigned_abs())
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(input: D) -> Result<i64, D::Error> {
        i64::deserialize(input)
    }
}

/// Reads less than was written.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Trimmed(#[serde(deserialize_with = "trimmed")] String);

fn trimmed<'de, D: serde::Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    Ok(String::deserialize(input)?.trim().to_owned())
}

#[test]
fn what_comes_back_with_other_contents_is_refused() {
    is_refused(&Signs(2));
    there_and_back(Trimmed("a".to_owned()));
    is_refused(&Trimmed(" a".to_owned()));
    is_refused(&BTreeMap::from([(1, vec![Trimmed("a".to_owned()), Trimmed("a ".to_owned())])]));
}

#[test]
fn collections_come_back_in_another_order() {
    let numbers = || 0..1_000_u32;
    is_written(&numbers().collect::<HashSet<_>>());
    is_written(&numbers().map(|n| (n, n.to_string())).collect::<HashMap<_, _>>());
    is_written(&numbers().map(|n| n % 7).collect::<BinaryHeap<_>>());
    let nested = numbers().map(|n| (n, HashSet::from([n, n + 1, n + 2])));
    is_written(&nested.collect::<HashMap<_, _>>());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn decoding_never_panics(bytes: Vec<u8>, payload: Vec<u8>) {
        let _ = decode::<Vec<Event>>(&bytes);
        let mut typed = encode(&Vec::<Event>::new()).expect("encodes").to_vec();
        typed.truncate(HEADER_LEN);
        typed.extend(payload);
        let _ = decode::<Vec<Event>>(&typed);
    }
}

/// With the first field left out the bytes of the others would be those of another value.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Sparse {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u8>,
    second: u8,
    third: Option<u8>,
}

#[test]
fn what_leaves_a_field_out_is_not_written() {
    let sparse = |first, second, third| Sparse { first, second, third };
    there_and_back(sparse(Some(1), 2, Some(3)));
    let refused = |written: Result<Bytes, CodecError>| {
        assert!(matches!(&written, Err(CodecError::Encode(why)) if why.contains("`first`")));
    };
    let left_out = || sparse(None, 0, Some(0));
    refused(encode(&left_out()));
    refused(encode(&vec![Some((1, left_out()))]));
    refused(encode(&HashMap::from([("key".to_owned(), Ok::<_, u8>(Box::new(left_out())))])));
}

/// Variants behind a skipped one are read as the next.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Skipping {
    First,
    #[serde(skip)]
    #[allow(dead_code, reason = "only its place counts")]
    Skipped(std::io::ErrorKind),
    Second(u8),
    Third {
        field: u8,
    },
    Fourth,
    Fifth(u8, u8),
}

#[test]
fn what_would_be_read_as_another_variant_is_not_written() {
    there_and_back(vec![Skipping::First]);
    for value in
        [Skipping::Second(1), Skipping::Third { field: 1 }, Skipping::Fourth, Skipping::Fifth(1, 2)]
    {
        is_refused(&vec![Some(value)]);
    }
}

/// What is written as the third one is read as the fourth: its name stands where the third one's would.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum AliasedAndSkipping {
    #[serde(alias = "Zero")]
    First,
    #[serde(skip)]
    #[allow(dead_code, reason = "only its place counts")]
    Skipped,
    Third(u8),
    Fourth(u8),
    Fifth(u8),
}

#[test]
fn a_variant_behind_a_skipped_one_and_one_with_an_alias_is_not_written() {
    there_and_back(AliasedAndSkipping::First);
    is_refused(&AliasedAndSkipping::Third(1));
    is_refused(&AliasedAndSkipping::Fourth(1));
    is_refused(&AliasedAndSkipping::Fifth(1));
}

/// Fields with several names.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Renamed {
    #[serde(alias = "a", alias = "zero")]
    first: u8,
    #[serde(rename = "2", alias = "b")]
    second: Option<Box<Renamed>>,
    third: u8,
}

#[test]
fn fields_with_aliases_are_written() {
    let inner = Renamed { first: 1, second: None, third: 2 };
    there_and_back(Renamed { first: 3, second: Some(Box::new(inner)), third: 4 });
}

/// Asks for a name first, as a text or as a number.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
enum Beside {
    Number(u64),
    Named { text: String },
}

/// Names that are read as well stand among those of the variants.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Aliased {
    #[serde(alias = "Zero", alias = "Anew")]
    First,
    #[serde(rename = "2", alias = "Second")]
    Second(u8),
    Third {
        field: u8,
    },
}

#[test]
fn variants_with_aliases_are_written() {
    there_and_back(vec![Aliased::First, Aliased::Second(1), Aliased::Third { field: 1 }]);
}

mod namesake {
    //! Enums of one name.

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub enum Event {
        Other,
        Started,
    }

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub enum Status {
        Other,
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Status {
    Open,
    Shut,
}

/// A date, as it were: what it is written as must be such, so that its recording ends here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Strict(String);

impl TryFrom<String> for Strict {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text == "strict" { Ok(Strict(text)) } else { Err("is not strict".to_owned()) }
    }
}

impl From<Strict> for String {
    fn from(Strict(text): Strict) -> Self {
        text
    }
}

#[test]
fn an_enum_that_was_not_seen_is_not_taken_for_its_namesake() {
    there_and_back(namesake::Status::Other);
    for status in [Status::Open, Status::Shut] {
        there_and_back((Strict("strict".to_owned()), status));
    }
}

#[test]
fn enums_of_one_name_are_told_apart() {
    there_and_back(Event::Started);
    there_and_back(namesake::Event::Other);
    there_and_back(namesake::Event::Started);
    there_and_back(Event::Moved(-1, 2));
    there_and_back((IpAddr::from([127, 0, 0, 1]), std::ops::Bound::Included(1), Ok::<u8, u8>(1)));
}
