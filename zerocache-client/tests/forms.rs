//! Free async functions: every kind of parameter, value and surrounding.

#![cfg(feature = "macros")]
#![allow(unreachable_pub, reason = "public functions are one of the forms")]

mod support;

use std::collections::HashSet;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::{cached, client};
use zerocache_client::zerocache;

/// Counts runs of one test's functions.
macro_rules! runs {
    () => {{
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        &RUNS
    }};
}

fn ran(runs: &AtomicUsize) -> usize {
    runs.load(Ordering::SeqCst)
}

fn run(runs: &AtomicUsize) {
    runs.fetch_add(1, Ordering::SeqCst);
}

#[derive(Debug, PartialEq, Eq, Clone, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
    max_age: u64,
}

#[derive(Debug, PartialEq, Eq, Clone)]
enum Problem {
    Absent,
}

fn user_runs() -> &'static AtomicUsize {
    runs!()
}

/// Documentation stays.
#[zerocache("london", 42)]
pub async fn user(id: u64, name: &str) -> Result<User, Problem> {
    run(user_runs());
    if id == 0 {
        Err(Problem::Absent)?;
    }
    Ok(User { id, name: name.to_owned(), max_age: 5 })
}

#[tokio::test]
async fn second_call_is_a_hit_and_the_handle_works() {
    cached(async {
        let first = user(7, "x").await;
        let second = user(7, "x").await;
        assert_eq!(first, second);
        assert_eq!(ran(user_runs()), 1);
        assert_eq!(user(7, "x").peek().await.expect("reads"), Some(first.clone()));
        assert_eq!(user(8, "x").peek().await.expect("reads"), None);
        assert_eq!(user(7, "x").refresh().await, first);
        assert_eq!(ran(user_runs()), 2);
        user(7, "x").invalidate().await.expect("deletes");
        assert_eq!(user(7, "x").peek().await.expect("reads"), None);
        assert_eq!(user(7, "x").uncached().await, first);
        assert_eq!(user(7, "x").peek().await.expect("reads"), None);
        assert_eq!(ran(user_runs()), 3);
        assert_eq!(user(7, "x").ttl(0).await, first);
        assert_eq!(user(7, "x").peek().await.expect("reads"), None);
        assert_eq!(user(7, "x").ttl(Duration::from_secs(5)).await, first);
        assert_eq!(user(7, "x").peek().await.expect("reads"), Some(first));
        assert_eq!(user(0, "x").await, Err(Problem::Absent));
        assert_eq!(user(0, "x").peek().await.expect("reads"), None);
        assert_ne!(user(7, "x").key(), user(7, "y").key());
    })
    .await;
}

#[zerocache("london", 42)]
async fn account(id: u64, name: &str) -> Result<User, Problem> {
    Ok(User { id, name: name.to_owned(), max_age: 5 })
}

#[tokio::test]
async fn calls_are_ordinary_futures() {
    cached(async {
        let spawned = tokio::spawn(client().scope(async { account(20, "spawned").await }));
        let direct = tokio::spawn(account(21, "direct"));
        let boxed: std::pin::Pin<Box<dyn Future<Output = Result<User, Problem>> + Send>> =
            Box::pin(account(22, "boxed"));
        let (a, b) = tokio::join!(account(23, "joined"), account(23, "joined"));
        assert_eq!(a, b);
        let all = futures_util::future::join_all([1, 2, 3].map(|id| account(id, "all"))).await;
        assert_eq!(all.len(), 3);
        assert_eq!(boxed.await.expect("computes").id, 22);
        assert_eq!(spawned.await.expect("runs").expect("computes").id, 20);
        assert_eq!(direct.await.expect("runs").expect("computes").id, 21);
    })
    .await;
}

#[zerocache("london", |u: &User| u.max_age, skip(pool))]
async fn aged(id: u64, pool: &AtomicUsize) -> Result<User, Problem> {
    run(pool);
    Ok(User { id, name: String::new(), max_age: if id == 0 { 0 } else { u64::MAX } })
}

#[tokio::test]
async fn lifetime_can_be_computed_from_the_value() {
    cached(async {
        let pool = AtomicUsize::new(0);
        let other = AtomicUsize::new(0);
        let _ = (aged(0, &pool).await, aged(0, &pool).await);
        assert_eq!(ran(&pool), 2, "zero is not stored");
        let _ = (aged(1, &pool).await, aged(1, &other).await);
        assert_eq!((ran(&pool), ran(&other)), (3, 0), "too long is lowered, skip leaves out");
    })
    .await;
}

mod shadowing {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub struct Option(pub u64);
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub enum Result {
        Ok(Option),
    }
}

