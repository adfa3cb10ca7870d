//! Golden keys, and properties of the encoding.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use serde::Serialize;
use zerocache_core::access::Prefix;

use super::identity::tests::{ORIGIN, identity};
use super::order::Order;
use super::*;
use crate::memo::site::FunctionInfo;

fn encoded<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    encode(value, &mut out).expect("encodes");
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writes to a string");
        text
    })
}

#[derive(Serialize)]
struct Point {
    x: i32,
    y: f64,
}
#[derive(Serialize)]
struct Unit;
#[derive(Serialize)]
struct Meters(u16);
#[derive(Serialize)]
struct Pair(u8, u8);
#[derive(Serialize)]
enum Kind {
    Plain,
    One(u8),
    Two(u8, u8),
    Named { a: u8 },
}

/// Pins every kind of value. A line that changes is a new scheme, never an update of this table.
#[test]
fn golden_encodings() {
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("false", encoded(&false), "01"),
        ("true", encoded(&true), "02"),
        ("i8", encoded(&-2_i8), "03fe"),
        ("i16", encoded(&-2_i16), "04fffe"),
        ("i32", encoded(&-2_i32), "05fffffffe"),
        ("i64", encoded(&-2_i64), "06fffffffffffffffe"),
        ("i128", encoded(&-2_i128), "07fffffffffffffffffffffffffffffffe"),
        ("u8", encoded(&2_u8), "0802"),
        ("u16", encoded(&2_u16), "090002"),
        ("u32", encoded(&2_u32), "0a00000002"),
        ("u64", encoded(&2_u64), "0b0000000000000002"),
        ("usize", encoded(&2_usize), "0b0000000000000002"),
        ("u128", encoded(&2_u128), "0c00000000000000000000000000000002"),
        ("f32", encoded(&1.5_f32), "0d3fc00000"),
        ("f64", encoded(&1.5_f64), "0e3ff8000000000000"),
        ("-0.0", encoded(&-0.0_f64), "0e8000000000000000"),
        ("char", encoded(&'é'), "0f000000e9"),
        ("str", encoded("ab"), "10026162"),
        ("long str", encoded(&"a".repeat(200))[..4].to_vec(), "10c80161"),
        ("none", encoded(&None::<u8>), "12"),
        ("some", encoded(&Some(1_u8)), "130801"),
        ("unit", encoded(&()), "14"),
        ("unit struct", encoded(&Unit), "1504556e6974"),
        ("unit variant", encoded(&Kind::Plain), "16044b696e6405506c61696e"),
        ("newtype", encoded(&Meters(5)), "17064d6574657273090005"),
        ("newtype variant", encoded(&Kind::One(1)), "18044b696e64034f6e650801"),
        ("seq", encoded(&[1_u8, 2][..]), "190801080200"),
        ("set", encoded(&HashSet::from([2_u8, 1])), "1a0801080200"),
        ("heap", encoded(&BinaryHeap::from([2_u8, 1])), "1a0801080200"),
        ("tuple", encoded(&(1_u8, 'a')), "1b08010f0000006100"),
        ("tuple struct", encoded(&Pair(1, 2)), "1c04506169720801080200"),
        ("tuple variant", encoded(&Kind::Two(1, 2)), "1d044b696e640354776f0801080200"),
        (
            "map",
            encoded(&BTreeMap::from([(1_u8, 'b'), (0, 'a')])),
            "1e08000f0000006108010f0000006200",
        ),
        (
            "struct",
            encoded(&Point { x: 1, y: 0.0 }),
            "1f05506f696e7421017805000000012101790e000000000000000000",
        ),
        ("struct variant", encoded(&Kind::Named { a: 1 }), "20044b696e64054e616d6564210161080100"),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(hex(bytes), *expected, "{name}");
    }
}

fn key(namespace: &str, function: FunctionId, arguments: Vec<u8>) -> Bytes {
    let mut key = CallKey::new(&function);
    key.arguments().extend_from_slice(&arguments);
    key.complete();
    key.to_bytes(namespace)
}

