//! Memoization: what runs when a function under `#[zerocache]` is called.
//!
//! The attribute's expansion hands a call's parts to [`call`](call::call); a [`Call`] looks the
//! value up, or computes it, once per key and process, and stores it. A failure of the cache never
//! fails the call: it is counted, and the function computes.

mod args;
mod background;
mod buffer;
mod call;
mod compute;
mod flight;
mod freshness;
mod key;
mod leading;
mod lease;
mod look;
mod near;
mod operation;
mod options;
mod origin;
pub(crate) mod private;
pub(crate) mod report;
mod rule;
mod run;
mod scope;
mod settle;
mod site;
mod stage;
mod stored;
mod tag;
mod target;
mod ttl;
mod tuning;
mod variant;
mod writing;

pub use crate::lease::LeaseScope;
pub use args::{KeyPart, ReceiverKeyPart};
pub use call::Call;
pub use operation::{Invalidate, Peek};
pub use options::MaybeNone;
pub use origin::Blocking;
pub use report::ExplainCall;
pub use rule::{Cacheable, MayFail};
pub use scope::Scope;
pub use tag::Tag;
pub use target::RegionOrClient;
