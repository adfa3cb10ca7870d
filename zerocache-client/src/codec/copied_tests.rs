//! Values that serde reads from a copy of its input: each is read back as itself, or not written.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use proptest::prelude::*;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value as Json, json};

use super::*;

mod values;

use values::{comparable, incomparable, strategy};

const CODECS: [Codec; 3] = [Codec::Auto, Codec::Bincode, Codec::MessagePack];

/// Checks a value that is compared: it is equal to what is read back, in whatever codec, or is not written.
fn is_itself<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    for codec in CODECS {
        let Ok(bytes) = encode_compared(value, codec) else { continue };
        let again = decode::<T>(&bytes).expect("is read back");
        // A NaN is equal to nothing.
        let text = |value: &T| format!("{value:?}");
        assert!(again == *value || text(&again) == text(value), "{codec:?}: {again:?}, {value:?}");
    }
}

/// Checks a value that cannot be compared: it is the same in all that it shows, or is not written.
fn is_same<T: Serialize + DeserializeOwned + Debug>(value: &T) {
    for codec in [Codec::Auto, Codec::Bincode] {
        let Ok(bytes) = encode_as(value, codec) else { continue };
        let again = decode::<T>(&bytes).expect("is read back");
        assert_eq!(format!("{again:?}"), format!("{value:?}"), "{codec:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn comparable_value_is_written_only_if_it_is_read_back_equal(
        flattened in strategy::comparable::flattened(),
        beside in strategy::comparable::beside(),
        fitting in strategy::comparable::fitting(),
        number in strategy::comparable::number(),
        tagged in strategy::comparable::tagged(),
        adjacent in strategy::comparable::adjacent(),
        variants in strategy::comparable::variants(),
        skipping in strategy::comparable::skipping(),
        everything in strategy::comparable::everything(),
    ) {
        is_itself(&flattened);
        is_itself(&beside);
        is_itself(&fitting);
        is_itself(&number);
        is_itself(&tagged);
        is_itself(&adjacent);
        is_itself(&variants);
        is_itself(&skipping);
        is_itself(&everything);
    }

    #[test]
    fn incomparable_value_is_written_only_if_it_is_read_back_the_same(
        flattened in strategy::incomparable::flattened(),
        beside in strategy::incomparable::beside(),
        fitting in strategy::incomparable::fitting(),
        number in strategy::incomparable::number(),
        tagged in strategy::incomparable::tagged(),
        adjacent in strategy::incomparable::adjacent(),
        variants in strategy::incomparable::variants(),
        everything in strategy::incomparable::everything(),
    ) {
        is_same(&flattened);
        is_same(&beside);
        is_same(&fitting);
        is_same(&number);
        is_same(&tagged);
        is_same(&adjacent);
        is_same(&variants);
        is_same(&everything);
    }
}

/// Checks that the choice `auto` refuses a value that is not compared, because of a copy; with `named`, that
/// MessagePack writes it if it is named.
fn is_unproven<T: Serialize + DeserializeOwned>(value: &T) {
    assert_eq!(encode(value), Err(CodecError::Unproven));
    assert_ne!(encode_as(value, Codec::MessagePack), Err(CodecError::Unproven));
}

#[test]
fn value_that_is_read_from_a_copy_and_not_compared_is_not_written() {
    use incomparable::{
        Everything, Fitting, Flattened, FlattenedBeside, Inner, Number, Tagged, Variants,
    };
    let inner = || Inner { x: 1, lost: 0 };
    is_unproven(&Flattened { id: 1, inner: inner() });
    is_unproven(&vec![Some(FlattenedBeside { lost: 0, rest: BTreeMap::new() })]);
    is_unproven(&Fitting::A { x: 1 });
    is_unproven(&(1, Number::Integer(1)));
    is_unproven(&Tagged::Nothing);
    is_unproven(&[Variants::Flattened { inner: inner() }]);
    is_unproven(&Variants::Untagged { x: 1, lost: 0 });
    // If there is none in a value, it is written.
    assert!(encode(&None::<Fitting>).is_ok());
    assert!(encode(&Everything { parts: vec![], more: HashMap::new() }).is_ok());
}

#[test]
fn comparable_value_is_written_if_nothing_of_it_is_lost() {
    use comparable::{Adjacent, Fitting, Flattened, Inner, Skipping, Tagged, Variants};
    fn is_written<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
        assert_eq!(
            decode::<T>(&encode_compared(value, Codec::Auto).expect("encodes")).as_ref(),
            Ok(value)
        );
    }
    fn is_refused<T: Serialize + DeserializeOwned + PartialEq>(value: &T) {
        for codec in CODECS {
            assert!(matches!(encode_compared(value, codec), Err(CodecError::Encode(_))));
        }
    }
    let inner = |lost| Inner { x: 1, lost };
    is_written(&Flattened { id: 1, inner: inner(0) });
    is_refused(&Flattened { id: 1, inner: inner(7) });
    is_written(&Fitting::A { x: 1 });
    is_refused(&Fitting::B { x: 1, y: 0 });
    is_refused(&vec![Fitting::A { x: 1 }, Fitting::Lost(inner(0))]);
    is_written(&(1, Tagged::Inner(inner(0))));
    is_refused(&(1, Tagged::Fields { x: 1, lost: 7 }));
    is_written(&Variants::Untagged { x: 1, lost: 0 });
    is_refused(&Variants::Flattened { inner: inner(7) });
    // Fields that serde skips, in any codec.
    is_written(&Skipping { x: 1, lost: 0, note: Some(1) });
    is_refused(&Skipping { x: 1, lost: 7, note: Some(1) });
    is_refused(&Adjacent::Inner(inner(7)));
}