#[test]
fn golden_keys() {
    let path = "shop::Repo<u8>::find::{{closure}}";
    let id = identity(path, ORIGIN);
    let named = identity(path, FunctionInfo { name: Some("find"), version: 1, ..ORIGIN });
    let local = identity("shop::main::find::{{closure}}", ORIGIN);
    let mut short = encoded(&7_u64);
    short.extend(encoded("x"));
    let cases = [
        key("", id, short.clone()),
        key("staging", id, short.clone()),
        key("", named, short.clone()),
        key("", local, short),
        key("", id, encoded(&"a".repeat(300))),
    ];
    assert_eq!(
        cases.map(|key| hex(&key)),
        [
            "02000b6c6c8de36a7bc78e24574aab1d2b360b0000000000000007100178",
            "020773746167696e670b6c6c8de36a7bc78e24574aab1d2b360b0000000000000007100178",
            "020022e1741227c919db0741caad65c0edba0b0000000000000007100178",
            "02007e5e2b91aa069e8b7e679cf48932fa550b0000000000000007100178",
            "02000b6c6c8de36a7bc78e24574aab1d2b36ff4d816e8f02c5ccf9558f97cd6cdc6e2ca209d3e34638701555f78da7eed6c866",
        ]
    );
}

#[test]
fn variant_is_added_if_the_encoding_lacks_it() {
    let with_variant = |mut bytes: Vec<u8>| {
        add_variant(&mut bytes, 0, 2);
        hex(&bytes)
    };
    assert_eq!(with_variant(encoded(&1_u8)), "08012200000000000000000000000000000002");
    assert_eq!(with_variant(encoded(&Unit))[..14], *"1504556e697422");
    for says_it in [encoded(&Some(1_u8)), encoded(&Kind::Plain), encoded(&Kind::One(1))] {
        assert_eq!(with_variant(says_it.clone()), hex(&says_it));
    }
}

#[test]
fn arguments_above_the_bound_are_hashed() {
    let id = identity("shop::find", ORIGIN);
    let of = |arguments: &[u8]| key("", id, arguments.to_vec())[HEAD..].to_vec();
    let at = encoded(&"a".repeat(ARGUMENTS_INLINE_MAX - 3));
    let above = encoded(&"a".repeat(ARGUMENTS_INLINE_MAX - 2));
    assert_eq!((at.len(), of(&at)), (ARGUMENTS_INLINE_MAX, at));
    let hash = [&[HASHED], &blake3::hash(&above).as_bytes()[..]].concat();
    assert_eq!(of(&above), hash);
}

#[test]
fn references_encode_as_their_values() {
    let plain = encoded("ab");
    assert_eq!(encoded(&"ab"), plain);
    assert_eq!(encoded(&&"ab"), plain);
    assert_eq!(encoded(&"ab".to_owned()), plain);
    assert_eq!(encoded(&Box::new("ab")), plain);
    assert_eq!(encoded(&Cow::Borrowed("ab")), plain);
    assert_eq!(encoded(&[1_u8][..]), encoded(&vec![1_u8]));
}

