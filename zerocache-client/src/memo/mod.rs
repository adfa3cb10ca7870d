//! Memoization: what runs when a function under `#[zerocache]` is called.
//!
//! The attribute's expansion hands a call's parts to [`call`](call::call); a [`Call`] looks the
//! value up, or computes it, once per key and process, and stores it. A failure of the cache never
//! fails the call: it is counted, and the function computes.

mod args;
mod buffer;
mod call;
mod counters;
mod flight;
mod key;
mod leading;
mod look;
mod near;
mod operation;
#[allow(dead_code, reason = "the steps of a call take these up one by one")]
mod options;
mod origin;
pub(crate) mod private;
mod rule;
mod run;
mod scope;
mod site;
mod target;
mod ttl;

pub use args::{KeyPart, ReceiverKeyPart};
pub use call::Call;
pub(crate) use counters::MemoCounters;
pub use counters::MemoStats;
pub use operation::{Invalidate, Peek};
pub use options::{LeaseScope, MaybeNone};
pub use origin::Blocking;
pub use rule::Cacheable;
pub use scope::Scope;
pub use target::RegionOrClient;
pub use ttl::Lifetime;
