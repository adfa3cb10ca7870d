//! Golden keys, and properties of the encoding.

use std::any::type_name_of_val;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::fmt::Write;
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use serde::Serialize;

use super::identity::{normalise, own_path, type_arguments};
use super::*;

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
    let id = Identity::new("shop::Repo<u8>::find::{{closure}}", "find", None, 0).id;
    let named = Identity::new("shop::find::{{closure}}", "find", Some("find"), 1).id;
    let mut short = encoded(&7_u64);
    short.extend(encoded("x"));
    let cases = [
        key("", id, short.clone()),
        key("staging", id, short.clone()),
        key("", named, short),
        key("", id, encoded(&"a".repeat(300))),
    ];
    assert_eq!(
        cases.map(|key| hex(&key)),
        [
            "01000b5416feab476ab737d756bdab3da1ef0b0000000000000007100178",
            "010773746167696e670b5416feab476ab737d756bdab3da1ef0b0000000000000007100178",
            "0100002d8f0b32493109a4acdefabd1d4e660b0000000000000007100178",
            "01000b5416feab476ab737d756bdab3da1efff4d816e8f02c5ccf9558f97cd6cdc6e2ca209d3e34638701555f78da7eed6c866",
        ]
    );
}

#[test]
fn long_arguments_are_hashed_at_the_bound() {
    let id = Identity::new("a::f", "f", None, 0).id;
    let of = |arguments: &[u8]| key("", id, arguments.to_vec())[HEAD..].to_vec();
    let at = encoded(&"a".repeat(ARGUMENTS_INLINE_MAX - 3));
    let above = encoded(&"a".repeat(ARGUMENTS_INLINE_MAX - 2));
    assert_eq!((at.len(), of(&at)), (ARGUMENTS_INLINE_MAX, at));
    let hash = [&[HASHED], &blake3::hash(&above).as_bytes()[..]].concat();
    assert_eq!(of(&above), hash);
}

#[test]
fn references_leave_no_mark() {
    let plain = encoded("ab");
    assert_eq!(encoded(&"ab"), plain);
    assert_eq!(encoded(&&"ab"), plain);
    assert_eq!(encoded(&"ab".to_owned()), plain);
    assert_eq!(encoded(&Box::new("ab")), plain);
    assert_eq!(encoded(&Cow::Borrowed("ab")), plain);
    assert_eq!(encoded(&[1_u8][..]), encoded(&vec![1_u8]));
}

#[test]
fn the_order_of_sets_and_maps_does_not_count() {
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
    assert!(unordered::is_unordered::<&Rc<HashSet<u8>>>());
    assert!(unordered::is_unordered::<Arc<BinaryHeap<u8>>>());
    assert!(!unordered::is_unordered::<BTreeSet<u8>>());
    assert!(!unordered::is_unordered::<Vec<HashSet<u8>>>());
    // The order of a list does count.
    assert_ne!(encoded(&[1, 2][..]), encoded(&[2, 1][..]));
}

#[test]
fn boundaries_and_types_count() {
    let pair = |a: &str, b: &str| [encoded(a), encoded(b)].concat();
    assert_ne!(pair("ab", "c"), pair("a", "bc"));
    assert_ne!(encoded(&1_u8), encoded("1"));
    assert_ne!(encoded(&1_u8), encoded(&1_u16));
    assert_ne!(encoded(&None::<()>), encoded(&()));
    assert_ne!(encoded(&vec![vec![1], vec![]]), encoded(&vec![vec![], vec![1]]));
    assert_ne!(encoded(&0.0_f64), encoded(&-0.0_f64));
}

struct Inner<T>(T);

trait Named {
    fn name(&self) -> String;
    fn default_name(&self) -> String {
        own_path(type_name_of_val(&|| ()), "default_name")
    }
}

impl<T> Inner<T> {
    fn method<U>(&self, _: U) -> String {
        own_path(type_name_of_val(&|| ()), "method")
    }
}

impl<T> Named for Inner<T> {
    fn name(&self) -> String {
        own_path(type_name_of_val(&|| ()), "name")
    }
}

impl Named for &'static str {
    fn name(&self) -> String {
        own_path(type_name_of_val(&|| ()), "name")
    }
}

