//! Memoization by an explicit key and a closure.

use std::future::Future;

use bytes::Bytes;

use super::call::Call;
use super::call_target::CallTarget;
use super::equality::WithoutEquality;
use super::origin::{self, Boxed};
use super::rule::{Cacheable, Errors, OkRule, Sharing};
use super::site::{FunctionInfo, Site};
use super::ttl::TtlRule;
use crate::ZerocacheClient;
use crate::lifetime::Lifetime;

/// The site of all calls with an explicit key.
pub(super) static SITE: Site = Site::new(FunctionInfo {
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
    /// Returns the value of a key from the cache, or computes it, once per key and process at a time.
    ///
    /// It does for an explicit key what a memoized function does: the value is stored as
    /// [`Value`](crate::Value) for `ttl`, an error is returned and not stored, and an unreachable cache never
    /// fails the call. The [`Call`]'s methods set further options. Waiting callers share an error only with
    /// [`share_errors`](Call::share_errors). A value that serde reads from a copy of its input (`flatten`,
    /// `untagged`, `tag`) is stored only with [`compared`](Call::compared), or in a codec that is named.
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
        let call = CallTarget::explicit(self, Bytes::copy_from_slice(key.as_ref()));
        let policy = OkRule::new().policy(Sharing::none(), Errors::unreadable(), WithoutEquality);
        Call::explicit(call, TtlRule::given(ttl), policy, origin::boxed(compute))
    }
}
