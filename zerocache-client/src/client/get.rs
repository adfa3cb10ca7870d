//! Reads as values: futures that start when first polled, with options set before.

use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use zerocache_core::{
    client::{Action, ReadOptions, ReadRules},
    key::Key,
    limits::KEY_BYTES_WIRE_MAX,
    version::Version,
};

use super::{
    Live, Running, ZerocacheClient,
    drive::{Beginning, FirstAttempt, Unsent},
    entry::{Entry, ReadAnswer},
    fast::FastOp,
    locate::{GetFrom, Location},
    near_read::{NearAge, NearRead},
    report::ExplainedGet,
    timings::{End, Operation},
};
use crate::{Error, codec, wait};

/// Reads a key; from [`ZerocacheClient::get`].
///
/// # Cancellation
/// Dropping it gives the answer up.
#[must_use = "operations do nothing unless they are awaited"]
pub struct Get {
    client: ZerocacheClient,
    key: Bytes,
    options: ReadOptions,
    deadline: Option<Duration>,
    near: NearRead,
    state: State,
}

/// The progress of a read.
#[expect(clippy::large_enum_variant, reason = "a box would cost every operation an allocation")]
enum State {
    New,
    /// Its first request was sent on the fast path.
    Sent(FirstAttempt<ReadRules>),
    /// A driver takes it to its end.
    Driven(Running<ReadAnswer>),
    Over,
}

impl Drop for Get {
    fn drop(&mut self) {
        if let State::Sent(first) = &mut self.state
            && let Some(engine) = self.client.present_engine()
        {
            first.cancel(engine);
        }
    }
}

impl Get {
    pub(super) fn new(client: ZerocacheClient, key: &[u8]) -> Self {
        Self::prepared(client, Bytes::copy_from_slice(key))
    }

    pub(super) fn prepared(client: ZerocacheClient, key: Bytes) -> Self {
        Self {
            client,
            key,
            options: ReadOptions::default(),
            deadline: None,
            near: NearRead::default(),
            state: State::New,
        }
    }

    /// How long it may take in all, instead of the client's total; at least 1 ms is taken.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Takes a value past its fresh time too, as long as its entry lives. [`entry`](Self::entry) tells
    /// whether it is.
    pub fn allow_stale(mut self) -> Self {
        self.options.stale = true;
        self
    }

    /// Takes no value older than `version`, such as the one that a write of somebody else came to
    /// ([`Written::version`](crate::Written::version)): with it a second client reads at once what a
    /// first one wrote.
    ///
    /// The node that gave the version is asked first, and after it the others as always. What an older
    /// value or nothing means depends on who says so: where that node has nothing, the key was deleted
    /// or its entry ended since, and that is a miss; another node may not have got the write yet, so
    /// that the next one is asked. `None` therefore means that no node that could be asked has this
    /// version or a newer one. An older value is never returned.
    pub fn at_least(mut self, version: Version) -> Self {
        self.options.at_least = Some(version);
        self
    }

    /// Takes the value from the near cache of this process if it is there, and keeps it there
    /// otherwise; no older than [the client allows](crate::ClientBuilder::near_age).
    ///
    /// Writes through this process are read at once. A node reports the writes of others within
    /// milliseconds as a rule; how old a value can be at most is said in `docs/contract.md`.
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

    /// Reads at one node, which [`locate`](ZerocacheClient::locate) found, and at no other.
    pub fn from(self, location: &Location) -> GetFrom {
        let read = (self.key.clone(), self.options);
        GetFrom::new(&self.client, read, location, self.deadline)
    }

    /// Reads, and tells which nodes were asked, what they said, and how long that took.
    pub fn explain(self) -> ExplainGet {
        ExplainGet(self.client.start_explain(
            self.key.clone(),
            self.options,
            self.near,
            self.deadline,
        ))
    }

