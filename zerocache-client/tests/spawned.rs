//! Calls inside of tasks that are spawned: their futures are `Send`, whatever they borrow.

#![cfg(feature = "macros")]

mod support;

use std::io;

use support::{bounded, other};
use zerocache_client::{ZerocacheClient, memo::LeaseScope, zerocache};

struct Database {
    cache: ZerocacheClient,
    rows: Vec<(String, u64)>,
}

impl Database {
    async fn row(&self, name: &str) -> Result<u64, io::Error> {
        tokio::task::yield_now().await;
        let found = self.rows.iter().find(|(of, _)| of == name);
        found.map(|(_, value)| *value).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    async fn plain(&self, name: &str) -> Result<u64, io::Error> {
        self.cache.get_or_compute(name, 60, async || self.row(name).await).await
    }

    async fn with_options(&self, name: &str) -> Result<u64, io::Error> {
        self.cache
            .get_or_compute(format!("options:{name}"), 60, async || self.row(name).await)
            .near()
            .stale_while(60)
            .stale_if_error(60)
            .refresh_ahead(10)
            .jitter(5)
            .tags([name])
            .lease(LeaseScope::Region)
            .cache_if(|value| *value > 0)
            .compared()
            .await
    }

    async fn explained(&self, name: &str) -> Result<u64, io::Error> {
        let compute = async || self.row(name).await;
        let call = self.cache.get_or_compute(format!("explained:{name}"), 60, compute);
        call.compared().explain().await.0
    }

    async fn block(&self, name: &str) -> Result<u64, io::Error> {
        self.cache
            .get_or_compute(format!("block:{name}"), 60, || async { self.row(name).await })
            .near()
            .await
    }

    async fn many(&self, names: &[&str]) -> Result<usize, io::Error> {
        let load = async |missing: Vec<String>| {
            let mut found = Vec::new();
            for name in missing {
                found.push((name.clone(), self.row(&name).await?));
            }
            Ok::<_, io::Error>(found)
        };
        let keys = names.iter().map(|name| (*name).to_owned());
        Ok(self.cache.get_or_compute_many(keys, 60, load).await?.len())
    }

    async fn many_with_options(&self, names: &[&str]) -> Result<usize, io::Error> {
        let call = self.cache.get_or_compute_many(names.iter().copied(), 60, async |missing| {
            let mut found = Vec::new();
            for name in missing {
                found.push((name, self.row(name).await?));
            }
            Ok::<_, io::Error>(found)
        });
        Ok(call.near().stale_while(60).tags(["t"]).compared().await?.len())
    }
}

#[zerocache(&database.cache, 60, skip(database), near, lease = region)]
async fn row(database: &Database, name: &str) -> Result<u64, io::Error> {
    database.row(name).await
}

#[tokio::test]
async fn calls_that_borrow_can_be_spawned() {
    let rows = vec![("a".to_owned(), 1), ("b".to_owned(), 2)];
    let database = Database { cache: other("spawned"), rows };
    let task = tokio::spawn(bounded(async move {
        let name = String::from("a");
        assert_eq!(database.plain(&name).await?, 1);
        assert_eq!(database.with_options(&name).await?, 1);
        assert_eq!(database.explained(&name).await?, 1);
        assert_eq!(database.block(&name).await?, 1);
        assert_eq!(row(&database, &name).await?, 1);
        assert_eq!(row(&database, "b").ttl(5).await?, 2);
        let soft = database.cache.get_or_compute("soft", 60, async || Ok::<_, io::Error>(3));
        assert_eq!(soft.soft_timeout(1).stale_if_error(60).await?, 3);
        assert_eq!(database.many(&["a", "b"]).await?, 2);
        assert_eq!(database.many_with_options(&["a", "b"]).await?, 2);
        Ok::<_, io::Error>(())
    }));
    task.await.expect("no panic").expect("finds all");
}
