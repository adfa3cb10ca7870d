//! What of a returned value is cached, chosen by the type that the function names.
//!
//! A `Result`, also under an alias, caches its `Ok` and leaves the error type alone. Everything
//! else is cached whole, `Option` included. The choice is made by method lookup: an inherent
//! method of `Probe<Result<V, E>>` goes before a trait's method of `Probe<T>`. Nothing looks at
//! names, so aliases work and a user's own type called `Result` is not mistaken.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::options::{NegativeErr, Predicate};
use super::ttl::TtlRule;
use crate::codec::{self, CodecError};
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

/// An error that several callers share.
pub(crate) type Shared = Arc<dyn Any + Send + Sync>;

/// Bytes of what tells the values that a function stores and reads apart from those of another one.
pub(crate) const SHAPE_LEN: usize = 1 + 8 + 8;

/// How to store, read and share a function's values.
pub struct Policy<T> {
    /// Whether it is an `Err`.
    pub(crate) failed: fn(&T) -> bool,
    /// The bytes to store; none for what is not cached.
    pub(crate) encode: fn(&T) -> Option<Result<Bytes, CodecError>>,
    pub(crate) decode: fn(&[u8]) -> Result<T, CodecError>,
    /// The shape of what is cached.
    shape: fn() -> u64,
    pub(crate) sharing: Sharing<T>,
    pub(crate) errors: Errors<T>,
}

impl<T> Policy<T> {
    /// Codec, and shapes of values and of kept errors: functions for which these are the same read each
    /// other's values.
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

/// How callers that waited share what is not cached; by cloning the error, where it is `Clone`.
pub struct Sharing<T> {
    pub(crate) share: fn(&T) -> Option<Shared>,
    pub(crate) unshare: fn(&Shared) -> Option<T>,
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

/// How a kept error is read; refused where the error type cannot be.
pub struct Errors<T> {
    pub(crate) decode: fn(&[u8]) -> Result<T, CodecError>,
    /// Their shape; 0 where they are not read.
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
            decode: |_| Err(CodecError::Decode("an error of a type that is not read".into())),
            shape: || 0,
        }
    }
}

/// Stands for the returned type while its rule is chosen.
pub struct Probe<T>(PhantomData<fn() -> T>);

impl<T> Probe<T> {
    /// For the type that the function names.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Probe(PhantomData)
    }
}

impl<V, E> Probe<Result<V, E>> {
    /// Only `Ok` is cached.
    pub fn rule(&self) -> OkRule<V, E> {
        OkRule(PhantomData)
    }
}

/// The rule of every type that is no `Result`.
pub trait PlainRule {
    /// The type.
    type Value;
    /// The whole value is cached.
    fn rule(&self) -> WholeRule<Self::Value>;
}

impl<T> PlainRule for Probe<T> {
    type Value = T;
    fn rule(&self) -> WholeRule<T> {
        WholeRule(PhantomData)
    }
}

/// Only `Ok` is cached.
pub struct OkRule<V, E>(PhantomData<fn() -> (V, E)>);

impl<V, E> OkRule<V, E> {
    pub(crate) fn new() -> Self {
        OkRule(PhantomData)
    }
}

impl<V, E> OkRule<V, E> {
    /// How to store and read the function's values.
    pub fn policy(
        &self,
        sharing: Sharing<Result<V, E>>,
        errors: Errors<Result<V, E>>,
    ) -> Policy<Result<V, E>>
    where
        V: Cacheable,
    {
        Policy {
            failed: Result::is_err,
            encode: |value| value.as_ref().ok().map(codec::encode),
            decode: |bytes| codec::decode(bytes).map(Ok),
            shape: codec::shape_of::<V>,
            sharing,
            errors,
        }
    }

    /// A lifetime computed from the `Ok` value.
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

    /// Which `Ok` values are stored.
    pub fn cache_if<C>(&self, predicate: C) -> Predicate<Result<V, E>>
    where
        C: Fn(&V) -> bool + Send + Sync + 'static,
    {
        Predicate::new(move |value: &Result<V, E>| value.as_ref().is_ok_and(&predicate))
    }

    /// Which errors are kept, and for how long.
    pub fn negative_err<C>(
        &self,
        predicate: C,
        lifetime: impl Lifetime,
    ) -> NegativeErr<Result<V, E>>
    where
        C: Fn(&E) -> bool + Send + Sync + 'static,
        E: Cacheable,
    {
        NegativeErr {
            keeps: Predicate::new(move |value: &Result<V, E>| {
                value.as_ref().is_err_and(&predicate)
            }),
            lifetime: lifetime.into_duration(),
            encode: |value| value.as_ref().err().map(codec::encode),
        }
    }
}

impl<V, E: Cacheable> OkRule<V, E> {
    /// An error that was kept, by whichever release, is given back.
    pub fn errors(&self) -> Errors<Result<V, E>> {
        Errors { decode: |bytes| codec::decode(bytes).map(Err), shape: codec::shape_of::<E> }
    }
}

/// For errors that cannot be read; chosen where the inherent method does not apply.
pub trait NoErrors {
    /// The type.
    type Value;
    /// None is given back.
    fn errors(&self) -> Errors<Self::Value>;
}

impl<V, E> NoErrors for OkRule<V, E> {
    type Value = Result<V, E>;
    fn errors(&self) -> Errors<Result<V, E>> {
        Errors::unreadable()
    }
}

impl<V, E: Clone + Send + Sync + 'static> OkRule<V, E> {
    /// Errors are cloned for the callers that waited.
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

/// For what cannot be shared; chosen where the inherent method does not apply.
pub trait NoSharing {
    /// The type.
    type Value;
    /// Nothing is shared.
    fn sharing(&self) -> Sharing<Self::Value>;
}

impl<V, E> NoSharing for OkRule<V, E> {
    type Value = Result<V, E>;
    fn sharing(&self) -> Sharing<Result<V, E>> {
        Sharing::none()
    }
}

/// The whole value is cached.
pub struct WholeRule<T>(PhantomData<fn() -> T>);

/// A returned type whose errors can be kept: `Result`, also under an alias.
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
    /// There are no errors to keep; here for the message alone.
    pub fn negative_err<C>(&self, _predicate: C, lifetime: impl Lifetime) -> NegativeErr<T>
    where
        T: MayFail,
    {
        let keeps = Predicate::new(|_: &T| false);
        NegativeErr { keeps, lifetime: lifetime.into_duration(), encode: |_| None }
    }

    /// How to store and read the function's values.
    pub fn policy(&self, sharing: Sharing<T>, errors: Errors<T>) -> Policy<T>
    where
        T: Cacheable,
    {
        Policy {
            failed: |_| false,
            encode: |value| Some(codec::encode(value)),
            decode: codec::decode,
            shape: codec::shape_of::<T>,
            sharing,
            errors,
        }
    }

    /// A lifetime computed from the value.
    pub fn ttl_of<L, C>(&self, lifetime: C) -> TtlRule<T>
    where
        L: Lifetime,
        C: Fn(&T) -> L + Send + Sync + 'static,
    {
        TtlRule::of_value(move |value: &T| lifetime(value).into_duration())
    }

    /// Which values are stored.
    pub fn cache_if<C>(&self, predicate: C) -> Predicate<T>
    where
        C: Fn(&T) -> bool + Send + Sync + 'static,
    {
        Predicate::new(predicate)
    }

    /// Nothing is left to share: all of it is cached.
    pub fn sharing(&self) -> Sharing<T> {
        Sharing::none()
    }

    /// There are no errors.
    pub fn errors(&self) -> Errors<T> {
        Errors::unreadable()
    }
}
