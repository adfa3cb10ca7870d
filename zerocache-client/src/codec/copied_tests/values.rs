//! Types whose values serde reads from a copy, each of which can lose something there, and their values.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// Comparable types, and the same ones without `PartialEq`.
macro_rules! both {
    ($comparable:ident, $other:ident, $($item:item)*) => {
        pub(crate) mod $comparable {
            use super::*;
            $(#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)] $item)*
        }
        #[allow(dead_code, reason = "some is only shown")]
        pub(crate) mod $other {
            use super::*;
            $(#[derive(Clone, Debug, Serialize, Deserialize)] $item)*
        }
    };
}

both! { comparable, incomparable,
    pub(crate) struct Inner {
        pub(crate) x: u8,
        #[serde(skip_serializing, default)]
        pub(crate) lost: u8,
    }

    pub(crate) struct Flattened {
        pub(crate) id: u8,
        #[serde(flatten)]
        pub(crate) inner: Inner,
    }

    pub(crate) struct FlattenedBeside {
        #[serde(skip_serializing, default)]
        pub(crate) lost: u8,
        #[serde(flatten)]
        pub(crate) rest: BTreeMap<String, u8>,
    }

    #[serde(untagged)]
    pub(crate) enum Fitting {
        A { x: u64 },
        B { x: u64, #[serde(default)] y: u64 },
        Lost(Inner),
    }

    #[serde(untagged)]
    pub(crate) enum Number {
        Fraction(f64),
        Integer(i64),
        Many(Vec<Number>),
    }

    #[serde(tag = "type")]
    pub(crate) enum Tagged {
        Fields { x: u8, #[serde(skip_serializing, default)] lost: u8 },
        Inner(Inner),
        Nothing,
    }

    #[serde(tag = "type", content = "value")]
    pub(crate) enum Adjacent {
        Fields { x: u8, #[serde(skip_serializing, default)] lost: u8 },
        Inner(Inner),
    }

    pub(crate) enum Variants {
        Plain { x: u8, #[serde(skip_serializing, default)] lost: u8 },
        Flattened { #[serde(flatten)] inner: Inner },
        #[serde(untagged)]
        Untagged { x: u8, #[serde(skip_serializing, default)] lost: u8 },
    }

    pub(crate) struct Skipping {
        pub(crate) x: u8,
        #[serde(skip)]
        pub(crate) lost: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(crate) note: Option<u8>,
    }

    pub(crate) struct Everything {
        pub(crate) parts: Vec<(Flattened, FlattenedBeside, Fitting)>,
        pub(crate) more: HashMap<u8, (Option<Tagged>, Adjacent, Variants)>,
    }
}

macro_rules! strategies {
    ($module:ident) => {
        #[allow(dead_code, reason = "each kind uses a part")]
        pub(crate) mod $module {
            use super::super::$module::*;
            use super::*;

            fn inner() -> impl Strategy<Value = Inner> {
                (any::<u8>(), 0..2_u8).prop_map(|(x, lost)| Inner { x, lost })
            }

            pub(crate) fn flattened() -> impl Strategy<Value = Flattened> {
                (any::<u8>(), inner()).prop_map(|(id, inner)| Flattened { id, inner })
            }

            pub(crate) fn beside() -> impl Strategy<Value = FlattenedBeside> {
                let rest = prop::collection::btree_map("[a-z]", any::<u8>(), 0..3);
                (0..2_u8, rest).prop_map(|(lost, rest)| FlattenedBeside { lost, rest })
            }

            pub(crate) fn fitting() -> impl Strategy<Value = Fitting> {
                prop_oneof![
                    any::<u64>().prop_map(|x| Fitting::A { x }),
                    (any::<u64>(), 0..2_u64).prop_map(|(x, y)| Fitting::B { x, y }),
                    inner().prop_map(Fitting::Lost),
                ]
            }

            pub(crate) fn number() -> impl Strategy<Value = Number> {
                let leaf = prop_oneof![
                    any::<f64>().prop_map(Number::Fraction),
                    Just(Number::Fraction(f64::NAN)),
                    any::<i64>().prop_map(Number::Integer),
                ];
                leaf.prop_recursive(2, 8, 3, |inner| {
                    prop::collection::vec(inner, 0..3).prop_map(Number::Many)
                })
            }

            pub(crate) fn tagged() -> impl Strategy<Value = Tagged> {
                prop_oneof![
                    (any::<u8>(), 0..2_u8).prop_map(|(x, lost)| Tagged::Fields { x, lost }),
                    inner().prop_map(Tagged::Inner),
                    Just(Tagged::Nothing),
                ]
            }

            pub(crate) fn adjacent() -> impl Strategy<Value = Adjacent> {
                prop_oneof![
                    (any::<u8>(), 0..2_u8).prop_map(|(x, lost)| Adjacent::Fields { x, lost }),
                    inner().prop_map(Adjacent::Inner),
                ]
            }

            pub(crate) fn variants() -> impl Strategy<Value = Variants> {
                prop_oneof![
                    (any::<u8>(), 0..2_u8).prop_map(|(x, lost)| Variants::Plain { x, lost }),
                    inner().prop_map(|inner| Variants::Flattened { inner }),
                    (any::<u8>(), 0..2_u8).prop_map(|(x, lost)| Variants::Untagged { x, lost }),
                ]
            }

            pub(crate) fn skipping() -> impl Strategy<Value = Skipping> {
                (any::<u8>(), 0..2_u8, any::<Option<u8>>()).prop_map(|(x, lost, note)| Skipping {
                    x,
                    lost,
                    note,
                })
            }

            pub(crate) fn everything() -> impl Strategy<Value = Everything> {
                let parts = prop::collection::vec((flattened(), beside(), fitting()), 0..2);
                let more = (prop::option::of(tagged()), adjacent(), variants());
                (parts, prop::collection::hash_map(any::<u8>(), more, 0..2))
                    .prop_map(|(parts, more)| Everything { parts, more })
            }
        }
    };
}

pub(super) mod strategy {
    use super::*;
    strategies!(comparable);
    strategies!(incomparable);
}