    /// Reads now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<Option<Bytes>, Error> {
        wait::block_on(self)
    }

    /// Reads what nodes know of the key, even if there is no value.
    pub(crate) async fn answer(mut self) -> Result<ReadAnswer, Error> {
        poll_fn(|context| self.poll_answer(context)).await
    }

    fn poll_entry(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Entry>, Error>> {
        self.poll_answer(context).map_ok(|state| state.entry)
    }

    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<Result<ReadAnswer, Error>> {
        if matches!(self.state, State::New)
            && let Some(entry) =
                self.near.find(self.client.local_state(), &self.key, self.options.at_least)
        {
            self.state = State::Over;
            return Poll::Ready(Ok(entry.into()));
        }
        let found = ready!(self.poll_nodes(context));
        if let Ok(ReadAnswer { entry, is_doubtful, .. }) = &found {
            let answer = (entry.as_ref(), *is_doubtful);
            self.near.answered(self.client.local_state(), &self.key, answer);
        }
        Poll::Ready(found)
    }

    fn poll_nodes(&mut self, context: &mut Context<'_>) -> Poll<Result<ReadAnswer, Error>> {
        loop {
            let next = match &mut self.state {
                State::New => self.begin(context),
                State::Driven(running) => return Pin::new(running).poll(context),
                // Polled again after its end, against the contract of futures.
                State::Over => return Poll::Pending,
                State::Sent(first) => {
                    // An error in a forked child in which the client does not start again.
                    let Live { engine, .. } = self.client.live().map_err(Error::clone)?;
                    let (action, ended) = ready!(first.poll(engine, context));
                    let started = first.started;
                    match (action, std::mem::replace(&mut self.state, State::Over)) {
                        (Action::Done(outcome), _) => {
                            let read = engine.read_outcome(&self.options, outcome).0;
                            let took = ended.saturating_sub(started);
                            engine.timings.took(Operation::Get, End::of_read(&read), took);
                            return Poll::Ready(read);
                        }
                        (action, State::Sent(FirstAttempt { operation, .. })) => {
                            let read = Unsent { operation, started, action };
                            State::Driven(self.client.drive_get(
                                self.key.clone(),
                                self.options,
                                read,
                            ))
                        }
                        // It was sent.
                        (_, state) => state,
                    }
                }
            };
            let sent = matches!(next, State::Sent(_));
            self.state = next;
            if sent {
                // It was sent with the waker of this task.
                return Poll::Pending;
            }
        }
    }

    fn begin(&self, context: &Context<'_>) -> State {
        let Self { client, key, options, deadline, .. } = self;
        // The driver refuses a key that is not allowed.
        let is_valid = Key::check(key, KEY_BYTES_WIRE_MAX).is_ok();
        let Some(live) = client.fast_path().filter(|_| is_valid) else {
            return State::Driven(client.start_get(key.clone(), *options, *deadline));
        };
        let (rules, total_ms) = (ReadRules::new(key, options), client.total_ms(*deadline));
        let op = |_| FastOp::Get { key };
        match live.engine.begin_fast(rules, total_ms, op, context.waker()) {
            Beginning::Sent(first) => State::Sent(first),
            Beginning::Unsent(unsent) => {
                State::Driven(client.drive_get(key.clone(), *options, unsent))
            }
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

/// Reads a key and tells how; from [`Get::explain`].
///
/// It asks the same nodes in the same order as any read, but not on the fast path: the time in the report
/// is a little above that of other reads.
#[must_use = "operations do nothing unless they are awaited"]
pub struct ExplainGet(Running<ExplainedGet>);

impl ExplainGet {
    /// Reads now and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// # Errors
    /// As awaiting it.
    pub fn wait(self) -> Result<ExplainedGet, Error> {
        wait::block_on(self)
    }
}

/// An error where nobody could be asked at all: [`Error::InvalidKey`] or [`Error::Config`]. Everything
/// else that can go wrong is in [`ExplainedGet::result`], beside the report.
impl Future for ExplainGet {
    type Output = Result<ExplainedGet, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}
