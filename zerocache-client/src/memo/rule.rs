//! The cached part of a returned value, chosen by the function's return type.
//!
//! Of a `Result`, also under an alias, the `Ok` value is cached, and the error type is not restricted. Every
//! other type is cached whole, `Option` included. The choice is made by method lookup: an inherent method of
//! `Probe<Result<V, E>>` takes precedence over a trait's method of `Probe<T>`. It does not depend on names, so
//! aliases work, and a user's own type called `Result` is cached whole.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::equality::Equality;
use super::options::{NegativeErr, Predicate};
use super::ttl::TtlRule;
use crate::codec::{self, CodecError, Destination};
use crate::lifetime::Lifetime;

/// A value that can be cached: `Serialize` and `DeserializeOwned`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "a memoized value must implement `serde::Serialize` and `serde::de::DeserializeOwned`",
    note = "derive both for it, and let it own what it holds"
)]
pub trait Cacheable: Serialize + DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Cacheable for T {}

/// An error that several callers get.
pub(crate) type SharedError = Arc<dyn Any + Send + Sync>;

/// The length in bytes of [`Policy::shape`].
pub(crate) const SHAPE_LEN: usize = 1 + 8 + 8;

/// Returns the bytes to store; `None` for a value that is not cached.
pub(crate) type Encode<T> = fn(&T, Destination) -> Option<Result<Bytes, CodecError>>;

/// The conversions of a function's values.
pub struct Policy<T> {
    /// Returns true for an `Err`.
    pub(crate) is_error: fn(&T) -> bool,
    pub(crate) encode: Encode<T>,
    pub(crate) decode: fn(&[u8]) -> Result<T, CodecError>,
    /// Returns the shape of the cached value.
    shape: fn() -> u64,
    pub(crate) sharing: Sharing<T>,
    pub(crate) errors: Errors<T>,
}

impl<T> Policy<T> {
    /// Returns the shapes of values and of stored errors, after the tag of bincode, which stands for all codecs.
    /// Functions with the same shape read each other's values.
    pub(crate) fn shape(&self) -> [u8; SHAPE_LEN] {
        let mut shape = [codec::TAG; SHAPE_LEN];
        shape[1..9].copy_from_slice(&(self.shape)().to_be_bytes());
        shape[9..].copy_from_slice(&(self.errors.shape)().to_be_bytes());
        shape
    }
}

impl<T> Clone for Policy<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Policy<T> {}

/// The sharing of errors with waiting callers: by cloning, if the error is `Clone`.
pub struct Sharing<T> {
    pub(crate) share: fn(&T) -> Option<SharedError>,
    pub(crate) unshare: fn(&SharedError) -> Option<T>,
}

impl<T> Clone for Sharing<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Sharing<T> {}

impl<T> Sharing<T> {
    pub(crate) fn none() -> Self {
        Sharing { share: |_| None, unshare: |_| None }
    }
}

/// The decoding of stored errors; it fails if the error type is not `DeserializeOwned`.
pub struct Errors<T> {
    pub(crate) decode: fn(&[u8]) -> Result<T, CodecError>,
    /// Returns the shape of errors; 0 if they are not decoded.
    shape: fn() -> u64,
}

impl<T> Clone for Errors<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Errors<T> {}

impl<T> Errors<T> {
    pub(crate) fn unreadable() -> Self {
        Errors {
            decode: |_| Err(CodecError::Decode("the error type cannot be decoded".into())),
            shape: || 0,
        }
    }
}

/// The returned type while its rule is chosen.
pub struct Probe<T>(PhantomData<fn() -> T>);

impl<T> Probe<T> {
    /// Creates the probe of a function's return type.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Probe(PhantomData)
    }
}

impl<V, E> Probe<Result<V, E>> {
    /// Returns the rule that caches `Ok` only.
    pub fn rule(&self) -> OkRule<V, E> {
        OkRule(PhantomData)
    }
}

