//! The items that the attribute's expansion uses. No part of the public interface.

pub use super::args::{Args, KeyPart, ReceiverKeyPart};
pub use super::background::{background, background_sync};
pub use super::call::{Call, Parts, call};
pub use super::discriminant::{Argument, BorrowedVariant, OwnedVariant, UnsizedVariant};
pub use super::equality::NoEquality;
pub use super::near::near;
pub use super::options::{MaybeNone, NegativeErr, Options, Predicate};
pub use super::origin::{Blocking, boxed, lazy};
pub use super::rule::{NoErrors, NoSharing, PlainRule, Probe, ReferenceErrors};
pub use super::site::{FunctionInfo, Instance, Site};
pub use super::tag::tag;
pub use super::target::{RegionOrClient, Target};
pub use super::ttl::{TtlRule, duration};
pub use crate::Ack;
pub use crate::codec::Codec;
pub use crate::lease::LeaseScope;

/// Returns the client of the current scope, which replaces that of the attribute's region.
#[inline]
pub fn scoped() -> Option<Target> {
    super::scope::current().map(Target::client)
}

/// Returns the client that the attribute's first argument selects.
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
