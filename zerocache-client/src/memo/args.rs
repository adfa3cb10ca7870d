//! The arguments of one call, on their way into its key.

use serde::Serialize;

use super::key::{self, CallKey};
use super::site::{Instance, Site};

/// The key of a call in the making. None for a call without a key: an argument refused to be encoded, or
/// another function has the same identity.
pub struct Args {
    site: &'static Site,
    key: Option<CallKey>,
    /// Where the last argument begins.
    last: usize,
}

impl Args {
    /// None yet, of one instantiation of the function at `site`.
    #[inline]
    pub fn new(site: &'static Site, instance: Instance) -> Self {
        Args { site, key: site.function(instance).map(CallKey::new), last: 0 }
    }

    #[inline]
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) {
        let Some(key) = &mut self.key else { return };
        self.last = key.arguments().len();
        if let Err(error) = key::encode(value, key.arguments()) {
            self.site.warn_of_argument(&error);
            self.key = None;
        }
    }

    /// The last argument is this variant of its type.
    #[inline]
    pub fn variant(&mut self, number: i128) {
        if let (Some(key), false) = (&mut self.key, number == 0) {
            key::add_variant(key.arguments(), self.last, number);
        }
    }

    /// The key, after the last argument.
    #[inline]
    pub(crate) fn key(&mut self) -> Option<&CallKey> {
        self.key.as_mut()?.complete();
        self.key.as_ref()
    }

    /// The same, to be kept.
    #[inline]
    pub(crate) fn into_key(mut self) -> Option<CallKey> {
        self.key()?;
        self.key
    }
}

/// An argument that can be part of a key: whatever is `Serialize`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "does not implement `serde::Serialize`",
    note = "derive `Serialize` for it (bound a generic one by `Serialize`), leave the parameter out \
            with `skip(…)`, or say what identifies the call with `key = (…)`"
)]
pub trait KeyPart {
    /// Adds the value.
    #[doc(hidden)]
    fn add_to(&self, args: &mut Args);
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> KeyPart for T {
    #[inline]
    fn add_to(&self, args: &mut Args) {
        args.add(self);
    }
}

/// A `self` that can be part of a key: whatever is `Serialize`.
#[diagnostic::on_unimplemented(
    message = "`self` is an argument like any other, and `{Self}` cannot be part of a cache key",
    label = "does not implement `serde::Serialize`",
    note = "leave it out with `skip(self)`, say what identifies the call with \
            `key = (&self.id, …)`, or derive `Serialize`"
)]
pub trait ReceiverKeyPart {
    /// Adds the value.
    #[doc(hidden)]
    fn add_to(&self, args: &mut Args);
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + ?Sized> ReceiverKeyPart for T {
    #[inline]
    fn add_to(&self, args: &mut Args) {
        args.add(self);
    }
}
