//! The arguments of a call, which become its key.

use serde::Serialize;

use super::key::{self, CallKey};
use super::site::{Instance, Site};

/// Collects the arguments of a call into its key. A call has no key if an argument cannot be encoded, or
/// another function has the same identity.
pub struct Args {
    site: &'static Site,
    key: Option<CallKey>,
    /// The offset of the last argument.
    last_offset: usize,
}

impl Args {
    /// Creates an empty list of arguments of an instantiation of the function at `site`.
    #[inline]
    pub fn new(site: &'static Site, instance: Instance) -> Self {
        Args { site, key: site.function(instance).map(CallKey::new), last_offset: 0 }
    }

    #[inline]
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) {
        let Some(key) = &mut self.key else { return };
        self.last_offset = key.arguments().len();
        if let Err(error) = key::encode(value, key.arguments()) {
            self.site.warn_of_argument(&error);
            self.key = None;
        }
    }

    /// Adds the enum variant of the last argument.
    #[inline]
    pub fn variant(&mut self, number: i128) {
        if let (Some(key), false) = (&mut self.key, number == 0) {
            key::add_variant(key.arguments(), self.last_offset, number);
        }
    }

    /// Returns the key, after the last argument.
    #[inline]
    pub(crate) fn key(&mut self) -> Option<&CallKey> {
        self.key.as_mut()?.complete();
        self.key.as_ref()
    }

    /// Returns the key as an owned value.
    #[inline]
    pub(crate) fn into_key(mut self) -> Option<CallKey> {
        self.key()?;
        self.key
    }
}

/// An argument that can be part of a key: any `Serialize` value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be part of a cache key",
    label = "does not implement `serde::Serialize`",
    note = "derive `Serialize` for it (bound a generic one by `Serialize`), leave the parameter out \
            with `skip(…)`, or say what identifies the call with `key = (…)`"
)]
pub trait KeyPart {
    /// Adds the value to the key.
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

/// A `self` that can be part of a key: any `Serialize` value.
#[diagnostic::on_unimplemented(
    message = "`self` is an argument like any other, and `{Self}` cannot be part of a cache key",
    label = "does not implement `serde::Serialize`",
    note = "leave it out with `skip(self)`, say what identifies the call with \
            `key = (&self.id, …)`, or derive `Serialize`"
)]
pub trait ReceiverKeyPart {
    /// Adds the value to the key.
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
