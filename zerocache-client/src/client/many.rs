//! Operations on many keys as values: futures that start when first polled, with options set before.

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tracing::{Instrument, debug_span};
use zerocache_core::{
    client::ReadOptions,
    wire::{Ack, Status, Written},
};

use super::{
    Running, ZerocacheClient,
    batch::Outcomes,
    entry::{Entry, ReadAnswer},
    many_typed::GetManyValues,
    near_read::{NearAge, NearRead, NearWrite},
    prepared::{ComputedPut, Prepared, WriteOption},
    valid,
    writes::WriteRequest,
};
use crate::{Error, codec, lifetime::Lifetime, wait};

/// Reads many keys; from [`ZerocacheClient::get_many`].
///
/// Its value holds one item for each key, in the order of the keys: its value, or none where there is no
/// value that may be used. A key for which no node answered in time is none too; [`each`](Self::each)
/// tells it apart.
///
/// It fails as a whole only for a key that is not allowed, before anything is sent, and when no node
/// answered for any of the keys.
///
/// # Cancellation
/// Dropping it gives the answers up.
#[must_use = "operations do nothing unless they are awaited"]
pub struct GetMany {
    client: ZerocacheClient,
    keys: Vec<Bytes>,
    options: ReadOptions,
    near: Option<NearAge>,
    deadline: Option<Duration>,
    running: Option<Running<Outcomes<ReadAnswer>>>,
}

impl GetMany {
    pub(super) fn new(client: ZerocacheClient, keys: Vec<Bytes>) -> Self {
        Self {
            client,
            keys,
            options: ReadOptions::default(),
            near: None,
            deadline: None,
            running: None,
        }
    }

    /// Takes values past their fresh time too, as long as their entries live.
    pub fn allow_stale(mut self) -> Self {
        self.options.stale = true;
        self
    }

    /// Takes what the near cache of this process has from there, asks nodes only for the rest, and keeps
    /// there what they give; as [`Get::near`](crate::ops::Get::near). When all of it is near no node is asked.
    /// What is near counts as answered: the call does not fail as a whole then.
    pub fn near(mut self) -> Self {
        self.near = Some(None);
        self
    }

    /// How long all of it may take, instead of the client's total; at least 1 ms is taken.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Reads the values as `T`s that were stored as [`Value`](crate::Value).
    pub fn values<T: DeserializeOwned>(self) -> GetManyValues<T> {
        GetManyValues::new(self.each())
    }

    /// Tells for each key what came of it: its entry, or why there is none.
    pub fn each(self) -> GetManyEach {
        GetManyEach(self)
    }

    /// Reads now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Vec<Option<Bytes>>, Error> {
        wait::block_on(self)
    }

    fn poll_each(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Outcomes<Option<Entry>>, Error>> {
        let answers = ready!(self.poll_answers(context))?;
        Poll::Ready(Ok(answers.into_iter().map(|answer| Ok(answer?.entry)).collect()))
    }

    fn poll_answers(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Outcomes<ReadAnswer>, Error>> {
        let running = self.running.get_or_insert_with(|| {
            let keys = std::mem::take(&mut self.keys);
            let (options, near) = (self.options, self.near);
            let total_ms = self.client.total_ms(self.deadline);
            let region = self.client.region();
            let span = debug_span!("zerocache_get_many", region, keys = keys.len());
            self.client.run(move |engine| {
                let read = async move {
                    let keys: Result<Vec<_>, _> = keys.into_iter().map(valid).collect();
                    Ok(engine.get_many(keys?, options, NearRead::new(near), total_ms).await)
                };
                read.instrument(span)
            })
        });
        Pin::new(running).poll(context)
    }
}

impl Future for GetMany {
    type Output = Result<Vec<Option<Bytes>>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcomes = ready!(self.poll_each(context))?;
        let value = |outcome: Result<Option<Entry>, Error>| Ok(outcome?.map(|entry| entry.value));
        Poll::Ready(together(outcomes.into_iter().map(value), |_| None))
    }
}

/// Reads many keys and tells what came of each; from [`GetMany::each`].
#[must_use = "operations do nothing unless they are awaited"]
pub struct GetManyEach(GetMany);

impl GetManyEach {
    /// Reads now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Vec<Result<Option<Entry>, Error>>, Error> {
        wait::block_on(self)
    }
}

/// An error only where nothing was sent; what becomes of a key is its own.
impl Future for GetManyEach {
    type Output = Result<Vec<Result<Option<Entry>, Error>>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_each(context)
    }
}