fn array<const N: usize>(_: impl Sized) -> String {
    own_path(type_name_of_val(&|| ()), "array")
}

/// What this compiler writes. When one of these changes with a new compiler, `normalise` should
/// bring it back to the old text.
#[test]
fn golden_identities() {
    let here = "zerocache_client::memo::key::tests";
    let found = [
        Inner(1_u8).method(String::new()),
        Inner(Some(1_u8)).name(),
        Inner(1_u8).default_name(),
        "x".name(),
        array::<3>([0_u8; 2]),
    ];
    assert_eq!(
        found.map(|path| normalise(&path).replace(here, "HERE")),
        [
            "HERE::Inner<u8>::method<std::string::String>",
            "<HERE::Inner<std::option::Option<u8>> as HERE::Named>::name",
            "<HERE::Inner<u8> as HERE::Named>::default_name",
            "<&str as HERE::Named>::name",
            "HERE::array<3,[u8;2]>",
        ]
    );
}

#[test]
fn normalising_takes_out_what_means_nothing() {
    for (path, normal) in [
        ("a::f", "a::f"),
        ("a::f<alloc::string::String>", "a::f<std::string::String>"),
        ("a::f<core::option::Option<u8>,  u8>", "a::f<std::option::Option<u8>,u8>"),
        ("<a::S<'_> as a::T<'static, u8>>::f", "<a::S as a::T<u8>>::f"),
        ("a::f<&'a str>", "a::f<&str>"),
        ("a::f<&mut u8>", "a::f<&mut u8>"),
        ("a::f<dyn b::T + 'static>", "a::f<dyn b::T +>"),
        ("a::core::f", "a::core::f"),
        ("my_core::f<my_alloc::X>", "my_core::f<my_alloc::X>"),
        ("a::f<'x'>", "a::f<'x'>"),
    ] {
        assert_eq!(normalise(path), normal, "{path}");
    }
    assert_eq!(own_path("a::b_call<u8>::{{closure}}::{{closure}}", "b"), "a::b<u8>");
    assert_eq!(own_path("<a::S<x::Y> as a::T>::g::{{closure}}", "g"), "<a::S<x::Y> as a::T>::g");
    assert_eq!(own_path("a::f<fn(u8) -> b::C>::{{closure}}", "f"), "a::f<fn(u8) -> b::C>");
}

#[test]
fn a_name_keeps_type_arguments_apart() {
    assert_eq!(type_arguments("a::f"), "");
    assert_eq!(type_arguments("a::S<u8>::f<b::C<u16>>"), "<u8><b::C<u16>>");
    assert_eq!(type_arguments("<a::S as a::T>::f"), "<a::S as a::T>");
    let id = |path: &str, name, version| Identity::new(path, "f", name, version).id;
    assert_eq!(id("a::f", Some("n"), 0), id("b::f", Some("n"), 0), "a name outlives a move");
    assert_ne!(id("a::f<u8>", Some("n"), 0), id("a::f<u16>", Some("n"), 0));
    assert_ne!(id("a::f", Some("n"), 0), id("a::f", Some("n"), 1));
    assert_ne!(id("a::f", Some("a::f"), 0), id("a::f", None, 0));
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
            let id = Identity::new("a::f", "f", None, *version).id;
            key(namespace, id, concatenated(list))
        };
        prop_assert_eq!(a == b, of(&a) == of(&b));
    }
}

/// Pins where values of another shape are. A change of it has each release look in places of its own.
#[test]
fn golden_keys_beside_others() {
    let shape = std::array::from_fn(|at| at as u8);
    assert_eq!(
        hex(&beside(b"key", shape)),
        "fe000102030405060708090a0b0c0d0e0f10\
         ff8e2bab3b26e0c127002127905539b47eb421de85d554e15f55a446459b52b4"
    );
    let other = std::array::from_fn(|at| at as u8 + 1);
    let keys = [beside(b"key", shape), beside(b"kex", shape), beside(b"key", other)];
    assert_eq!(BTreeSet::from_iter(&keys).len(), 3);
    assert!(keys.iter().all(|key| key[0] != SCHEME && key.len() == keys[0].len()));
}
