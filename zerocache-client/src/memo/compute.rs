//! Values by key that are computed where the cache has none.

use std::future::Future;

use bytes::Bytes;

use super::call::Call;
use super::origin::{self, Boxed};
use super::rule::{Cacheable, Errors, OkRule, Sharing};
use super::run::{Entry, Given};
use super::site::{Origin, Site};
use super::target::Target;
use super::ttl::TtlRule;
use crate::ZerocacheClient;
use crate::lifetime::Lifetime;

/// Stands for all calls that go by a key.
pub(super) static SITE: Site = Site::new(Origin {
    function: "get_or_compute",
    name: None,
    version: 0,
    package: None,
    module: module_path!(),
    tokens: 0,
    file: file!(),
    line: line!(),
    column: column!(),
});

impl ZerocacheClient {
    /// The value of a key, from the cache or computed, once per key and process at a time.
    ///
    /// It is what a memoized function does, for a key that is given: the value is stored as
    /// [`Value`](crate::Value) for `ttl`, an error is returned as it is and not stored, and a cache
    /// that cannot be reached never fails the call. The [`Call`]'s methods set further options.
    /// Waiting callers share an error where [`share_errors`](Call::share_errors) says so.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), std::io::Error> {
    /// use zerocache_client::{ZerocacheClient, memo::LeaseScope};
    ///
    /// let cache = ZerocacheClient::get_instance("london");
    /// let text = cache
    ///     .get_or_compute("greeting", 60, async || std::fs::read_to_string("greeting"))
    ///     .stale_if_error(3_600)
    ///     .lease(LeaseScope::Region)
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_or_compute<C, F, V, E>(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Lifetime,
        compute: C,
    ) -> Call<Boxed<C, F>>
    where
        C: FnOnce() -> F,
        F: Future<Output = Result<V, E>>,
        V: Cacheable,
    {
        let given = Given { client: self.clone(), key: Bytes::copy_from_slice(key.as_ref()) };
        let entry = Entry {
            site: &SITE,
            target: Target::client(self.clone()),
            identity: None,
            given: Some(Box::new(given)),
        };
        let policy = OkRule::new().policy(Sharing::none(), Errors::unreadable());
        Call::given(entry, TtlRule::given(ttl), policy, origin::boxed(compute))
    }
}
