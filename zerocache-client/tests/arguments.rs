//! Every argument of the attribute on every form of function: that each is accepted there, names
//! nothing of the caller's by accident, and leaves the call a call. What the arguments do is tested
//! elsewhere.

#![cfg(feature = "macros")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::{cached, client};
use zerocache_client::{Ack, zerocache};

#[derive(Debug, PartialEq, Eq, Clone, Serialize, Deserialize)]
struct User {
    id: u64,
    active: bool,
}

#[derive(Debug, PartialEq, Eq, Clone, Serialize, Deserialize)]
enum Problem {
    Absent,
    Busy,
}

fn run(runs: &AtomicUsize) {
    runs.fetch_add(1, Ordering::SeqCst);
}

fn ran(runs: &AtomicUsize) -> usize {
    runs.load(Ordering::SeqCst)
}

static FULL: AtomicUsize = AtomicUsize::new(0);

#[zerocache(
    "london",
    "5m",
    near = "2s",
    lease(region, life = "10s", wait = "3s"),
    stale(while = "1m", if_error = "1h"),
    ahead = "30s",
    jitter = 10,
    negative(none = "5s", err = |e: &Problem| *e == Problem::Absent, ttl = "5s"),
    tags = ["users", format!("tenant:{tenant}"), String::from("owned")],
    cache_if = |user: &Option<User>| user.as_ref().is_none_or(|user| user.active),
    ack = local,
    version = 3
)]
async fn full(tenant: &str, id: u64) -> Result<Option<User>, Problem> {
    run(&FULL);
    match id {
        0 => Err(Problem::Absent),
        1 => Err(Problem::Busy),
        2 => Ok(None),
        3 => Ok(Some(User { id, active: false })),
        _ => Ok(Some(User { id, active: tenant == "a" })),
    }
}

#[tokio::test]
async fn all_arguments_combine() {
    cached(async {
        for _ in 0..2 {
            assert_eq!(full("a", 7).await, Ok(Some(User { id: 7, active: true })));
        }
        assert_eq!(ran(&FULL), 1, "a hit");
        for _ in 0..2 {
            assert_eq!(full("a", 2).await, Ok(None));
        }
        assert_eq!(ran(&FULL), 2, "None is kept");
        for _ in 0..2 {
            assert_eq!(full("a", 0).await, Err(Problem::Absent));
        }
        assert_eq!(ran(&FULL), 3, "the chosen error is kept");
        for _ in 0..2 {
            assert_eq!(full("a", 1).await, Err(Problem::Busy));
        }
        assert_eq!(ran(&FULL), 5, "another error is not");
        for _ in 0..2 {
            assert_eq!(full("a", 3).await, Ok(Some(User { id: 3, active: false })));
        }
        assert_eq!(ran(&FULL), 7, "what `cache_if` refuses is not stored");
        let key = full("a", 7).key().expect("the call has a key");
        let entry = client().get(&key).entry().await.expect("reads").expect("is there");
        let metadata = entry.metadata;
        assert_eq!(metadata.tags(), ["users", "tenant:a", "owned"]);
        assert_eq!((metadata.stale_while_ms, metadata.stale_if_error_ms), (60_000, 3_600_000));
        assert_eq!(metadata.refresh_ahead_ms, 30_000);
        full("a", 7).invalidate().await.expect("deletes");
        assert_eq!(full("a", 7).peek().await.expect("reads"), None);
    })
    .await;
}

/// Arguments that are expressions, with every name that the expansion uses as a parameter.
#[zerocache(
    client,
    ttl = ttl,
    key = (key, near),
    near = near,
    lease(all, life = Duration::from_secs(life), wait = wait),
    stale(while = stale, if_error = Duration::from_millis(options)),
    ahead = Duration::from_millis(1),
    jitter = jitter,
    tags = tags.iter().map(|tag| format!("t:{tag}")),
    cache_if = is_odd,
    ack = all
)]
#[allow(clippy::too_many_arguments, reason = "the names are the point")]
async fn from_parameters(
    client: &str,
    ttl: u32,
    key: u64,
    near: Duration,
    life: u64,
    wait: u8,
    stale: i64,
    options: u64,
    jitter: u8,
    tags: &[&str],
) -> Result<u64, u8> {
    let _ = (client, ttl, life, wait, stale, options, jitter, tags);
    Ok(key + near.as_secs())
}