#[test]
fn nan_says_nothing_of_a_value_and_of_its_type() {
    use comparable::Number;
    for codec in CODECS {
        let pair = (1, f64::NAN, "a".to_owned());
        let bytes = encode_compared(&pair, codec).expect("it is observed whole");
        let again = decode::<(i32, f64, String)>(&bytes).expect("is read back");
        assert_eq!(format!("{again:?}"), format!("{pair:?}"));
    }
    // Whether this one is another variant cannot be seen.
    let value = Number::Many(vec![Number::Fraction(f64::NAN), Number::Integer(1)]);
    assert_eq!(encode_compared(&value, Codec::Auto), Err(CodecError::Unproven));
    assert!(encode_compared(&Number::Fraction(1.5), Codec::Auto).is_ok());
    assert!(encode_compared(&Number::Integer(1), Codec::Auto).is_err(), "it is read as a fraction");
}

/// Types that are what they read, if it is anything.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    first: Json,
    second: Option<Box<Json>>,
    third: Box<str>,
    fourth: HashMap<String, Wrapper>,
    fifth: serde_json::Number,
    sixth: Vec<Loose>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Wrapper(Json);

/// A number that may be written as a text.
#[derive(Debug, Serialize)]
struct Loose(u64);

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl serde::de::Visitor<'_> for NumberOrText {
            type Value = Loose;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a number or a text")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Loose, E> {
                Ok(Loose(number))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Loose, E> {
                text.parse().map(Loose).map_err(E::custom)
            }
        }
        input.deserialize_any(NumberOrText)
    }
}

#[test]
fn type_that_is_what_it_reads_is_written_without_a_comparison() {
    let all = || json!({ "a": [1, -1, 0.5, null, true, "b", { "c": {} }], "d": u64::MAX });
    let value = Holder {
        first: all(),
        second: Some(Box::new(all())),
        third: "text".into(),
        fourth: HashMap::from([("key".to_owned(), Wrapper(all()))]),
        fifth: 7.into(),
        sixth: vec![Loose(1), Loose(2)],
    };
    let bytes = encode(&value).expect("encodes");
    let again = decode::<Holder>(&bytes).expect("is read back");
    assert_eq!(format!("{again:?}"), format!("{value:?}"));
    for value in [all(), Json::Null, json!([]), json!({})] {
        assert_eq!(decode::<Json>(&encode(&value).expect("encodes")), Ok(value));
    }
}

/// Reads a struct after it has asked for anything: what the struct asks for is not seen.
#[derive(Serialize)]
struct Late(incomparable::Inner);

impl<'de> Deserialize<'de> for Late {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> serde::de::Visitor<'de> for Map {
            type Value = Late;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a struct")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Late, A::Error> {
                let input = serde::de::value::MapAccessDeserializer::new(map);
                incomparable::Inner::deserialize(input).map(Late)
            }
        }
        input.deserialize_any(Map)
    }
}

/// Expects anything, as the copies of other crates do.
#[derive(Serialize)]
struct CopiedElsewhere(u64);

impl<'de> Deserialize<'de> for CopiedElsewhere {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Anything;
        impl serde::de::Visitor<'_> for Anything {
            type Value = CopiedElsewhere;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("any value")
            }
            fn visit_u64<E>(self, number: u64) -> Result<CopiedElsewhere, E> {
                Ok(CopiedElsewhere(number))
            }
        }
        input.deserialize_any(Anything)
    }
}

#[test]
fn type_that_may_copy_is_taken_for_one_that_does() {
    is_unproven(&Late(incomparable::Inner { x: 1, lost: 7 }));
    is_unproven(&vec![CopiedElsewhere(1)]);
}
