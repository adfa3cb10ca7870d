//! Functions and types of one printed name: none is ever given another one's value.

#![cfg(feature = "macros")]
#![allow(coherence_leak_check, reason = "such types have one name, which is the point")]

mod support;

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Display;
use std::future::Future;
use std::sync::Mutex;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use support::{bounded, in_time, other};
use zerocache_client::{ZerocacheClient, zerocache};

/// What became of the calls that were made: those without a key, values stored, and hits.
fn counts(cache: &ZerocacheClient) -> (u64, u64, u64) {
    let stats = cache.memo_stats();
    (stats.unkeyed, stats.stored, stats.hits)
}

#[zerocache(cache, 60, skip(cache, f))]
fn apply<F: Fn(u64) -> u64>(cache: &ZerocacheClient, x: u64, f: F) -> u64 {
    f(x)
}

#[zerocache(cache, 60, skip(cache, f), name = "applied")]
fn apply_named(cache: &ZerocacheClient, x: u64, f: impl Fn(u64) -> u64) -> u64 {
    f(x)
}

#[zerocache(cache, 60, skip(cache, run))]
async fn run<F: Future<Output = u64>>(cache: &ZerocacheClient, x: u64, run: F) -> u64 {
    x + run.await
}

struct Wrapper<F>(F);

impl<F: Fn(u64) -> u64> Wrapper<F> {
    #[zerocache(cache, 60, skip(self, cache))]
    fn apply(&self, cache: &ZerocacheClient, x: u64) -> u64 {
        (self.0)(x)
    }
}

trait Apply {
    fn apply_all(&self, cache: &ZerocacheClient, x: u64) -> u64;
}

impl<F: Fn(u64) -> u64> Apply for [F; 1] {
    #[zerocache(cache, 60, skip(self, cache))]
    fn apply_all(&self, cache: &ZerocacheClient, x: u64) -> u64 {
        self[0](x)
    }
}

#[test]
fn closures_have_different_keys() {
    in_time(|| {
        let cache = &other("closures");
        for _ in 0..2 {
            assert_eq!(apply(cache, 1, |x| x + 1), 2);
            assert_eq!(apply(cache, 1, |x| x * 100), 100);
            assert_eq!(apply_named(cache, 1, |x| x + 1), 2);
            assert_eq!(apply_named(cache, 1, |x| x * 100), 100);
            assert_eq!(Wrapper(|x| x + 1).apply(cache, 1), 2);
            assert_eq!(Wrapper(|x| x * 100).apply(cache, 1), 100);
            assert_eq!([|x| x + 1].apply_all(cache, 1), 2);
            assert_eq!([|x| x * 100].apply_all(cache, 1), 100);
        }
        assert_eq!(counts(cache), (16, 0, 0));
        // Functions have names.
        for _ in 0..2 {
            assert_eq!(apply(cache, 1, u64::wrapping_neg), u64::MAX);
            assert_eq!(apply(cache, 1, u64::reverse_bits), 1 << 63);
        }
        assert_eq!(counts(cache), (16, 2, 2));
    });
}

#[tokio::test]
async fn futures_have_different_keys() {
    async fn three() -> u64 {
        3
    }
    bounded(async {
        let cache = &other("futures");
        for _ in 0..2 {
            assert_eq!(run(cache, 1, async { 1 }).await, 2);
            assert_eq!(run(cache, 1, async { 2 }).await, 3);
            assert_eq!(run(cache, 1, three()).await, 4);
        }
        assert_eq!(counts(cache), (6, 0, 0));
    })
    .await;
}

trait Label {
    const LABEL: &str;
}

#[zerocache(cache, 60, skip(cache))]
fn label<T: Label + ?Sized>(cache: &ZerocacheClient) -> String {
    T::LABEL.to_owned()
}

macro_rules! labelled {
    ($($label:literal: $type:ty),*) => {
        $(impl Label for $type {
            const LABEL: &str = $label;
        })*
    };
}

/// A call with a type of this block.
macro_rules! local {
    ($label:literal, $cache:expr) => {{
        struct Local;
        labelled!($label: Local);
        label::<Local>($cache)
    }};
}

trait Borrows<'a> {}

labelled!(
    "fn static": fn(&'static u8),
    "fn any": for<'a> fn(&'a u8),
    "first": for<'a, 'b> fn(&'a u8, &'b u8) -> &'a u8,
    "second": for<'a, 'b> fn(&'a u8, &'b u8) -> &'b u8,
    "dyn static": dyn Borrows<'static>,
    "dyn any": dyn for<'a> Borrows<'a>,
    "char <": Letter<'<'>,
    "char >": Letter<'>'>,
    "plain": fn(u8) -> u8
);

