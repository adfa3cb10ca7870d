//! Which nodes hold a key. The holders of a key and the receivers of a write are chosen here and
//! nowhere else: fan-out, repair, the judging of misses and the client's rotation all ask a [`Placement`].
//!
//! [`Everyone`] is the only implementation. Its answers are constants and identities, which the compiler
//! removes.

use alloc::sync::Arc;

use super::view::{Member, View};
use crate::{key::Key, version::Incarnation};

/// The placement in force.
pub const PLACEMENT: Everyone = Everyone;

/// Decides which nodes hold which keys. Every node of a cluster must decide alike.
pub trait Placement {
    /// Keeps those of `nodes` that hold `key`.
    fn owners<N>(&self, key: &Key, nodes: impl Iterator<Item = N>) -> impl Iterator<Item = N>;

    /// Keeps those of `nodes` that a client may ask for a key.
    fn readers<N>(&self, nodes: impl Iterator<Item = N>) -> impl Iterator<Item = N>;

    /// Returns the other regions in which nodes hold `key` and accept writes.
    fn regions(&self, key: &Key, view: &View) -> Arc<[Arc<str>]>;

    /// Returns whether two nodes hold keys in common, and so repair each other and answer for each
    /// other's misses.
    fn overlaps(&self, one: Incarnation, other: Incarnation) -> bool;

    /// Returns whether `source` holds every key that `node` holds, so that `node` can copy everything
    /// from it, and finds everything that it lacks of a region in a round with it.
    fn covers(&self, source: Incarnation, node: Incarnation) -> bool;

    /// Returns the members of `region` that receive a write of `key`.
    fn receivers<'a>(
        &self,
        key: &Key,
        view: &'a View,
        region: &'a str,
    ) -> impl Iterator<Item = &'a Member> {
        self.owners(key, view.writable_in(region))
    }
}

/// Every node of every region holds every key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Everyone;

impl Placement for Everyone {
    #[inline]
    fn owners<N>(&self, _: &Key, nodes: impl Iterator<Item = N>) -> impl Iterator<Item = N> {
        nodes
    }

    #[inline]
    fn readers<N>(&self, nodes: impl Iterator<Item = N>) -> impl Iterator<Item = N> {
        nodes
    }

    #[inline]
    fn regions(&self, _: &Key, view: &View) -> Arc<[Arc<str>]> {
        view.other_regions()
    }

    #[inline]
    fn overlaps(&self, _: Incarnation, _: Incarnation) -> bool {
        true
    }

    #[inline]
    fn covers(&self, _: Incarnation, _: Incarnation) -> bool {
        true
    }
}