/// Writes or deletes many keys; from [`ZerocacheClient::put_many`] and
/// [`ZerocacheClient::delete_many`].
///
/// Its value holds one [`Written`] for each key, in the order of the keys. A key that a node refuses, or
/// for which no node could be reached, is [`Status::Refused`](crate::Status::Refused): nothing was stored
/// for it. [`each`](Self::each) tells why.
///
/// It fails as a whole only for input that is not allowed, before anything is sent, and when no node
/// could be reached for any of the keys.
///
/// # Cancellation
/// Nothing is written before it is first polled. From then on the writes go on even if it is dropped.
#[must_use = "operations do nothing unless they are awaited"]
pub struct WriteMany {
    client: ZerocacheClient,
    prepared: Result<Vec<Prepared>, Error>,
    ack: Ack,
    deadline: Option<Duration>,
    running: Option<Running<Outcomes<Written>>>,
}

impl WriteMany {
    pub(super) fn put<K, V>(
        client: ZerocacheClient,
        entries: impl IntoIterator<Item = (K, V)>,
        ttl: impl Lifetime,
    ) -> Self
    where
        K: AsRef<[u8]>,
        V: codec::IntoValue,
    {
        let (fresh, codec) = (ttl.into_duration(), client.codec());
        let prepare = |(key, value): (K, V)| Prepared::put(key.as_ref(), value, fresh, codec);
        let prepared = match client.live() {
            Ok(_) => entries.into_iter().map(prepare).collect(),
            Err(error) => Err(error.clone()),
        };
        Self::prepared(client, prepared)
    }

    pub(super) fn delete<K: AsRef<[u8]>>(
        client: ZerocacheClient,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        let prepare = |key: K| Prepared::delete(key.as_ref());
        Self::prepared(client, Ok(keys.into_iter().map(prepare).collect()))
    }

    fn prepared(client: ZerocacheClient, prepared: Result<Vec<Prepared>, Error>) -> Self {
        Self { client, prepared, ack: Ack::default(), deadline: None, running: None }
    }

    /// Who must have each of them before it is acknowledged; default the node that accepts it.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// How long after their lifetime the values may still be served, as
    /// [`Write::stale_while`](crate::ops::Write::stale_while).
    pub fn stale_while(self, time: impl Lifetime) -> Self {
        self.set(&WriteOption::stale_while(time))
    }

    /// How long after their lifetime the values may still be served where computing them again fails, as
    /// [`Write::stale_if_error`](crate::ops::Write::stale_if_error).
    pub fn stale_if_error(self, time: impl Lifetime) -> Self {
        self.set(&WriteOption::stale_if_error(time))
    }

    /// Names groups to which all these entries belong, as [`Write::tags`](crate::ops::Write::tags).
    pub fn tags<T: Into<String>>(self, tags: impl IntoIterator<Item = T>) -> Self {
        self.set(&WriteOption::tags(tags))
    }

    /// States the media type of all these values, as
    /// [`Write::content_type`](crate::ops::Write::content_type).
    pub fn content_type(self, content_type: impl Into<String>) -> Self {
        self.set(&WriteOption::ContentType(content_type.into()))
    }

    /// States the codings of all these values, as
    /// [`Write::content_encoding`](crate::ops::Write::content_encoding).
    pub fn content_encoding(self, codings: impl Into<String>) -> Self {
        self.set(&WriteOption::ContentEncoding(codings.into()))
    }

    /// How long all of it may take, instead of the client's total; at least 1 ms is taken.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Tells for each key what came of it: what became of the write, or why there was none.
    pub fn each(self) -> WriteManyEach {
        WriteManyEach(self)
    }

    /// Writes now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Vec<Written>, Error> {
        wait::block_on(self)
    }

    fn set(mut self, option: &WriteOption) -> Self {
        if let Ok(prepared) = &mut self.prepared
            && let Err(error) = prepared.iter_mut().try_for_each(|prepared| prepared.set(option))
        {
            self.prepared = Err(error);
        }
        self
    }

    fn poll_each(&mut self, context: &mut Context<'_>) -> Poll<Result<Outcomes<Written>, Error>> {
        if self.running.is_none() {
            let prepared = std::mem::replace(&mut self.prepared, Ok(Vec::new()))?;
            let (ack, compress_above) = (self.ack, self.client.compress_above());
            let requests =
                prepared.into_iter().map(|prepared| prepared.request(ack, compress_above));
            let (requests, places) = without_repeats(requests.collect::<Result<_, _>>()?);
            let total_ms = self.client.total_ms(self.deadline);
            let region = self.client.region();
            let span = debug_span!("zerocache_write_many", region, keys = places.len());
            let running = self.client.run(move |engine| {
                let write = async move {
                    let outcomes = engine.write_many(requests, total_ms).await;
                    Ok(places.into_iter().map(|at| outcomes[at].clone()).collect())
                };
                write.instrument(span)
            });
            self.running = Some(running.continue_in_background());
        }
        match &mut self.running {
            Some(running) => Pin::new(running).poll(context),
            // It was made above.
            None => Poll::Pending,
        }
    }
}

impl Future for WriteMany {
    type Output = Result<Vec<Written>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcomes = ready!(self.poll_each(context))?;
        let not_stored =
            |_| Written { status: Status::Refused, replicas: 0, replicas_wanted: 0, version: None };
        Poll::Ready(together(outcomes.into_iter(), not_stored))
    }
}