#[test]
fn order_of_sets_and_maps_does_not_change_the_key() {
    let numbers: Vec<u32> = (0..50).collect();
    let forwards: HashSet<u32> = numbers.iter().copied().collect();
    let backwards: HashSet<u32> = numbers.iter().rev().copied().collect();
    assert_eq!(encoded(&forwards), encoded(&backwards));
    assert_eq!(encoded(&Some(Box::new(&forwards))), encoded(&Some(Box::new(&backwards))));
    assert_eq!(encoded(&(1, vec![&forwards])), encoded(&(1, vec![&backwards])));
    let map = |numbers: &mut dyn Iterator<Item = &u32>| -> HashMap<String, HashSet<u32>> {
        numbers.map(|n| (n.to_string(), forwards.clone())).collect()
    };
    let (one, two) = (map(&mut numbers.iter()), map(&mut numbers.iter().rev()));
    assert_eq!(encoded(&one), encoded(&two));
    assert_eq!(order::of::<&Rc<HashSet<u8>>>(), Order::Random);
    assert_eq!(order::of::<Arc<BinaryHeap<u8>>>(), Order::Random);
    assert_eq!(order::of::<&Cow<'_, HashSet<u8>>>(), Order::Random);
    assert_eq!(order::of::<BTreeSet<u8>>(), Order::Significant);
    assert_eq!(order::of::<Vec<HashSet<u8>>>(), Order::Significant);
    // The order of a list does count.
    assert_ne!(encoded(&[1, 2][..]), encoded(&[2, 1][..]));
}

#[test]
fn boundaries_and_types_change_the_key() {
    let pair = |a: &str, b: &str| [encoded(a), encoded(b)].concat();
    assert_ne!(pair("ab", "c"), pair("a", "bc"));
    assert_ne!(encoded(&1_u8), encoded("1"));
    assert_ne!(encoded(&1_u8), encoded(&1_u16));
    assert_ne!(encoded(&None::<()>), encoded(&()));
    assert_ne!(encoded(&vec![vec![1], vec![]]), encoded(&vec![vec![], vec![1]]));
    assert_ne!(encoded(&0.0_f64), encoded(&-0.0_f64));
}

/// A set that is no standard one.
struct TagSet(Vec<u8>);

impl Serialize for TagSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

fn as_text<S: serde::Serializer>(value: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:.0}"))
}

#[derive(Serialize)]
struct Rounded {
    #[serde(serialize_with = "as_text")]
    price: f32,
}

#[derive(Serialize)]
struct RoundedTo<T>(#[serde(serialize_with = "as_text")] f32, T);

#[derive(Serialize)]
enum Either<T> {
    #[serde(serialize_with = "as_text")]
    Rounded(f32),
    Named {
        #[serde(serialize_with = "as_text")]
        price: f32,
        other: T,
    },
    Exact(T),
}

#[test]
fn ambiguous_value_is_refused() {
    fn why<T: Serialize>(value: T) -> String {
        encode(&value, &mut Vec::new()).expect_err("is refused").to_string()
    }
    assert!(why((1, Some(TagSet(vec![2, 1])))).contains("set whose order"));
    let price = 0.6;
    for why in [
        why(vec![Rounded { price }]),
        why(RoundedTo(price, vec![Some("x")])),
        why(Either::<Vec<u8>>::Rounded(price)),
        why(Either::Named { price, other: Some(1) }),
    ] {
        assert!(why.contains("serialize_with"), "{why}");
    }
    assert_ne!(encoded(&Either::Exact(1)), encoded(&Either::Exact(2)));
}

/// A value of any structure.
#[derive(Clone, Debug, PartialEq, Serialize)]
enum Tree {
    Unit,
    Byte(u8),
    Number(u64),
    Text(String),
    Maybe(Option<Box<Tree>>),
    List(Vec<Tree>),
    Both(Box<Tree>, Box<Tree>),
    Table(BTreeMap<String, Tree>),
    Named { left: Box<Tree>, right: String },
}

/// The same values without the names of variants around them, so that nothing but the encoding of
/// the parts keeps them apart.
struct Bare<'a>(&'a Tree);

impl Serialize for Bare<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Tree::Unit => serializer.serialize_unit(),
            Tree::Byte(byte) => byte.serialize(serializer),
            Tree::Number(number) => number.serialize(serializer),
            Tree::Text(text) => text.serialize(serializer),
            Tree::Maybe(tree) => tree.as_deref().map(Bare).serialize(serializer),
            Tree::List(trees) => serializer.collect_seq(trees.iter().map(Bare)),
            Tree::Both(a, b) => (Bare(a), Bare(b)).serialize(serializer),
            Tree::Table(table) => serializer.collect_map(table.iter().map(|(k, v)| (k, Bare(v)))),
            Tree::Named { left, right } => {
                use serde::ser::SerializeStruct;
                let mut fields = serializer.serialize_struct("Named", 2)?;
                fields.serialize_field("left", &Bare(left))?;
                fields.serialize_field("right", right)?;
                fields.end()
            }
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Unit),
        (0..3_u8).prop_map(Tree::Byte),
        (0..3_u64).prop_map(Tree::Number),
        "[ab]{0,2}".prop_map(Tree::Text),
        Just(Tree::Maybe(None)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| Tree::Maybe(Some(Box::new(t)))),
            prop::collection::vec(inner.clone(), 0..3).prop_map(Tree::List),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| Tree::Both(Box::new(a), Box::new(b))),
            prop::collection::btree_map("[ab]", inner.clone(), 0..3).prop_map(Tree::Table),
            (inner, "[ab]{0,2}")
                .prop_map(|(left, right)| Tree::Named { left: Box::new(left), right }),
        ]
    })
}

