//! Functions in unusual surroundings: odd names, nested items, generated code, attributes on
//! parameters, receivers behind pointers, and parameters that no key can hold.

#![cfg(feature = "macros")]

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use support::{bounded, cached, client};
use zerocache_client::zerocache;

fn run(runs: &AtomicUsize) {
    runs.fetch_add(1, Ordering::SeqCst);
}

fn ran(runs: &AtomicUsize) -> usize {
    runs.load(Ordering::SeqCst)
}

#[zerocache("london", 42)]
async fn r#match(r#type: u64, größe: u64) -> u64 {
    r#type + größe
}

#[zerocache("london", 42, key = (r#type, größe), call = r#final)]
fn r#loop(r#type: u64, größe: u64) -> u64 {
    r#type + größe
}

#[zerocache("london", 42)]
async fn ambiguous_functions() -> u64 {
    7
}

#[zerocache("london", 42)]
async fn on_parameters(
    #[allow(unused_variables)] unused: u64,
    #[cfg(not(test))] absent: Absent,
    #[cfg(test)] present: u64,
) -> u64 {
    present
}

#[tokio::test]
async fn names_and_parameters() {
    cached(async {
        for _ in 0..2 {
            assert_eq!(r#match(1, 2).await, 3);
            assert_eq!(r#loop(1, 2), 3);
            assert_eq!(r#final(1, 2).wait(), 3);
            assert_eq!(ambiguous_functions().await, 7);
            assert_eq!(on_parameters(1, 2).await, 2);
        }
        assert_eq!(r#final(1, 2).peek().wait().expect("reads"), Some(3));
        assert_ne!(r#match(1, 2).key(), r#match(2, 1).key());
        assert_ne!(on_parameters(1, 2).key(), on_parameters(2, 2).key());
    })
    .await;
}

mod bare {
    //! Nothing is in scope here, not even the prelude.
    #![no_implicit_prelude]

    use ::zerocache_client::zerocache;

    #[zerocache("london", 42, near, tags = ["bare", text], lease = all, negative(none = 2))]
    pub async fn find(text: &str) -> ::std::option::Option<usize> {
        ::std::option::Option::Some(text.len())
    }

    #[zerocache("london", 42, stale(while = 2, background), call = length_call)]
    pub fn length(text: ::std::string::String) -> ::std::result::Result<usize, u8> {
        ::std::result::Result::Ok(text.len())
    }
}

#[tokio::test]
async fn modules_without_a_prelude() {
    cached(async {
        for _ in 0..2 {
            assert_eq!(bare::find("four").await, Some(4));
            assert_eq!(bare::length("four".to_owned()), Ok(4));
        }
        assert_eq!(bare::length_call("four".to_owned()).peek().wait().expect("reads"), Some(Ok(4)));
    })
    .await;
}

/// Two functions of one name inside two others.
async fn first(n: u64) -> u64 {
    #[zerocache("london", 42)]
    async fn inner(n: u64) -> u64 {
        n + 1
    }
    inner(n).await
}

async fn second(n: u64) -> u64 {
    #[zerocache("london", 42)]
    async fn inner(n: u64) -> u64 {
        n + 2
    }
    inner(n).await
}

/// A memoized function inside of one.
#[zerocache("london", 42)]
async fn outer(n: u64) -> u64 {
    #[zerocache("london", 42)]
    fn inner(n: u64) -> u64 {
        n * 2
    }
    inner(n) + inner(n)
}

#[zerocache("london", 42)]
async fn early(n: u64) -> Option<u64> {
    let checked = 'found: {
        if n == 0 {
            break 'found None;
        }
        n.checked_sub(1)
    }?;
    if checked == 1 {
        return None;
    }
    Some(checked)
}

#[zerocache("london", 42)]
fn early_sync(text: &str) -> Result<u8, std::num::ParseIntError> {
    if text.is_empty() {
        return "0".parse();
    }
    let number = text.parse::<u8>()?;
    Ok(number)
}

#[tokio::test]
async fn nested_functions_and_early_returns() {
    cached(async {
        for _ in 0..2 {
            assert_eq!((first(1).await, second(1).await), (2, 3));
            assert_eq!(outer(2).await, 8);
            assert_eq!([early(0).await, early(2).await, early(5).await], [None, None, Some(4)]);
            assert_eq!(early_sync(""), Ok(0));
            assert_eq!(early_sync("7"), Ok(7));
            assert!(early_sync("x").is_err());
        }
    })
    .await;
}

macro_rules! generated {
    ($(#[$meta:meta])* $vis:vis $name:ident($($argument:ident: $ty:ty),*) -> $output:ty $body:block) => {
        $(#[$meta])*
        #[zerocache("london", 42)]
        #[must_use]
        $vis async fn $name($($argument: $ty),*) -> $output $body
    };
}

generated! {
    /// Documented.
    #[allow(clippy::needless_return)]
    pub(crate) sum(left: u64, right: &u64) -> Result<u64, String> {
        if left == 0 {
            return Err("zero".to_owned());
        }
        return Ok(left + right);
    }
}

struct Board<const N: usize> {
    cells: [u8; N],
    runs: AtomicUsize,
}

impl<const N: usize> Board<N> {
    const WEIGHT: u64 = 3;

    #[zerocache("london", 42, key = (&self.cells[..], factor))]
    async fn weight<'a>(&'a self, factor: &'a u64) -> u64 {
        run(&self.runs);
        self.cells.iter().map(|cell| u64::from(*cell)).sum::<u64>() * factor * Self::WEIGHT
    }

    #[zerocache(client(), 42, skip(self))]
    async fn pinned(self: Pin<&mut Self>, n: u64) -> u64 {
        run(&self.runs);
        n
    }

    #[zerocache(client(), 42, skip(self))]
    async fn shared(self: &Arc<Self>, n: u64) -> u64 {
        run(&self.runs);
        n
    }
}

fn board<const N: usize>(cells: [u8; N]) -> Board<N> {
    Board { cells, runs: AtomicUsize::new(0) }
}

#[tokio::test]
async fn generated_functions_and_receivers() {
    bounded(client().scope(async {
        for _ in 0..2 {
            assert_eq!(sum(1, &2).await, Ok(3));
            assert_eq!(sum(0, &2).await, Err("zero".to_owned()));
        }
        let (two, mut three) = (board([1, 2]), board([1, 2, 0]));
        for _ in 0..2 {
            assert_eq!((two.weight(&2).await, three.weight(&2).await), (18, 18));
            assert_eq!(Pin::new(&mut three).pinned(4).await, 4);
        }
        assert_eq!((ran(&two.runs), ran(&three.runs)), (1, 2));
        assert_ne!(two.weight(&2).key(), three.weight(&2).key());
        let shared = Arc::new(two);
        assert_eq!((shared.shared(1).await, shared.shared(1).await), (1, 1));
        assert_eq!(ran(&shared.runs), 2);
    }))
    .await;
}

#[zerocache("london", 42, skip(make))]
async fn with_closure<F>(n: u64, make: F) -> u64
where
    F: for<'a> Fn(&'a u64) -> u64,
{
    tokio::task::yield_now().await;
    make(&n)
}

#[zerocache("london", 42, skip(source))]
async fn with_object(n: u64, source: &dyn Source) -> u64 {
    source.get(n)
}

#[zerocache("london", 42, skip(source, marker))]
async fn with_bounds<S, T>(n: u64, source: &S, marker: std::marker::PhantomData<T>) -> Vec<T>
where
    S: Source + ?Sized,
    T: From<u8> + Serialize + DeserializeOwned,
{
    let _ = marker;
    (0..source.get(n)).map(|_| T::from(1)).collect()
}

trait Source {
    fn get(&self, n: u64) -> u64;
}

impl Source for AtomicUsize {
    fn get(&self, n: u64) -> u64 {
        run(self);
        n + 1
    }
}

#[tokio::test]
async fn parameters_that_cannot_be_in_a_key_are_skipped() {
    cached(async {
        let source = AtomicUsize::new(0);
        for _ in 0..2 {
            assert_eq!(with_closure(1, |n| n + source.get(0)).await, 2);
            assert_eq!(with_object(1, &source).await, 2);
            let marker = std::marker::PhantomData::<u16>;
            assert_eq!(with_bounds(1, &source, marker).await, [1, 1]);
        }
        let marker = std::marker::PhantomData::<u32>;
        assert_eq!(with_bounds(1, &source, marker).await, [1, 1]);
        // Once each, but for the closure: it has no name that would tell it from others.
        assert_eq!(ran(&source), 5);
    })
    .await;
}

#[async_trait::async_trait]
trait Store<T: Send + Sync + 'static> {
    async fn put<'a>(&'a mut self, key: &'a str, value: T) -> Option<T>;

    #[zerocache("london", 42, skip(self))]
    async fn size(&self, of: &[u8]) -> usize
    where
        Self: Sync,
    {
        of.len()
    }
}

struct Shelf;

#[async_trait::async_trait]
impl<T> Store<T> for Shelf
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    #[zerocache("london", 42, skip(self))]
    async fn put<'a>(&'a mut self, key: &'a str, value: T) -> Option<T> {
        tokio::task::yield_now().await;
        (!key.is_empty()).then_some(value)
    }
}

#[tokio::test]
async fn generic_async_traits() {
    cached(async {
        for _ in 0..2 {
            assert_eq!(Shelf.put("a", 7_u8).await, Some(7));
            assert_eq!(Shelf.put("a", "seven".to_owned()).await, Some("seven".to_owned()));
            assert_eq!(Shelf.put("", 7_u8).await, None);
            assert_eq!(Store::<u8>::size(&Shelf, b"abc").await, 3);
        }
    })
    .await;
}
