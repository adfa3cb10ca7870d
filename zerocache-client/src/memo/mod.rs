//! Memoization: calls of functions with the attribute `#[zerocache]`, and of
//! [`get_or_compute`](crate::ZerocacheClient::get_or_compute).
//!
//! A [`Call`] reads its value from the cache, or computes it, once per key and process at a time, and stores
//! it. A failure of the cache never fails the call: it is counted, and the function computes.

mod args;
mod background;
mod buffer;
mod call;
mod call_options;
mod call_target;
mod chance;
mod completion;
mod compute;
mod compute_many;
mod detach;
mod discriminant;
mod equality;
mod flight;
mod invalidate;
mod key;
mod lease;
mod leasing;
mod limit;
mod lookup;
mod near;
mod options;
mod origin;
mod outage;
mod peek;
pub(crate) mod private;
mod purge;
mod recursion;
pub(crate) mod report;
mod rule;
mod run;
mod scope;
mod site;
mod stage;
mod stored;
mod tag;
mod target;
mod ttl;
mod writing;
mod writing_many;

use std::future::Future;
use std::pin::Pin;

pub use crate::lease::LeaseScope;
pub use args::{KeyPart, ReceiverKeyPart};
pub use call::Call;
pub use compute_many::ComputeMany;
pub use invalidate::Invalidate;
pub use options::MaybeNone;
pub use origin::Blocking;
pub use peek::Peek;
pub use purge::{Purge, PurgeEachNode, PurgeMany, PurgedNodes};
pub use report::ExplainCall;
pub use rule::{Cacheable, MayFail};
pub use scope::Scope;
pub use tag::Tag;
pub use target::RegionOrClient;

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
