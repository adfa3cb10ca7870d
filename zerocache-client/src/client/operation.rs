//! Operations as values: futures that start when first polled, with options set before.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use zerocache_core::{
    key::Key,
    limits::KEY_BYTES_WIRE_MAX,
    ttl::Ttl,
    wire::{Ack, Written},
};

use super::{
    Running, ZerocacheClient,
    engine::Entry,
    first::Sent,
    near_read::{NearAge, NearRead},
    reads::First,
    writes::{self, WriteRequest},
};
use crate::{Error, codec, memo::Lifetime, wait};

/// Reads a key; from [`ZerocacheClient::get`].
///
/// # Cancellation
/// Dropping it gives the answer up.
#[must_use = "operations do nothing unless they are awaited"]
pub struct Get {
    client: ZerocacheClient,
    key: Bytes,
    deadline: Option<Duration>,
    near: NearRead,
    state: State,
}

/// How far a read has come.
enum State {
    New,
    /// Its first request is under way.
    Begun(Sent),
    /// It walks down the ladder.
    Walking(Running<Option<Entry>>),
    Over,
}

impl Drop for Get {
    fn drop(&mut self) {
        if let State::Begun(reading) = &self.state {
            self.client.give_up_read(reading);
        }
    }
}

impl Get {
    pub(super) fn new(client: ZerocacheClient, key: &[u8]) -> Self {
        Self::prepared(client, Bytes::copy_from_slice(key))
    }

    pub(super) fn prepared(client: ZerocacheClient, key: Bytes) -> Self {
        Self { client, key, deadline: None, near: NearRead::default(), state: State::New }
    }

    /// How long it may take in all, instead of the client's total; at least 1 ms is taken.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Takes the value from the near cache of this process if it is there, and keeps it there
    /// otherwise; no older than [the client allows](crate::ClientBuilder::near_cache).
    pub fn near(self) -> Self {
        self.near_within(Some(None))
    }

    /// Asks the near cache, for what is no older than this, if at all.
    pub(crate) fn near_within(mut self, wanted: Option<NearAge>) -> Self {
        self.near = NearRead::new(wanted);
        self
    }

    /// Reads the value as a `T` that was stored as [`Value`](crate::Value).
    pub fn value<T: DeserializeOwned>(self) -> GetValue<T> {
        GetValue { get: self, of: PhantomData }
    }

    /// Reads the value with its version, its remaining life, and the node that had it.
    pub fn entry(self) -> GetEntry {
        GetEntry(self)
    }

    /// Reads now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Option<Bytes>, Error> {
        wait::block_on(self)
    }

    fn poll_entry(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Entry>, Error>> {
        if matches!(self.state, State::New)
            && let Some(entry) = self.near.find(&self.client, &self.key)
        {
            self.state = State::Over;
            return Poll::Ready(Ok(Some(entry)));
        }
        let found = ready!(self.poll_nodes(context));
        if let Ok(Some(entry)) = &found {
            self.near.keep(&self.client, &self.key, entry);
        }
        Poll::Ready(found)
    }

    fn poll_nodes(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Entry>, Error>> {
        loop {
            let next = match &mut self.state {
                State::New => self.begin(context),
                State::Walking(running) => return Pin::new(running).poll(context),
                // Polled again after its end, against the contract of futures.
                State::Over => return Poll::Pending,
                State::Begun(reading) => match ready!(self.client.poll_reading(reading, context)) {
                    First::Found(entry) => {
                        self.state = State::Over;
                        return Poll::Ready(Ok(Some(entry)));
                    }
                    First::GoOn(begun) => {
                        State::Walking(self.client.go_on_get(self.key.clone(), begun))
                    }
                },
            };
            let sent = matches!(next, State::Begun(_));
            self.state = next;
            if sent {
                // It was sent with the waker of this task.
                return Poll::Pending;
            }
        }
    }

    fn begin(&self, context: &Context<'_>) -> State {
        let (client, deadline) = (&self.client, self.deadline);
        // What is no key is refused on the other way.
        let valid = Key::check(&self.key, KEY_BYTES_WIRE_MAX).is_ok();
        let reading = valid.then(|| client.begin_get(&self.key, deadline, context)).flatten();
        match reading {
            Some(reading) => State::Begun(reading),
            None => State::Walking(client.start_get(self.key.clone(), deadline)),
        }
    }
}

impl Future for Get {
    type Output = Result<Option<Bytes>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let found = ready!(self.poll_entry(context));
        Poll::Ready(found.map(|entry| entry.map(|entry| entry.value)))
    }
}

/// Reads a key with what is known of its entry; from [`Get::entry`].
#[must_use = "operations do nothing unless they are awaited"]
pub struct GetEntry(Get);

impl GetEntry {
    /// Reads now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Option<Entry>, Error> {
        wait::block_on(self)
    }
}