fn is_odd(value: &u64) -> bool {
    value % 2 == 1
}

#[zerocache("london", 42, near, jitter = 1, negative(none = 1))]
async fn names(value: u8, args: u8, target: u8, rule: u8, options: u8, policy: u8) -> Option<u8> {
    value.checked_add(args + target + rule + options + policy)
}

#[zerocache("london", 42, near, jitter = 50, negative(none = 1), call = names_call)]
fn names_sync(value: u8, args: u8, site: u8, call: u8, parts: u8, background: u8) -> Option<u8> {
    value.checked_add(args + site + call + parts + background)
}

#[tokio::test]
async fn expressions_use_parameters() {
    cached(async {
        let age = Duration::from_secs(1);
        let call = || from_parameters("london", 60, 2, age, 5, 1, 30, 500, 5, &["a", "b"]);
        assert_eq!(call().await, Ok(3));
        assert_eq!(call().peek().await.expect("reads"), Some(Ok(3)));
        let even = || from_parameters("london", 60, 3, age, 5, 1, 30, 500, 5, &[]);
        assert_eq!(even().await, Ok(4));
        assert_eq!(even().peek().await.expect("reads"), None);
        for _ in 0..2 {
            assert_eq!(names(1, 2, 3, 4, 5, 6).await, Some(21));
            assert_eq!(names(255, 1, 0, 0, 0, 0).await, None);
            assert_eq!(names_sync(1, 2, 3, 4, 5, 6), Some(21));
        }
        assert_eq!(names_call(1, 2, 3, 4, 5, 6).peek().wait().expect("reads"), Some(Some(21)));
    })
    .await;
}

#[zerocache("london", 42, stale(while = "1m", background))]
async fn owned(name: String, numbers: Vec<u64>, fixed: &'static str) -> usize {
    tokio::task::yield_now().await;
    name.len() + numbers.len() + fixed.len()
}

#[zerocache("london", 42, stale(while = "1m", background), call = owned_call)]
fn owned_sync(name: String) -> usize {
    name.len()
}

#[zerocache("london", 42, stale(while = "1m", background), skip(pool), call = false)]
async fn owned_generic<T>(value: T, pool: Arc<AtomicUsize>) -> Result<T, Problem>
where
    T: Serialize + serde::de::DeserializeOwned + Clone + Send + 'static,
{
    run(&pool);
    Ok(value)
}

#[derive(Clone)]
struct Service {
    tenant: String,
    runs: Arc<AtomicUsize>,
}

impl Service {
    #[zerocache("london", 42, key = (&self.tenant, id), stale(while = 5, background), lease = region)]
    async fn shared(self: Arc<Self>, id: u64) -> u64 {
        run(&self.runs);
        id
    }

    #[zerocache("london", 42, key = (&self.tenant, id), tags = [self.tenant.clone()], near)]
    async fn tagged(&self, id: u64) -> Result<u64, Problem> {
        run(&self.runs);
        if id == 0 { Err(Problem::Absent) } else { Ok(id) }
    }

    #[zerocache(client(), ttl = 42, skip(self), stale(if_error = "1h"), ahead = 2, jitter = 2)]
    fn sync(&self, id: u64) -> Result<u64, Problem> {
        run(&self.runs);
        Ok(id)
    }
}

#[async_trait::async_trait]
trait Load: Sync {
    async fn load(&self, id: u64) -> Result<Option<String>, Problem>;

    #[zerocache("london", 42, skip(self), near, negative(none = 2))]
    async fn by_default(&self, text: &str) -> Option<String> {
        tokio::task::yield_now().await;
        Some(text.to_owned())
    }
}

#[async_trait::async_trait]
impl Load for Service {
    #[zerocache(
        "london",
        42,
        key = (&self.tenant, id),
        lease = all,
        stale(while = "500ms", if_error = "2s"),
        negative(none = 2, err = |_| true, ttl = 2),
        tags = ["load"],
        ack = region
    )]
    async fn load(&self, id: u64) -> Result<Option<String>, Problem> {
        run(&self.runs);
        if id == 0 {
            return Ok(None);
        }
        Ok(Some(id.to_string()))
    }
}

