//! The arguments of one call, on their way into its key.

use serde::Serialize;

use super::buffer::Buffer;
use super::key::{self, CallKey, FunctionId, KeyError};

/// Arguments, encoded one after the other.
pub struct Args {
    encoded: Buffer,
    // Boxed, so that arguments are moved in registers.
    failed: Option<Box<KeyError>>,
}

impl Args {
    /// None yet.
    #[allow(clippy::new_without_default)]
    #[inline]
    pub fn new() -> Self {
        Args { encoded: CallKey::buffer(), failed: None }
    }

    #[inline]
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) {
        if self.failed.is_none() {
            self.failed = key::encode(value, self.encoded.vec()).err().map(Box::new);
        }
    }

    /// The key of a call of `function` with them, or none when one of them refused to be encoded.
    #[inline]
    pub(crate) fn finish(self, function: FunctionId) -> Option<CallKey> {
        match self.failed {
            None => Some(CallKey::new(function, self.encoded)),
            Some(error) => {
                tracing::debug!(%error, "an argument of a memoized call cannot be encoded");
                None
            }
        }
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