mod shadow {
    //! A user's own types under the names of the standard ones.
    use super::zerocache;

    pub use super::shadowing::{Option, Result};
    #[allow(non_camel_case_types, dead_code)]
    pub struct u64;
    #[allow(non_snake_case, dead_code)]
    pub fn Some() {}
    #[allow(dead_code)]
    mod core {}
    #[allow(dead_code)]
    mod std {}

    #[zerocache("london", 42)]
    pub async fn shadowed(key: Option, client: u32, args: u8, rule: u8, target: u8) -> Result {
        let _ = (client, args, rule, target);
        Result::Ok(key)
    }

    #[zerocache("london", 42)]
    pub fn shadowed_sync(key: Option, ttl: u32, policy: u8, value: u8) -> Option {
        let _ = (ttl, policy, value);
        key
    }
}

#[tokio::test]
async fn generated_names_do_not_clash_with_the_users() {
    cached(async {
        use shadow::{Option, Result};
        assert_eq!(shadow::shadowed(Option(1), 2, 3, 4, 5).await, Result::Ok(Option(1)));
        assert_eq!(shadow::shadowed_sync(Option(1), 2, 3, 4), Option(1));
        assert_ne!(
            shadow::shadowed(Option(1), 2, 3, 4, 5).key(),
            shadow::shadowed(Option(1), 2, 3, 4, 6).key()
        );
    })
    .await;
}

#[derive(Debug, PartialEq)]
struct Opaque;
type Res<T> = Result<T, Opaque>;

#[zerocache("london", 42)]
async fn aliased(n: u64) -> Res<u64> {
    if n == 0 { Err(Opaque) } else { Ok(n) }
}

#[zerocache("london", 42)]
async fn borrowed(text: &str, bytes: &[u8], maybe: Option<&String>) -> String {
    format!("{text}{bytes:?}{maybe:?}")
}

#[zerocache("london", 42)]
async fn patterns((a, b): (u32, u32), [first, ..]: [u8; 3], mut n: u64, _: u8) -> u64 {
    n += u64::from(a + b + u32::from(first));
    n
}

#[zerocache("london", 42)]
async fn generic<T, const N: usize>(items: [T; N], extra: impl AsRef<str> + Serialize) -> String
where
    T: Serialize + Debug,
    [T; N]: Serialize,
{
    format!("{items:?}{}", extra.as_ref())
}

#[zerocache("london", 42, key = name.as_ref())]
async fn by_key(name: impl AsRef<str>) -> usize {
    name.as_ref().len()
}

#[zerocache("london", 42)]
async fn recursive(n: u64) -> u64 {
    if n < 2 { n } else { Box::pin(recursive(n - 1)).await + Box::pin(recursive(n - 2)).await }
}

#[zerocache("london", 42)]
fn fibonacci(n: u64) -> u64 {
    if n < 2 { n } else { fibonacci(n - 1) + fibonacci(n - 2) }
}

#[zerocache("london", 42)]
async fn unsend(n: u64) -> u64 {
    let shared = Rc::new(n);
    tokio::task::yield_now().await;
    *shared + 1
}

#[zerocache("london", 42)]
async fn sets(tags: HashSet<String>) -> usize {
    tags.len()
}

#[allow(clippy::needless_lifetimes, reason = "the form is the point")]
#[zerocache("london", 42)]
async fn named_lifetimes<'a, 'b: 'a>(left: &'a str, right: &'b str) -> usize {
    left.len() + right.len()
}

#[tokio::test]
async fn every_kind_of_parameter() {
    cached(async {
        for _ in 0..2 {
            assert_eq!(aliased(1).await, Ok(1));
            assert_eq!(aliased(0).await, Err(Opaque));
            assert_eq!(borrowed("a", b"b", Some(&"c".to_owned())).await, "a[98]Some(\"c\")");
            assert_eq!(patterns((1, 2), [3, 4, 5], 10, 0).await, 16);
            assert_eq!(generic([1_u8, 2], "x").await, "[1, 2]x");
            assert_eq!(by_key("four").await, 4);
            assert_eq!(recursive(12).await, 144);
            assert_eq!(fibonacci(12), 144);
            assert_eq!(unsend(1).await, 2);
            assert_eq!(named_lifetimes("ab", "c").await, 3);
        }
        assert_eq!(aliased(0).peek().await.expect("reads"), None);
        assert_ne!(
            patterns((1, 2), [3, 4, 5], 10, 0).key(),
            patterns((1, 3), [3, 4, 5], 10, 0).key()
        );
        assert_ne!(generic([1_u8], "x").key(), generic([1_u16], "x").key());
        let words = ["a", "b", "c", "d", "e", "f"].map(str::to_owned);
        let (one, two) = (HashSet::from(words.clone()), words.into_iter().rev().collect());
        assert_eq!(sets(one).key(), sets(two).key());
    })
    .await;
}

