//! Golden bytes and shapes, and what decoding refuses.

use std::collections::{BTreeMap, HashMap};
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

pub(super) fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    there_and_back_in(&value, Codec::Bincode);
}

/// Checks that a value is read back from its bytes in `codec`, and from nothing less or more.
pub(super) fn there_and_back_in<T>(value: &T, codec: Codec)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let bytes = encode_as(value, codec).expect("encodes");
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(value));
    for length in 0..bytes.len() {
        assert!(decode::<T>(&bytes[..length]).is_err(), "cut to {length} bytes");
    }
    assert!(decode::<T>(&[&bytes[..], b"!"].concat()).is_err(), "with a byte more");
}

#[test]
fn value_decodes_as_itself_only() {
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
fn owned_text_and_bytes_decode_at_any_depth() {
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
fn other_shape_is_refused() {
    let bytes = encode(&Size { width: 1, height: 2 }).expect("encodes");
    assert_eq!(decode::<swapped::Size>(&bytes).map(|s| s.width), Err(CodecError::Shape));
    assert_eq!(decode::<wider::Size>(&bytes).map(|s| s.width), Err(CodecError::Shape));
    assert_eq!(decode::<(u32, u32)>(&bytes), Err(CodecError::Shape));
    // The difference is inside the second variant.
    assert_ne!(shape_of::<Event>(), shape_of::<fewer::Event>());
}

#[test]
fn raw_bytes_do_not_decode() {
    for raw in [&b""[..], b"text that is longer than a header", b"{\"a\":1,\"b\":2}"] {
        assert_eq!(decode::<String>(raw), Err(CodecError::Untyped));
    }
}

#[test]
fn forged_length_allocates_nothing() {
    let mut bytes = encode(&String::from("a")).expect("encodes").to_vec();
    bytes.truncate(HEADER_LEN);
    // bincode's mark for a length of eight bytes, and the largest one.
    bytes.push(253);
    bytes.extend([0xff; 8]);
    assert!(matches!(decode::<String>(&bytes), Err(CodecError::Decode(_))));
}

#[test]
fn elements_without_bytes_are_refused() {
    fn bincode<T: Serialize + DeserializeOwned>(value: &T) -> Result<Bytes, CodecError> {
        encode_as(value, Codec::Bincode)
    }
    #[derive(Clone, Serialize, Deserialize)]
    struct Empty;
    #[derive(Serialize, Deserialize)]
    struct Nested {
        inner: Vec<(Empty, [(); 3])>,
    }
    assert!(matches!(bincode(&vec![(); 3]), Err(CodecError::Encode(_))));
    assert!(bincode(&Nested { inner: vec![] }).is_err());
    assert!(bincode(&std::collections::BTreeMap::from([((), Empty)])).is_err());
    assert!(bincode(&((), Empty, [(); 3], vec![Some(())], vec![((), 1u8)])).is_ok());

    let mut forged = vec![TAG];
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
fn unseen_enum_is_not_confused_with_its_namesake() {
    there_and_back(namesake::Status::Other);
    for status in [Status::Open, Status::Shut] {
        there_and_back((Strict("strict".to_owned()), status));
    }
}

#[test]
fn enums_of_one_name_have_different_shapes() {
    there_and_back(Event::Started);
    there_and_back(namesake::Event::Other);
    there_and_back(namesake::Event::Started);
    there_and_back(Event::Moved(-1, 2));
    there_and_back((IpAddr::from([127, 0, 0, 1]), std::ops::Bound::Included(1), Ok::<u8, u8>(1)));
}