/// The choice for every type but `Result`.
pub trait PlainRule {
    /// The returned type.
    type Value;
    /// Returns the rule that caches the whole value.
    fn rule(&self) -> WholeRule<Self::Value>;
}

impl<T> PlainRule for Probe<T> {
    type Value = T;
    fn rule(&self) -> WholeRule<T> {
        WholeRule(PhantomData)
    }
}

/// The rule of a `Result`: `Ok` is cached.
pub struct OkRule<V, E>(PhantomData<fn() -> (V, E)>);

impl<V, E> Clone for OkRule<V, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V, E> Copy for OkRule<V, E> {}

impl<V, E> OkRule<V, E> {
    pub(crate) fn new() -> Self {
        OkRule(PhantomData)
    }
}

impl<V, E> OkRule<V, E> {
    /// Returns the conversions of the function's values.
    pub fn policy<Q: Equality<V>>(
        &self,
        sharing: Sharing<Result<V, E>>,
        errors: Errors<Result<V, E>>,
        _equality: Q,
    ) -> Policy<Result<V, E>>
    where
        V: Cacheable,
    {
        Policy {
            is_error: Result::is_err,
            encode: encode_ok::<V, E, Q>,
            decode: |bytes| codec::decode(bytes).map(Ok),
            shape: codec::shape_of::<V>,
            sharing,
            errors,
        }
    }

    /// Returns a lifetime that is computed from the `Ok` value.
    pub fn ttl_of<L, C>(&self, lifetime: C) -> TtlRule<Result<V, E>>
    where
        L: Lifetime,
        C: Fn(&V) -> L + Send + Sync + 'static,
    {
        TtlRule::of_value(move |value: &Result<V, E>| match value {
            Ok(value) => lifetime(value).into_duration(),
            Err(_) => Duration::ZERO,
        })
    }

    /// Returns the condition on stored `Ok` values.
    pub fn cache_if<C>(&self, predicate: C) -> Predicate<Result<V, E>>
    where
        C: Fn(&V) -> bool + Send + Sync + 'static,
    {
        Predicate::new(move |value: &Result<V, E>| value.as_ref().is_ok_and(&predicate))
    }

    /// Returns the condition on stored errors, and their lifetime.
    pub fn negative_err<C, Q: Equality<E>>(
        &self,
        predicate: C,
        lifetime: impl Lifetime,
        _equality: Q,
    ) -> NegativeErr<Result<V, E>>
    where
        C: Fn(&E) -> bool + Send + Sync + 'static,
        E: Cacheable,
    {
        NegativeErr {
            is_kept: Predicate::new(move |value: &Result<V, E>| {
                value.as_ref().is_err_and(&predicate)
            }),
            lifetime: lifetime.into_duration(),
            encode: |value, to| Some(codec::encode_for(value.as_ref().err()?, to, Q::function())),
        }
    }
}

/// Encodes the `Ok` value, if it is one.
pub(crate) fn encode_ok<V: Cacheable, E, Q: Equality<V>>(
    value: &Result<V, E>,
    to: Destination,
) -> Option<Result<Bytes, CodecError>> {
    Some(codec::encode_for(value.as_ref().ok()?, to, Q::function()))
}

impl<V, E: Cacheable> OkRule<V, E> {
    /// Returns the decoding of stored errors.
    pub fn errors(&self) -> Errors<Result<V, E>> {
        Errors { decode: |bytes| codec::decode(bytes).map(Err), shape: codec::shape_of::<E> }
    }
}

/// Errors that cannot be decoded; chosen where the inherent method does not apply.
pub trait NoErrors {
    /// The returned type.
    type Value;
    /// Returns a decoding that always fails.
    fn errors(&self) -> Errors<Self::Value>;
}

impl<V, E> NoErrors for OkRule<V, E> {
    type Value = Result<V, E>;
    fn errors(&self) -> Errors<Result<V, E>> {
        Errors::unreadable()
    }
}

