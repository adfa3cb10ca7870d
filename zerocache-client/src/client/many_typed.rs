//! Typed reads of many keys as values.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use serde::de::DeserializeOwned;

use super::{
    batch::Outcomes,
    many::{GetManyEach, together},
};
use crate::{Error, codec, wait};

/// Reads many keys as `T`s; from [`GetMany::values`](crate::ops::GetMany::values).
///
/// Its value holds one item for each key, in the order of the keys, as that of
/// [`GetMany`](crate::ops::GetMany). A value that does not decode as a `T` is none;
/// [`each`](Self::each) tells it apart.
///
/// It fails as a whole as [`GetMany`](crate::ops::GetMany) does.
#[must_use = "operations do nothing unless they are awaited"]
pub struct GetManyValues<T> {
    get: GetManyEach,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> GetManyValues<T> {
    pub(super) fn new(get: GetManyEach) -> Self {
        Self { get, of: PhantomData }
    }

    /// Tells for each key what came of it: its value, or why there is none.
    pub fn each(self) -> GetManyValuesEach<T> {
        GetManyValuesEach(self)
    }

    /// Reads now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Vec<Option<T>>, Error> {
        wait::block_on(self)
    }

    fn poll_each(&mut self, context: &mut Context<'_>) -> Poll<Result<Outcomes<Option<T>>, Error>> {
        let outcomes = ready!(Pin::new(&mut self.get).poll(context))?;
        let decode = |outcome: Result<Option<crate::Entry>, Error>| {
            Ok(outcome?.map(|entry| codec::decode(&entry.value)).transpose()?)
        };
        Poll::Ready(Ok(outcomes.into_iter().map(decode).collect()))
    }
}

impl<T: DeserializeOwned> Future for GetManyValues<T> {
    type Output = Result<Vec<Option<T>>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcomes = ready!(self.poll_each(context))?;
        Poll::Ready(together(outcomes.into_iter(), |_| None))
    }
}

/// Reads many keys as `T`s and tells what came of each; from [`GetManyValues::each`].
#[must_use = "operations do nothing unless they are awaited"]
pub struct GetManyValuesEach<T>(GetManyValues<T>);

impl<T: DeserializeOwned> GetManyValuesEach<T> {
    /// Reads now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Vec<Result<Option<T>, Error>>, Error> {
        wait::block_on(self)
    }
}

/// An error only where nothing was sent; what becomes of a key is its own.
impl<T: DeserializeOwned> Future for GetManyValuesEach<T> {
    type Output = Result<Vec<Result<Option<T>, Error>>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_each(context)
    }
}
