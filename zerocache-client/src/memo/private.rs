//! What the attribute's expansion names, and nobody else.

pub use super::args::{Args, KeyPart, ReceiverKeyPart};
pub use super::background::{background, background_sync};
pub use super::call::{Call, Parts, call};
pub use super::near::near;
pub use super::options::{MaybeNone, NegativeErr, Options, Predicate};
pub use super::origin::{Blocking, boxed, lazy};
pub use super::rule::{NoErrors, NoSharing, PlainRule, Probe};
pub use super::site::{Instance, Origin, Site};
pub use super::tag::tag;
pub use super::target::{RegionOrClient, Target};
pub use super::ttl::{TtlRule, duration};
pub use super::variant::{Asked, OfBorrowed, OfOwned, OfUnsized};
pub use crate::Ack;
pub use crate::lease::LeaseScope;

/// The client of the scope in which this runs; then the attribute's region is not looked at.
#[inline]
pub fn scoped() -> Option<Target> {
    super::scope::current().map(Target::client)
}

/// Where the caller stands.
pub fn target<T: RegionOrClient + ?Sized>(region: &T) -> Target {
    region.target()
}

/// Adds a parameter to the key.
#[inline]
pub fn argument<T: KeyPart + ?Sized>(args: &mut Args, value: &T) {
    value.add_to(args);
}

/// Adds `self` to the key.
#[inline]
pub fn receiver<T: ReceiverKeyPart + ?Sized>(args: &mut Args, value: &T) {
    value.add_to(args);
}