/// Errors that are references, which are not decoded. The method takes `self` by value, and so precedes the others: the
/// compiler would choose the one for `Cacheable` errors, because it ignores lifetimes in its choice, and then refuse it.
pub trait ReferenceErrors {
    /// The returned type.
    type Value;
    /// Returns a decoding that always fails.
    fn errors(self) -> Errors<Self::Value>;
}

impl<'a, V, T: ?Sized> ReferenceErrors for OkRule<V, &'a T> {
    type Value = Result<V, &'a T>;
    fn errors(self) -> Errors<Self::Value> {
        Errors::unreadable()
    }
}

impl<V, E: Clone + Send + Sync + 'static> OkRule<V, E> {
    /// Returns the sharing by clone.
    pub fn sharing(&self) -> Sharing<Result<V, E>> {
        Sharing {
            share: |value| match value {
                Ok(_) => None,
                Err(error) => Some(Arc::new(error.clone())),
            },
            unshare: |shared| shared.downcast_ref::<E>().cloned().map(Err),
        }
    }
}

/// Errors that cannot be cloned; chosen where the inherent method does not apply.
pub trait NoSharing {
    /// The returned type.
    type Value;
    /// Returns the absence of sharing.
    fn sharing(&self) -> Sharing<Self::Value>;
}

impl<V, E> NoSharing for OkRule<V, E> {
    type Value = Result<V, E>;
    fn sharing(&self) -> Sharing<Result<V, E>> {
        Sharing::none()
    }
}

/// The rule of every type but `Result`: the whole value is cached.
pub struct WholeRule<T>(PhantomData<fn() -> T>);

/// A returned type whose errors can be stored: `Result`, also under an alias. Sealed.
#[diagnostic::on_unimplemented(
    message = "`negative(err = …)` is for functions that return a `Result`",
    label = "`{Self}` is no `Result`"
)]
pub trait MayFail: sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

impl<V, E> sealed::Sealed for Result<V, E> {}

impl<V, E> MayFail for Result<V, E> {}

impl<T> WholeRule<T> {
    /// Exists for the compiler's message alone: there are no errors to store.
    pub fn negative_err<C, Q>(
        &self,
        _predicate: C,
        lifetime: impl Lifetime,
        _equality: Q,
    ) -> NegativeErr<T>
    where
        T: MayFail,
    {
        let is_kept = Predicate::new(|_: &T| false);
        NegativeErr { is_kept, lifetime: lifetime.into_duration(), encode: |_, _| None }
    }

    /// Returns the conversions of the function's values.
    pub fn policy<Q: Equality<T>>(
        &self,
        sharing: Sharing<T>,
        errors: Errors<T>,
        _equality: Q,
    ) -> Policy<T>
    where
        T: Cacheable,
    {
        Policy {
            is_error: |_| false,
            encode: |value, to| Some(codec::encode_for(value, to, Q::function())),
            decode: codec::decode,
            shape: codec::shape_of::<T>,
            sharing,
            errors,
        }
    }

    /// Returns a lifetime that is computed from the value.
    pub fn ttl_of<L, C>(&self, lifetime: C) -> TtlRule<T>
    where
        L: Lifetime,
        C: Fn(&T) -> L + Send + Sync + 'static,
    {
        TtlRule::of_value(move |value: &T| lifetime(value).into_duration())
    }

    /// Returns the condition on stored values.
    pub fn cache_if<C>(&self, predicate: C) -> Predicate<T>
    where
        C: Fn(&T) -> bool + Send + Sync + 'static,
    {
        Predicate::new(predicate)
    }

    /// Returns the absence of sharing: the whole value is cached.
    pub fn sharing(&self) -> Sharing<T> {
        Sharing::none()
    }

    /// Returns a decoding that always fails: there are no errors.
    pub fn errors(&self) -> Errors<T> {
        Errors::unreadable()
    }
}