fn service(tenant: &str) -> Service {
    Service { tenant: tenant.to_owned(), runs: Arc::default() }
}

#[tokio::test]
async fn functions_that_own_their_arguments() {
    cached(async {
        for _ in 0..2 {
            assert_eq!(owned("ab".to_owned(), vec![1, 2, 3], "c").await, 6);
            assert_eq!(owned_sync("abc".to_owned()), 3);
        }
        assert_eq!(owned_call("abc".to_owned()).peek().wait().expect("reads"), Some(3));
        let pool = Arc::<AtomicUsize>::default();
        for _ in 0..2 {
            assert_eq!(owned_generic(7_u8, Arc::clone(&pool)).await, Ok(7));
            assert_eq!(owned_generic("x".to_owned(), Arc::clone(&pool)).await, Ok("x".to_owned()));
        }
        assert_eq!(ran(&pool), 2);
    })
    .await;
}

#[tokio::test]
async fn methods_and_traits() {
    cached(async {
        let service = service("methods");
        let object: &dyn Load = &service;
        for _ in 0..2 {
            assert_eq!(Arc::new(service.clone()).shared(1).await, 1);
            assert_eq!(service.tagged(2).await, Ok(2));
            assert_eq!(service.sync(3), Ok(3));
            assert_eq!(object.load(0).await, Ok(None));
            assert_eq!(object.load(4).await, Ok(Some("4".to_owned())));
            assert_eq!(object.by_default("x").await, Some("x".to_owned()));
        }
        assert_eq!(ran(&service.runs), 5);
    })
    .await;
}

#[rustfmt::skip] // It moves an attribute of several lines further to the right each time.
macro_rules! made {
    ($name:ident, $ttl:literal, $age:expr, $percent:literal, $tag:expr, $test:expr) => {
        #[zerocache(
            "london",
            $ttl,
            near = $age,
            lease(region, wait = $age),
            stale(while = $ttl, if_error = $age),
            jitter = $percent,
            tags = [$tag, "made"],
            cache_if = $test,
            negative(none = $ttl)
        )]
        async fn $name(id: u64) -> Result<Option<u64>, u8> {
            Ok(Some(id))
        }
    };
}

made!(made, "5m", "500ms", 10, "literal", |value: &Option<u64>| value.is_some());
made!(made_twice, 60, Duration::from_secs(1), 20, String::from("a"), Option::is_some);

mod shadow {
    //! A user's own types under the names that the arguments expand to.
    use super::zerocache;

    #[allow(dead_code)]
    pub struct Duration;
    #[allow(dead_code)]
    pub struct String;
    #[allow(dead_code)]
    pub enum Option {
        None,
    }
    #[allow(dead_code, non_snake_case)]
    pub fn Some() {}
    #[allow(dead_code)]
    pub enum Ack {
        Region,
    }
    #[allow(dead_code)]
    pub struct Options;

    #[zerocache(
        "london",
        42,
        near = "2s",
        lease(region, life = "2s"),
        stale(while = "2s", if_error = 3),
        ahead = 1,
        jitter = 1,
        negative(none = 2, err = |_: &u8| true, ttl = 3),
        tags = ["shadow"],
        cache_if = |_| true,
        ack = region
    )]
    pub async fn shadowed(id: u64) -> Result<std::option::Option<u64>, u8> {
        Ok(std::option::Option::Some(id))
    }
}

#[tokio::test]
async fn generated_functions_and_shadowed_names() {
    cached(async {
        for _ in 0..2 {
            assert_eq!(made(1).await, Ok(Some(1)));
            assert_eq!(made_twice(1).await, Ok(Some(1)));
            assert_eq!(shadow::shadowed(1).await, Ok(Some(1)));
        }
        assert_eq!(made(1).peek().await.expect("reads"), Some(Ok(Some(1))));
        assert_eq!(shadow::shadowed(1).peek().await.expect("reads"), Some(Ok(Some(1))));
        let _ = Ack::Local;
    })
    .await;
}
