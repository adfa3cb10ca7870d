//! In-memory stand-in for the client; replaced by the real one, which has these signatures.
//!
//! Regions whose name begins with `dead` fail every operation.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::codec::IntoValue;
use crate::error::Error;
use crate::memo::MemoCounters;

/// A handle to the cache.
#[derive(Clone)]
pub struct ZerocacheClient {
    inner: Arc<Inner>,
}

struct Inner {
    region: String,
    counters: MemoCounters,
    runtime: tokio::runtime::Handle,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Stand-in.
    pub status: (),
    /// How many nodes hold the value.
    pub replicas: usize,
    /// Stand-in.
    pub version: u64,
}

type Map = Mutex<HashMap<Bytes, Bytes>>;

fn entries() -> &'static Map {
    static ENTRIES: OnceLock<Map> = OnceLock::new();
    ENTRIES.get_or_init(Map::default)
}

fn runtime() -> tokio::runtime::Handle {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let start = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("the stand-in needs a runtime")
    };
    RUNTIME.get_or_init(start).handle().clone()
}

fn instances() -> &'static Mutex<HashMap<String, ZerocacheClient>> {
    static INSTANCES: OnceLock<Mutex<HashMap<String, ZerocacheClient>>> = OnceLock::new();
    INSTANCES.get_or_init(Mutex::default)
}

impl ZerocacheClient {
    /// The client of a region.
    pub fn get_instance(region: impl AsRef<str>) -> ZerocacheClient {
        let region = region.as_ref().to_owned();
        let make = || {
            let counters = MemoCounters::new(0);
            let inner = Inner {
                region: region.clone(),
                counters,
                runtime: runtime(),
            };
            ZerocacheClient {
                inner: Arc::new(inner),
            }
        };
        instances()
            .lock()
            .entry(region.clone())
            .or_insert_with(make)
            .clone()
    }

    /// Forgets the client of a region.
    pub fn clear_instance(region: impl AsRef<str>) {
        instances().lock().remove(region.as_ref());
    }

    /// What sets this client's memoized keys apart.
    pub fn namespace(&self) -> &str {
        ""
    }

    /// Reads raw bytes.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        self.raw_get(Bytes::copy_from_slice(key.as_ref())).await
    }

    /// Stores a value.
    pub async fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl IntoValue,
        ttl: u64,
    ) -> Result<Written, Error> {
        let value = value.into_value().map_err(Error::Encode)?;
        let key = Bytes::copy_from_slice(key.as_ref());
        self.raw_put(key, value, Duration::from_secs(ttl)).await
    }

    fn on_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Error>> + Send + 'static {
        let dead = self.inner.region.starts_with("dead");
        let task = self.inner.runtime.spawn(async move { (!dead).then(work) });
        async move { task.await.ok().flatten().ok_or(Error::Unreachable) }
    }

    pub(crate) fn raw_get(
        &self,
        key: Bytes,
    ) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send + 'static {
        self.on_runtime(move || entries().lock().get(&key).cloned())
    }

    pub(crate) fn raw_put(
        &self,
        key: Bytes,
        value: Bytes,
        _ttl: Duration,
    ) -> impl Future<Output = Result<Written, Error>> + Send + 'static {
        self.on_runtime(move || {
            entries().lock().insert(key, value);
            Written {
                status: (),
                replicas: 1,
                version: 0,
            }
        })
    }

    pub(crate) fn raw_delete(
        &self,
        key: Bytes,
    ) -> impl Future<Output = Result<Written, Error>> + Send + 'static {
        self.on_runtime(move || {
            entries().lock().remove(&key);
            Written {
                status: (),
                replicas: 1,
                version: 0,
            }
        })
    }

    pub(crate) fn memo_counters(&self) -> &MemoCounters {
        &self.inner.counters
    }

    pub(crate) fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send + 'static {
        let runtime = self.inner.runtime.clone();
        let task = runtime.spawn(async move { tokio::time::sleep(duration).await });
        async move {
            let _ = task.await;
        }
    }
}
