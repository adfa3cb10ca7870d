//! Methods of every kind: inherent, of traits, generic, and with every receiver.

#![cfg(feature = "macros")]

mod support;

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use support::{bounded, cached, client};
use zerocache_client::{ZerocacheClient, zerocache};

#[derive(Debug, PartialEq, Clone)]
enum Problem {
    Absent,
}

fn ran(runs: &AtomicUsize) -> usize {
    runs.load(Ordering::SeqCst)
}

fn run(runs: &AtomicUsize) {
    runs.fetch_add(1, Ordering::SeqCst);
}

struct Repo<T> {
    cache: ZerocacheClient,
    tenant: String,
    unit: T,
    runs: AtomicUsize,
}

impl<T: Serialize + Clone + Debug> Repo<T> {
    fn new(tenant: &str, unit: T) -> Self {
        Repo { cache: client(), tenant: tenant.to_owned(), unit, runs: AtomicUsize::new(0) }
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
        assert_ne!(Repo::<u8>::associated(1, 2).key(), Repo::<u16>::associated(1, 2).key());
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
        if long { "square".to_owned() } else { "s".to_owned() }
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
        if long { "disc".to_owned() } else { "d".to_owned() }
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
async fn trait_methods_of_two_types_have_different_keys() {
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
        let inside = Inside { runs: AtomicUsize::new(0) };
        let object: &dyn Boxed = &inside;
        assert_eq!(object.load(1, "n").await, Ok("1 n".to_owned()));
        assert_eq!(object.load(1, "n").await, Ok("1 n".to_owned()));
        assert_eq!(object.load(0, "n").await, Err(Problem::Absent));
        assert_eq!(object.load(0, "n").await, Err(Problem::Absent));
        assert_eq!(ran(&inside.runs), 3);
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