macro_rules! made {
    ($name:ident, $region:expr, $ttl:literal, $argument:ident: $ty:ty => $output:ty) => {
        #[zerocache($region, $ttl)]
        async fn $name($argument: $ty) -> $output {
            $argument
        }
    };
}

made!(made_number, "london", 42, id: u64 => u64);
made!(made_text, "london", "5m", text: String => String);

/// An attribute above sees the function as it was written.
#[tracing::instrument(skip_all)]
#[zerocache("london", 42)]
async fn traced(n: u64) -> Result<u64, Problem> {
    Ok(n)
}

#[zerocache("london", 42)]
#[cfg(test)]
#[must_use]
#[inline]
#[allow(clippy::let_and_return)]
#[doc(alias = "other")]
#[cfg_attr(test, allow(unused_mut), doc = "More.")]
async fn attributes(n: u64) -> u64 {
    let n = n;
    n
}

#[zerocache("london", 42)]
async fn generic_value<T, E>(text: &str) -> Result<T, E>
where
    T: std::str::FromStr<Err = E> + Serialize + serde::de::DeserializeOwned,
{
    text.parse()
}

#[zerocache("london", 42)]
async fn whole_generic<T: Default + Serialize + serde::de::DeserializeOwned>(_: u8) -> T {
    T::default()
}

#[zerocache("london", move |value: &u64| limit.min(*value))]
async fn limited(limit: u64) -> u64 {
    limit + 1
}

#[zerocache(name.as_str(), ttl = 5 * 60, key = (name.len(), id))]
async fn region_from_argument(name: String, id: u64) -> u64 {
    drop(name);
    id
}

impl User {
    #[zerocache("london", 42)]
    async fn older(&self, years: u64) -> Self {
        User { max_age: self.max_age + years, ..self.clone() }
    }
}

#[tokio::test]
async fn other_attributes_of_functions_are_kept() {
    cached(async {
        for _ in 0..2 {
            assert_eq!(made_number(1).await, 1);
            assert_eq!(made_text("1".to_owned()).await, "1");
            assert_eq!(traced(1).await, Ok(1));
            assert_eq!(attributes(1).await, 1);
            assert_eq!(generic_value::<u8, _>("7").await, Ok(7));
            assert!(generic_value::<u8, _>("x").await.is_err());
            assert_eq!(whole_generic::<String>(1).await, "");
            assert_eq!(whole_generic::<u8>(1).await, 0);
            assert_eq!(limited(0).await, 1);
            assert_eq!(limited(1).await, 2);
            assert_eq!(region_from_argument("paris".to_owned(), 3).await, 3);
            let user = User { id: 1, name: String::new(), max_age: 2 };
            assert_eq!(user.older(2).await.max_age, 4);
        }
        assert_ne!(generic_value::<u8, _>("7").key(), generic_value::<u16, _>("7").key());
        assert_eq!(limited(0).peek().await.expect("reads"), None);
        assert_eq!(limited(1).peek().await.expect("reads"), Some(2));
        assert_eq!(tokio::spawn(recursive(12)).await.expect("runs"), 144);
    })
    .await;
}

#[derive(Debug, PartialEq, Clone, Serialize, Deserialize)]
struct StaticProblem {
    text: &'static str,
}

#[zerocache("london", 60)]
async fn text_as_error(n: u64) -> Result<u64, &'static str> {
    if n > 0 { Ok(n) } else { Err("zero") }
}

#[zerocache("london", 60)]
fn reference_as_error(n: u64) -> Result<u64, &'static Problem> {
    if n > 0 { Ok(n) } else { Err(&Problem::Absent) }
}

#[zerocache("london", 60)]
async fn reference_in_an_error(n: u64) -> Result<u64, StaticProblem> {
    if n > 0 { Ok(n) } else { Err(StaticProblem { text: "zero" }) }
}

#[tokio::test]
async fn error_may_be_a_reference() {
    cached(async {
        assert_eq!((text_as_error(1).await, text_as_error(0).await), (Ok(1), Err("zero")));
        assert_eq!(text_as_error(1).peek().await.expect("reads"), Some(Ok(1)));
        let problem = StaticProblem { text: "zero" };
        assert_eq!(reference_in_an_error(0).await, Err(problem));
    })
    .await;
    let scoped = || (reference_as_error(1), reference_as_error(0));
    let found = tokio::task::spawn_blocking(move || client().scope_sync(scoped)).await;
    assert_eq!(found.expect("no panic"), (Ok(1), Err(&Problem::Absent)));
}