/// Argument lists, as a call has them.
fn lists() -> impl Strategy<Value = Vec<Tree>> {
    prop::collection::vec(trees(), 0..4)
}

fn concatenated(list: &[Tree]) -> Vec<u8> {
    list.iter().flat_map(|tree| encoded(&Bare(tree))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn different_arguments_have_different_encodings(a in lists(), b in lists()) {
        prop_assert_eq!(a == b, concatenated(&a) == concatenated(&b));
    }

    #[test]
    fn no_value_is_the_beginning_of_another(a in trees(), b in trees()) {
        let (one, two) = (encoded(&Bare(&a)), encoded(&Bare(&b)));
        prop_assert_eq!(a == b, one.starts_with(&two));
        prop_assert_ne!(one[0], HASHED);
    }

    #[test]
    fn keys_differ_in_namespace_function_and_arguments(
        a in ("[ab]{0,2}", 0..3_u64, lists()),
        b in ("[ab]{0,2}", 0..3_u64, lists()),
    ) {
        let of = |(namespace, version, list): &(String, u64, Vec<Tree>)| {
            let id = identity("shop::find", FunctionInfo { version: *version, ..ORIGIN });
            key(namespace, id, concatenated(list))
        };
        prop_assert_eq!(a == b, of(&a) == of(&b));
    }
}

/// Pins where values of another shape are. A change of it has each release look in places of its own.
#[test]
fn golden_keys_of_shape_entries() {
    let shape = std::array::from_fn(|at| at as u8);
    let head = |namespace: &str, n: u8| {
        let id = identity("shop::find", ORIGIN);
        shape_entry(&key(namespace, id, vec![n]), shape)
    };
    let bytes = hex(&shape_entry(&[&[SCHEME, 0][..], b"key"].concat(), shape));
    assert_eq!(
        bytes,
        "fe00000102030405060708090a0b0c0d0e0f10\
         c766f9ca2c2399e0696d0d507ad2762ef6dfff5dc0dddd45cb5060fa315340b2"
    );
    let in_shop = hex(&head("shop", 1));
    assert!(in_shop.starts_with("fe0473686f70000102030405060708090a0b0c0d0e0f10"), "{in_shop}");
    let other = std::array::from_fn(|at| at as u8 + 1);
    let base = key("", identity("shop::find", ORIGIN), vec![1]);
    let keys = [head("", 1), head("", 2), shape_entry(&base, other)];
    assert_eq!(BTreeSet::from_iter(&keys).len(), 3);
    assert!(keys.iter().all(|key| key[0] != SCHEME && key.len() == keys[0].len()));
    // Of what has no namespace, nothing is read.
    assert_eq!(shape_entry(b"", shape)[..3], [SHAPE_ENTRY, 0, 0]);
}

#[test]
fn permission_for_a_namespace_covers_calls_and_shape_entries_of_it_and_no_others() {
    let keys = ["", "shop", "shops"].map(|namespace| {
        let call = key(namespace, identity("shop::find", ORIGIN), vec![1; 300]);
        [shape_entry(&call, [3; SHAPE_LEN]), call]
    });
    for (at, namespace) in ["", "shop", "shops"].into_iter().enumerate() {
        let prefix = Prefix::Memo(namespace.into());
        for (other, keys) in keys.iter().enumerate() {
            assert!(keys.iter().all(|key| prefix.covers(key) == (at == other)), "{namespace:?}");
        }
    }
}