/// Writes or deletes many keys and tells what came of each; from [`WriteMany::each`].
#[must_use = "operations do nothing unless they are awaited"]
pub struct WriteManyEach(WriteMany);

impl WriteManyEach {
    /// Writes now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Vec<Result<Written, Error>>, Error> {
        wait::block_on(self)
    }
}

/// An error only where nothing was sent; what becomes of a key is its own.
impl Future for WriteManyEach {
    type Output = Result<Vec<Result<Written, Error>>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_each(context)
    }
}

/// Of a key that is given several times only the last one is written: two on their way at once could
/// overtake each other. With it, for each place that was given, the place of what is written for it.
fn without_repeats(requests: Vec<WriteRequest>) -> (Vec<WriteRequest>, Vec<usize>) {
    let mut known = HashMap::with_capacity(requests.len());
    let mut kept: Vec<WriteRequest> = Vec::with_capacity(requests.len());
    let mut places = Vec::with_capacity(requests.len());
    for request in requests {
        let at = *known.entry(request.key.clone()).or_insert(kept.len());
        match kept.get_mut(at) {
            Some(earlier) => *earlier = request,
            None => kept.push(request),
        }
        places.push(at);
    }
    (kept, places)
}

impl ZerocacheClient {
    /// Reads what nodes know of keys, stale entries included. Each key has an outcome of its own.
    pub(crate) async fn read_many(
        &self,
        keys: Vec<Bytes>,
        near: Option<NearAge>,
        deadline: Option<Duration>,
    ) -> Outcomes<ReadAnswer> {
        let (keys, invalid) = split(keys, |key| valid(key.clone()).err());
        let count = keys.len();
        let mut read = self.get_many::<Bytes>([]).allow_stale();
        (read.keys, read.near, read.deadline) = (keys, near, deadline);
        let answers = if count == 0 {
            Vec::new()
        } else {
            let answers = poll_fn(|context| read.poll_answers(context)).await;
            answers.unwrap_or_else(|error| (0..count).map(|_| Err(error.clone())).collect())
        };
        merge(answers, invalid)
    }

    /// Writes computed values. Each has an outcome of its own. The near cache keeps them if `is_near`.
    pub(crate) async fn write_computed(
        &self,
        puts: Vec<ComputedPut>,
        ack: Ack,
        deadline: Option<Duration>,
        is_near: bool,
    ) -> Outcomes<Written> {
        let (puts, invalid) = split(puts, |put| valid(put.key.clone()).err());
        let mut prepared: Vec<Prepared> = puts.into_iter().map(Prepared::from).collect();
        let count = prepared.len();
        let mut near: Vec<NearWrite> = prepared.iter().map(|_| NearWrite::new(is_near)).collect();
        let local = self.local_state();
        near.iter_mut().zip(&mut prepared).for_each(|(near, prepared)| near.begin(local, prepared));
        let mut write = WriteMany::prepared(self.clone(), Ok(prepared)).ack(ack);
        write.deadline = deadline;
        let written = if count == 0 { Ok(Vec::new()) } else { write.each().await };
        let written = written.unwrap_or_else(|error| vec![Err(error); count]);
        for (near, written) in near.iter_mut().zip(&written) {
            near.keep(local, written);
        }
        merge(written, invalid)
    }
}

/// Takes out the items with an error, each with its place.
fn split<T>(items: Vec<T>, error: impl Fn(&T) -> Option<Error>) -> (Vec<T>, Vec<(usize, Error)>) {
    let (mut valid, mut invalid) = (Vec::with_capacity(items.len()), Vec::new());
    for (at, item) in items.into_iter().enumerate() {
        match error(&item) {
            None => valid.push(item),
            Some(error) => invalid.push((at, error)),
        }
    }
    (valid, invalid)
}

/// Puts the errors of [`split`] back in their places.
fn merge<T>(mut outcomes: Outcomes<T>, invalid: Vec<(usize, Error)>) -> Outcomes<T> {
    for (at, error) in invalid {
        outcomes.insert(at, Err(error));
    }
    outcomes
}

/// All outcomes in one: an error only if there is nothing else.
pub(super) fn together<T>(
    outcomes: impl ExactSizeIterator<Item = Result<T, Error>>,
    instead: impl Fn(Error) -> T,
) -> Result<Vec<T>, Error> {
    let mut all = Vec::with_capacity(outcomes.len());
    let (mut answered, mut failed) = (false, None);
    for outcome in outcomes {
        match &outcome {
            Err(
                error @ (Error::Unreachable { .. }
                | Error::Unverified { .. }
                | Error::Denied { .. }),
            ) => {
                failed = Some(error.clone());
            }
            // A refusal is an answer.
            Ok(_) | Err(_) => answered = true,
        }
        all.push(outcome.unwrap_or_else(&instead));
    }
    match failed {
        Some(error) if !answered => Err(error),
        _ => Ok(all),
    }
}
