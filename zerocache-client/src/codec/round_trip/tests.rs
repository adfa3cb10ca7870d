//! What is written, and what is refused because it would not come back as itself.

use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::tests::there_and_back;
use crate::codec::{Codec, CodecError, encode_as};

/// Encodes in bincode, whatever another codec could do.
fn encode<T: Serialize + DeserializeOwned>(value: &T) -> Result<Bytes, CodecError> {
    encode_as(value, Codec::Bincode)
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
fn each_value_of_a_type_is_checked() {
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
fn value_whose_parts_are_read_in_place_of_others_is_refused() {
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
fn value_that_decodes_with_other_contents_is_refused() {
    is_refused(&Signs(2));
    there_and_back(Trimmed("a".to_owned()));
    is_refused(&Trimmed(" a".to_owned()));
    is_refused(&BTreeMap::from([(1, vec![Trimmed("a".to_owned()), Trimmed("a ".to_owned())])]));
}

#[test]
fn collections_may_decode_in_another_order() {
    let numbers = || 0..1_000_u32;
    is_written(&numbers().collect::<HashSet<_>>());
    is_written(&numbers().map(|n| (n, n.to_string())).collect::<HashMap<_, _>>());
    is_written(&numbers().map(|n| n % 7).collect::<BinaryHeap<_>>());
    let nested = numbers().map(|n| (n, HashSet::from([n, n + 1, n + 2])));
    is_written(&nested.collect::<HashMap<_, _>>());
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
fn value_that_omits_a_field_is_refused() {
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
fn value_that_would_decode_as_another_variant_is_refused() {
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
fn variant_after_a_skipped_one_and_one_with_an_alias_is_refused() {
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
fn fields_with_aliases_are_encoded() {
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
fn variants_with_aliases_are_encoded() {
    there_and_back(vec![Aliased::First, Aliased::Second(1), Aliased::Third { field: 1 }]);
}