impl Future for GetEntry {
    type Output = Result<Option<Entry>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_entry(context)
    }
}

/// Reads a key as a `T`; from [`Get::value`].
#[must_use = "operations do nothing unless they are awaited"]
pub struct GetValue<T> {
    get: Get,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> GetValue<T> {
    /// Reads now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Option<T>, Error> {
        wait::block_on(self)
    }
}

impl<T: DeserializeOwned> Future for GetValue<T> {
    type Output = Result<Option<T>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let found = ready!(self.get.poll_entry(context))?;
        Poll::Ready(found.map(|entry| codec::decode(&entry.value)).transpose().map_err(Error::from))
    }
}

/// Writes or deletes a key; from [`ZerocacheClient::put`] and [`ZerocacheClient::delete`].
///
/// What becomes of the write is its value, [`Written`]; only invalid input, and no node to be
/// reached, are errors.
///
/// # Cancellation
/// Nothing is written before it is first polled. From then on the write goes on even if it is
/// dropped.
#[must_use = "operations do nothing unless they are awaited"]
pub struct Write {
    client: ZerocacheClient,
    ack: Ack,
    deadline: Option<Duration>,
    state: WriteState,
}

/// What is to be written.
pub(super) struct Prepared {
    pub(super) key: Bytes,
    /// Value and lifetime; none for a delete.
    pub(super) value: Option<(Bytes, Duration)>,
}

impl Prepared {
    /// The nodes have limits of their own; the ones that are judged here keep a message decodable.
    fn request(self, ack: Ack) -> Result<WriteRequest, Error> {
        let key = Key::within(self.key, KEY_BYTES_WIRE_MAX)?;
        let value = match self.value {
            Some((value, ttl)) => Some((value, Ttl::try_from(ttl)?)),
            None => None,
        };
        Ok(WriteRequest { key, value, ack })
    }
}

/// How far a write has come.
enum WriteState {
    New(Result<Prepared, Error>),
    /// Its first request is under way.
    Begun(WriteRequest, Sent),
    /// It walks down the ladder.
    Walking(Running<Written>),
    Over,
}

impl Write {
    pub(super) fn put(
        client: ZerocacheClient,
        key: &[u8],
        value: impl codec::IntoValue,
        ttl: impl Lifetime,
    ) -> Self {
        let ttl = ttl.into_duration();
        let value = value.into_value().map_err(Error::from);
        let key = Bytes::copy_from_slice(key);
        Self::prepared(client, value.map(|value| Prepared { key, value: Some((value, ttl)) }))
    }

    pub(super) fn delete(client: ZerocacheClient, key: &[u8]) -> Self {
        Self::prepared(client, Ok(Prepared { key: Bytes::copy_from_slice(key), value: None }))
    }

    pub(super) fn prepared(client: ZerocacheClient, prepared: Result<Prepared, Error>) -> Self {
        Self { client, ack: Ack::default(), deadline: None, state: WriteState::New(prepared) }
    }

    /// Who must have it before it is acknowledged; default the node that accepts it.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// How long it may take in all, instead of the client's total; at least 1 ms is taken.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Writes now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Written, Error> {
        wait::block_on(self)
    }
}

impl Future for Write {
    type Output = Result<Written, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            match std::mem::replace(&mut this.state, WriteState::Over) {
                WriteState::New(prepared) => {
                    let request = prepared.and_then(|prepared| prepared.request(this.ack))?;
                    match this.client.begin_write(&request, this.deadline, context) {
                        // It was sent with the waker of this task.
                        Some(writing) => {
                            this.state = WriteState::Begun(request, writing);
                            return Poll::Pending;
                        }
                        None => {
                            let running = this.client.start_write(request, this.deadline);
                            this.state = WriteState::Walking(running);
                        }
                    }
                }
                WriteState::Begun(request, mut writing) => {
                    let key = &request.key;
                    match this.client.poll_writing(key, &mut writing, context) {
                        Poll::Pending => {
                            this.state = WriteState::Begun(request, writing);
                            return Poll::Pending;
                        }
                        Poll::Ready(writes::First::Written(written)) => {
                            return Poll::Ready(Ok(written));
                        }
                        Poll::Ready(writes::First::GoOn(begun)) => {
                            let running = this.client.go_on_write(request, begun);
                            this.state = WriteState::Walking(running);
                        }
                    }
                }
                WriteState::Walking(mut running) => {
                    let polled = Pin::new(&mut running).poll(context);
                    if polled.is_pending() {
                        this.state = WriteState::Walking(running);
                    }
                    return polled;
                }
                // Polled again after its end, against the contract of futures.
                WriteState::Over => return Poll::Pending,
            }
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if let WriteState::Begun(request, writing) =
            std::mem::replace(&mut self.state, WriteState::Over)
        {
            self.client.finish_write(request, writing);
        }
    }
}