struct Letter<const C: char>;

mod of_const {
    use super::*;

    pub(super) type Of = fn(&ZerocacheClient) -> String;
    pub(super) const ONE: Of = const {
        struct Local;
        labelled!("one": Local);
        |cache| label::<Local>(cache)
    };
    pub(super) static TWO: Of = {
        struct Local;
        labelled!("two": Local);
        |cache| label::<Local>(cache)
    };
}

#[test]
fn types_of_one_name_have_different_keys() {
    in_time(|| {
        let cache = &other("types");
        for _ in 0..2 {
            // Of two blocks of a function the type that comes first is cached.
            assert_eq!(local!("a", cache), "a");
            assert_eq!(local!("b", cache), "b");
            assert_eq!(of_const::ONE(cache), "one");
            assert_eq!(of_const::TWO(cache), "two");
            assert_eq!(label::<fn(&'static u8)>(cache), "fn static");
            assert_eq!(label::<for<'a> fn(&'a u8)>(cache), "fn any");
            assert_eq!(label::<for<'a, 'b> fn(&'a u8, &'b u8) -> &'a u8>(cache), "first");
            assert_eq!(label::<for<'a, 'b> fn(&'a u8, &'b u8) -> &'b u8>(cache), "second");
            assert_eq!(label::<dyn Borrows<'static>>(cache), "dyn static");
            assert_eq!(label::<dyn for<'a> Borrows<'a>>(cache), "dyn any");
            assert_eq!(label::<Letter<'<'>>(cache), "char <");
            assert_eq!(label::<Letter<'>'>>(cache), "char >");
            assert_eq!(label::<fn(u8) -> u8>(cache), "plain");
        }
        let (unkeyed, stored, hits) = counts(cache);
        assert_eq!(unkeyed + stored + hits, 2 * 13);
        assert!(stored >= 4, "the first local one, both letters and the plain one");
    });
}

/// The key of a function that stands in this block, and what it gives.
macro_rules! function {
    ($cache:expr, $number:expr) => {{
        const NUMBER: u64 = $number;
        #[zerocache(cache, 60, skip(cache), call = found_call)]
        fn found(cache: &ZerocacheClient) -> u64 {
            NUMBER
        }
        (found($cache), found_call($cache).key())
    }};
}

type Found = (u64, Option<Bytes>);

trait Find<T> {
    fn find(&self, cache: &ZerocacheClient) -> u64;
}

macro_rules! find {
    ($type:ty, $of:ty, $number:literal) => {
        impl Find<$of> for $type {
            #[zerocache(cache, 60, skip(self, cache))]
            fn find(&self, cache: &ZerocacheClient) -> u64 {
                $number
            }
        }
    };
}

find!(u8, u8, 1);
find!(u8, u16, 2);
find!(u16, u8, 3);
find!(u16, &'static str, 4);
find!(u16, Cow<'static, str>, 5);

const _: () = {
    find!(u32, u8, 6);
};

trait Nested: Sized {
    fn nested(self, cache: &ZerocacheClient) -> [Found; 3] {
        let outside = function!(cache, 10);
        let closure = || function!(cache, 11);
        let inside = closure();
        [outside, inside, function!(cache, 12)]
    }
}

impl Nested for u8 {}

const TABLE: [fn(&ZerocacheClient) -> Found; 2] =
    [|cache| function!(cache, 20), |cache| function!(cache, 21)];

#[test]
fn functions_of_one_name_have_different_keys() {
    in_time(|| {
        let cache = &other("functions");
        for _ in 0..2 {
            let mut found = vec![function!(cache, 0), function!(cache, 1)];
            found.extend(1.nested(cache));
            found.extend(TABLE.map(|find| find(cache)));
            let numbers: Vec<_> = found.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, [0, 1, 10, 11, 12, 20, 21]);
            // Each is cached, under a key of its own.
            let mut keys: Vec<_> = found.into_iter().map(|(_, key)| key).collect();
            keys.sort();
            keys.dedup();
            assert!(keys.len() == 7 && keys[0].is_some());
            let found = [
                Find::<u8>::find(&0_u8, cache),
                Find::<u16>::find(&0_u8, cache),
                Find::<u8>::find(&0_u16, cache),
                Find::<&str>::find(&0_u16, cache),
                Find::<Cow<'_, str>>::find(&0_u16, cache),
                Find::<u8>::find(&0_u32, cache),
            ];
            assert_eq!(found, [1, 2, 3, 4, 5, 6]);
        }
        assert_eq!(counts(cache), (0, 13, 13));
    });
}

/// Two functions that nothing but their blocks tells apart: they stand at one place in the source.
macro_rules! twins {
    ($cache:expr, $first:literal, $second:literal) => {{
        let first = {
            const NUMBER: u64 = $first;
            twins!($cache)
        };
        let second = {
            const NUMBER: u64 = $second;
            twins!($cache)
        };
        [first, second]
    }};
    ($cache:expr) => {{
        #[zerocache(cache, 60, skip(cache))]
        fn twin(cache: &ZerocacheClient) -> u64 {
            NUMBER
        }
        twin($cache)
    }};
}

#[test]
fn second_of_two_ambiguous_functions_is_not_cached() {
    in_time(|| {
        let cache = &other("twins");
        for _ in 0..3 {
            assert_eq!(twins!(cache, 1, 2), [1, 2]);
        }
        assert_eq!(counts(cache), (3, 1, 2));
    });
}

/// A set of a crate that the client does not know.
struct WordSet(Vec<&'static str>);

impl Serialize for WordSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

fn rounded<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{number:.0}"))
}

#[derive(Serialize)]
struct Price {
    #[serde(serialize_with = "rounded")]
    amount: f64,
}

#[zerocache(cache, 60, skip(cache, shown))]
async fn show(
    cache: &ZerocacheClient,
    shown: impl Display,
    argument: &(impl Serialize + ?Sized),
) -> Result<String, Infallible> {
    let _ = argument;
    Ok(shown.to_string())
}

#[tokio::test]
async fn ambiguous_arguments_are_refused() {
    bounded(async {
        let cache = &other("arguments");
        for words in [["a", "b"], ["b", "a"]] {
            let shown = words.concat();
            assert_eq!(show(cache, &shown, &WordSet(words.to_vec())).await, Ok(shown));
        }
        for amount in [0.6, 1.4] {
            let found = show(cache, amount, &[Price { amount }]).await;
            assert_eq!(found, Ok(amount.to_string()));
        }
        assert_eq!(counts(cache), (4, 0, 0));
    })
    .await;
}

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum By {
    Id(u64),
    Age(u64),
    Name { text: String },
    Mail { text: String },
}

#[zerocache(cache, 60, skip(cache))]
async fn by(cache: &ZerocacheClient, by: By) -> String {
    told(&by)
}

#[zerocache(cache, 60, skip(cache))]
async fn by_reference(cache: &ZerocacheClient, by: &By, text: &str) -> String {
    told(by) + text
}

#[zerocache(cache, 60, key = (by, *text))]
async fn by_key(cache: &ZerocacheClient, by: &By, text: &str) -> String {
    told(by) + text
}

fn told(by: &By) -> String {
    match by {
        By::Id(number) => format!("id {number}"),
        By::Age(number) => format!("age {number}"),
        By::Name { text } => format!("name {text}"),
        By::Mail { text } => format!("mail {text}"),
    }
}

#[tokio::test]
async fn untagged_variants_of_an_argument_have_different_keys() {
    bounded(async {
        let cache = &other("untagged");
        let text = || "a".to_owned();
        let all = [By::Id(7), By::Age(7), By::Name { text: text() }, By::Mail { text: text() }];
        for _ in 0..2 {
            for one in &all {
                assert_eq!(by(cache, one.clone()).await, told(one));
                assert_eq!(by_reference(cache, one, "!").await, told(one) + "!");
                assert_eq!(by_key(cache, one, "!").await, told(one) + "!");
            }
        }
        assert_eq!(counts(cache), (0, 12, 12));
    })
    .await;
}

#[zerocache(cache, 60, skip(cache))]
async fn length(cache: &ZerocacheClient, text: Cow<'_, str>) -> usize {
    text.len()
}

#[tokio::test]
async fn borrowed_and_owned_arguments_have_the_same_key() {
    bounded(async {
        let cache = &other("cow");
        assert_eq!(length(cache, Cow::Borrowed("ab")).await, 2);
        assert_eq!(length(cache, Cow::Owned("ab".to_owned())).await, 2);
        assert_eq!(counts(cache), (0, 1, 1));
    })
    .await;
}

#[zerocache(cache, 60, key = (*lock.lock().expect("no panic"), *lock.lock().expect("no panic")))]
fn locked(cache: &ZerocacheClient, lock: &Mutex<u64>) -> u64 {
    *lock.lock().expect("no panic")
}

#[test]
fn key_part_holds_no_temporaries() {
    in_time(|| {
        let cache = &other("locked");
        for _ in 0..2 {
            assert_eq!(locked(cache, &Mutex::new(7)), 7);
        }
        assert_eq!(counts(cache), (0, 1, 1));
    });
}
