//! Every form of function that can be memoized, and that a second call does not compute.

#![allow(unreachable_pub, reason = "public functions are one of the forms")]

mod support;

use std::collections::HashSet;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::{bounded, cached, client};
use zerocache_client::{ZerocacheClient, zerocache};

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
    Ok(User {
        id,
        name: name.to_owned(),
        max_age: 5,
    })
}

#[tokio::test]
async fn the_second_call_is_a_hit_and_the_handle_works() {
    cached(async {
        let first = user(7, "x").await;
        let second = user(7, "x").await;
        assert_eq!(first, second);
        assert_eq!(ran(user_runs()), 1);
        assert_eq!(
            user(7, "x").peek().await.expect("reads"),
            Some(first.clone())
        );
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
    Ok(User {
        id,
        name: name.to_owned(),
        max_age: 5,
    })
}

#[tokio::test]
async fn calls_are_futures_like_any_other() {
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

fn slow_runs() -> &'static AtomicUsize {
    runs!()
}

#[zerocache(client(), "5m", call = slow_call)]
fn slow(n: u64) -> Result<u64, Problem> {
    run(slow_runs());
    if n == 0 {
        return Err(Problem::Absent);
    }
    Ok(n * 2)
}

#[test]
fn a_sync_function_needs_no_runtime_and_has_a_sibling() {
    assert_eq!(slow(4), Ok(8));
    assert_eq!(slow(4), Ok(8));
    assert_eq!(slow_call(4).wait(), Ok(8));
    assert_eq!(ran(slow_runs()), 1);
    assert_eq!(slow_call(4).peek().wait().expect("reads"), Some(Ok(8)));
    slow_call(4).invalidate().wait().expect("deletes");
    assert_eq!(slow_call(4).peek().wait().expect("reads"), None);
    assert_eq!(slow_call(4).refresh().wait(), Ok(8));
    assert_eq!(slow_call(4).uncached().wait(), Ok(8));
    assert_eq!(ran(slow_runs()), 3);
    assert_eq!(slow(0), Err(Problem::Absent));
    assert_eq!(slow(0), Err(Problem::Absent));
    assert_eq!(ran(slow_runs()), 5);
}

#[zerocache(client(), "5m", call = half_call)]
fn half(n: u64) -> Result<u64, Problem> {
    Ok(n / 2)
}

#[tokio::test]
async fn a_sync_function_works_in_a_current_thread_runtime() {
    assert_eq!(half(50), Ok(25));
    assert_eq!(half_call(50).await, Ok(25));
    // A task that blocks often, without yielding to its runtime.
    for n in 0..1_000 {
        assert_eq!(half(n % 10), Ok(n % 10 / 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_function_works_in_a_multi_thread_runtime() {
    assert_eq!(half(52), Ok(26));
    assert_eq!(
        tokio::task::spawn_blocking(|| half(52))
            .await
            .expect("runs"),
        Ok(26)
    );
}

struct Repo<T> {
    cache: ZerocacheClient,
    tenant: String,
    unit: T,
    runs: AtomicUsize,
}

impl<T: Serialize + Clone + Debug> Repo<T> {
    fn new(tenant: &str, unit: T) -> Self {
        Repo {
            cache: client(),
            tenant: tenant.to_owned(),
            unit,
            runs: AtomicUsize::new(0),
        }
    }

    #[zerocache(&self.cache, 42, key = (&self.tenant, id))]
    pub async fn find(&self, id: u64) -> Option<String> {
        run(&self.runs);
        (id > 0).then(|| format!("{} {:?} {id}", self.tenant, self.unit))
    }

    #[zerocache(self.cache, ttl = Duration::from_secs(self.tenant.len() as u64), skip(self))]
    fn sync(&self, n: u32) -> u32 {
        run(&self.runs);
        n + 1
    }

    #[zerocache(client = &self.cache, key = (&self.tenant, self.unit.clone()), call = false)]
    async fn plain(&self) -> String {
        run(&self.runs);
        self.tenant.clone()
    }

    #[zerocache(client(), 42)]
    async fn associated(unit: T, n: u8) -> String {
        format!("{unit:?}{n}")
    }
}

#[tokio::test]
async fn methods_and_generic_impls() {
    bounded(async {
        let (bytes, words) = (Repo::new("a", 1_u8), Repo::new("a", 1_u16));
        assert_eq!(bytes.find(3).await, bytes.find(3).await);
        assert_eq!(ran(&bytes.runs), 1);
        // The same arguments, another type argument.
        assert_ne!(bytes.find(3).key(), words.find(3).key());
        assert_eq!(bytes.find(0).await, None);
        assert_eq!(bytes.find(0).peek().await.expect("reads"), Some(None));
        assert_eq!(bytes.sync(1), bytes.sync(1));
        assert_eq!(bytes.plain().await, bytes.plain().await);
        assert_eq!(ran(&bytes.runs), 4);
        assert_eq!(Repo::<u8>::associated(1, 2).await, "12");
        assert_ne!(
            Repo::<u8>::associated(1, 2).key(),
            Repo::<u16>::associated(1, 2).key()
        );
    })
    .await;
}

trait Shape {
    async fn area(&self, scale: u32) -> u32;
    fn name(&self, long: bool) -> String;
    fn default_method(&self) -> String
    where
        Self: Serialize,
    {
        "default".to_owned()
    }
}

#[derive(Serialize)]
struct Square(u32);
#[derive(Serialize)]
struct Disc(u32);

impl Shape for Square {
    #[zerocache("london", 42)]
    async fn area(&self, scale: u32) -> u32 {
        self.0 * self.0 * scale
    }
    #[zerocache("london", 42)]
    fn name(&self, long: bool) -> String {
        if long {
            "square".to_owned()
        } else {
            "s".to_owned()
        }
    }
    #[zerocache("london", 42)]
    fn default_method(&self) -> String {
        "own".to_owned()
    }
}

impl Shape for Disc {
    #[zerocache("london", 42, call = false)]
    async fn area(&self, scale: u32) -> u32 {
        3 * self.0 * scale
    }
    #[zerocache("london", 42)]
    fn name(&self, long: bool) -> String {
        if long {
            "disc".to_owned()
        } else {
            "d".to_owned()
        }
    }
}

trait Greeting: Serialize {
    #[zerocache("london", 42)]
    fn greet(&self, name: &str) -> String {
        format!("{}: hello {name}", std::any::type_name::<Self>())
    }

    #[zerocache("london", 42, call = false)]
    async fn greet_later(&self, name: &str) -> String {
        format!("{}: hello {name}", std::any::type_name::<Self>())
    }
}
impl Greeting for Square {}
impl Greeting for Disc {
    async fn greet_later(&self, _name: &str) -> String {
        "overridden".to_owned()
    }
}

#[tokio::test]
async fn trait_methods_of_two_types_share_nothing() {
    cached(async {
        for _ in 0..2 {
            assert_eq!(Square(2).area(3).await, 12);
            assert_eq!(Disc(2).area(3).await, 18);
            assert_eq!(Square(2).name(true), "square");
            assert_eq!(Disc(2).name(true), "disc");
            assert_eq!(Square(1).default_method(), "own");
            assert_eq!(Disc(1).default_method(), "default");
            assert!(Square(1).greet("x").contains("Square"));
            assert!(Disc(1).greet("x").contains("Disc"));
            assert!(Square(1).greet_later("x").await.contains("Square"));
            assert_eq!(Disc(1).greet_later("x").await, "overridden");
        }
        assert_ne!(Square(2).area(3).key(), Square(3).area(3).key());
    })
    .await;
}

#[async_trait::async_trait]
trait Boxed: Sync {
    async fn load(&self, id: u64, name: &str) -> Result<String, Problem>;
}

struct Inside {
    runs: AtomicUsize,
}

#[async_trait::async_trait]
impl Boxed for Inside {
    #[zerocache("london", 42, skip(self))]
    async fn load(&self, id: u64, name: &str) -> Result<String, Problem> {
        run(&self.runs);
        tokio::task::yield_now().await;
        if id == 0 {
            return Err(Problem::Absent);
        }
        Ok(format!("{id} {name}"))
    }
}

#[tokio::test]
async fn async_trait_methods_are_memoized() {
    cached(async {
        let inside = Inside {
            runs: AtomicUsize::new(0),
        };
        let object: &dyn Boxed = &inside;
        assert_eq!(object.load(1, "n").await, Ok("1 n".to_owned()));
        assert_eq!(object.load(1, "n").await, Ok("1 n".to_owned()));
        assert_eq!(object.load(0, "n").await, Err(Problem::Absent));
        assert_eq!(object.load(0, "n").await, Err(Problem::Absent));
        assert_eq!(ran(&inside.runs), 3);
    })
    .await;
}

#[zerocache("london", |u: &User| u.max_age, skip(pool))]
async fn aged(id: u64, pool: &AtomicUsize) -> Result<User, Problem> {
    run(pool);
    Ok(User {
        id,
        name: String::new(),
        max_age: if id == 0 { 0 } else { u64::MAX },
    })
}

#[tokio::test]
async fn the_lifetime_can_come_from_the_value() {
    cached(async {
        let pool = AtomicUsize::new(0);
        let other = AtomicUsize::new(0);
        let _ = (aged(0, &pool).await, aged(0, &pool).await);
        assert_eq!(ran(&pool), 2, "zero is not stored");
        let _ = (aged(1, &pool).await, aged(1, &other).await);
        assert_eq!(
            (ran(&pool), ran(&other)),
            (3, 0),
            "too long is lowered, skip leaves out"
        );
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
async fn names_of_users_and_ours_do_not_meet() {
    cached(async {
        use shadow::{Option, Result};
        assert_eq!(
            shadow::shadowed(Option(1), 2, 3, 4, 5).await,
            Result::Ok(Option(1))
        );
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
    if n < 2 {
        n
    } else {
        Box::pin(recursive(n - 1)).await + Box::pin(recursive(n - 2)).await
    }
}

#[zerocache("london", 42)]
fn fibonacci(n: u64) -> u64 {
    if n < 2 {
        n
    } else {
        fibonacci(n - 1) + fibonacci(n - 2)
    }
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
            assert_eq!(
                borrowed("a", b"b", Some(&"c".to_owned())).await,
                "a[98]Some(\"c\")"
            );
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
        let (one, two) = (
            HashSet::from(words.clone()),
            words.into_iter().rev().collect(),
        );
        assert_eq!(sets(one).key(), sets(two).key());
    })
    .await;
}

struct Name;

impl Name {
    #[zerocache("london", 42, name = "shop::pinned", version = 2)]
    async fn pinned(n: u64) -> u64 {
        n
    }

    #[zerocache("london", 42)]
    async fn by_value(self: Box<Self>, n: u64) -> u64
    where
        Self: Serialize,
    {
        n
    }

    #[zerocache("london", 42, skip(self))]
    async fn mutable(mut self, n: u64) -> u64 {
        self = Name;
        let Name = self;
        n
    }

    #[zerocache("london", 42, skip(self, log))]
    async fn exclusive(&mut self, log: &mut Vec<u64>, n: u64) -> u64 {
        log.push(n);
        n
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_struct("Name")
    }
}

#[tokio::test]
async fn receivers_of_every_kind() {
    cached(async {
        let mut log = Vec::new();
        assert_eq!(Name::pinned(1).await, 1);
        assert_eq!(Box::new(Name).by_value(2).await, 2);
        assert_eq!(Name.mutable(3).await, 3);
        assert_eq!(Name.exclusive(&mut log, 4).await, 4);
        assert_eq!(Name.exclusive(&mut log, 4).await, 4);
        assert_eq!(log, [4]);
    })
    .await;
}
