//! Writes as values: futures that start when first polled, with options set before.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use zerocache_core::{
    client::{Action, WriteRules},
    condition::Condition,
    version::Version,
    wire::{Ack, Written},
};

use super::{
    Live, Running, ZerocacheClient,
    conditional::ConditionalWrite,
    drive::{Beginning, FirstAttempt, Unsent},
    near_read::NearWrite,
    prepared::{Prepared, WriteOption, WriteVersion},
    timings::End,
    writes::WriteRequest,
};
use crate::{Error, codec, lifetime::Lifetime, wait};

/// Writes or deletes a key; from [`ZerocacheClient::put`] and [`ZerocacheClient::delete`].
///
/// What becomes of the write is its value, [`Written`]; only invalid input, and no node to be
/// reached, are errors.
///
/// # Cancellation
/// Nothing is written before it is first polled. From then on the write continues even if it is
/// dropped.
#[must_use = "operations do nothing unless they are awaited"]
pub struct Write {
    client: ZerocacheClient,
    ack: Ack,
    deadline: Option<Duration>,
    near: NearWrite,
    state: WriteState,
}

/// The progress of a write.
enum WriteState {
    New(Result<Prepared, Error>),
    /// Its first request was sent on the fast path.
    Sent(WriteRequest, FirstAttempt<WriteRules>),
    /// A driver takes it to its end.
    Driven(Running<Written>),
    Over,
}

impl Write {
    pub(super) fn put(
        client: ZerocacheClient,
        key: &[u8],
        value: impl codec::IntoValue,
        ttl: impl Lifetime,
    ) -> Self {
        let prepared = match client.live() {
            Ok(_) => Prepared::put(key, value, ttl.into_duration(), client.codec()),
            Err(error) => Err(error.clone()),
        };
        Self::prepared(client, prepared)
    }

    pub(super) fn delete(client: ZerocacheClient, key: &[u8]) -> Self {
        Self::prepared(client, Ok(Prepared::delete(key)))
    }

    pub(super) fn prepared(client: ZerocacheClient, prepared: Result<Prepared, Error>) -> Self {
        let (near, state) = (NearWrite::default(), WriteState::New(prepared));
        Self { client, ack: Ack::default(), deadline: None, near, state }
    }

    /// Keeps the value in the near cache once it is stored, if this is wanted.
    pub(crate) fn near(mut self, wanted: bool) -> Self {
        self.near = NearWrite::new(wanted);
        self
    }

    /// Writes with the version that a lease gave.
    pub(crate) fn token(self, token: Version) -> Self {
        self.with_version(WriteVersion::Given(token))
    }

    fn with_version(mut self, version: WriteVersion) -> Self {
        if let WriteState::New(Ok(Prepared { value: Some(value), .. })) = &mut self.state {
            value.version = version;
        }
        self
    }

    /// Who must have it before it is acknowledged; default the node that accepts it.
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// How long after its lifetime the value may still be served to readers that
    /// [allow it](crate::ops::Get::allow_stale) while somebody computes it again. The entry is kept for that
    /// time longer. Where that makes its life longer than 99,999,999 s the write fails with
    /// [`Error::InvalidTtl`].
    ///
    /// For a delete this and the options below mean nothing.
    pub fn stale_while(self, time: impl Lifetime) -> Self {
        self.set(&WriteOption::stale_while(time))
    }

    /// How long after its lifetime the value may still be served to readers that
    /// [allow it](crate::ops::Get::allow_stale) where computing it again fails. The entry is kept for that time
    /// longer, or for the one of [`stale_while`](Self::stale_while) if that is longer.
    pub fn stale_if_error(self, time: impl Lifetime) -> Self {
        self.set(&WriteOption::stale_if_error(time))
    }

    /// Names groups to which the entry belongs: at most 64 tags of 1 to 128 bytes each. They are
    /// stored with it, and [`invalidate_tag`](ZerocacheClient::invalidate_tag) ends all entries of one. A tag that is not allowed makes the write fail with
    /// [`Error::InvalidTag`].
    pub fn tags<T: Into<String>>(self, tags: impl IntoIterator<Item = T>) -> Self {
        self.set(&WriteOption::tags(tags))
    }

    /// States the media type of the value, such as `image/png`, with which the HTTP API of nodes returns it; at
    /// most 255 bytes. Readers find it in [`Entry::metadata`](crate::Entry::metadata). One that is not allowed
    /// makes the write fail with [`Error::InvalidDescription`].
    pub fn content_type(self, content_type: impl Into<String>) -> Self {
        self.set(&WriteOption::ContentType(content_type.into()))
    }

    /// States the codings that the caller applied to the value, such as `gzip`, with which the HTTP API of nodes
    /// returns it; at most 64 bytes. The value is stored and returned as it is. Codings that are not allowed make
    /// the write fail with [`Error::InvalidDescription`].
    pub fn content_encoding(self, codings: impl Into<String>) -> Self {
        self.set(&WriteOption::ContentEncoding(codings.into()))
    }

    /// Adds the URL of another place that has the value, for people and tools; at most four of 512 bytes each.
    /// One that is not allowed makes the write fail with [`Error::InvalidDescription`].
    pub fn origin(self, url: impl Into<String>) -> Self {
        self.set(&WriteOption::Origin(url.into()))
    }

    fn set(mut self, option: &WriteOption) -> Self {
        if let WriteState::New(Ok(prepared)) = &mut self.state
            && let Err(error) = prepared.set(option)
        {
            self.state = WriteState::New(Err(error));
        }
        self
    }

    /// Writes if a plain read finds nothing: put if absent. A value past its fresh time counts as absent. Options of
    /// the value are set before.
    ///
    /// ```no_run
    /// # async fn example(cache: zerocache_client::ZerocacheClient) -> Result<(), zerocache_client::Error> {
    /// use zerocache_client::ops::ConditionalOutcome;
    ///
    /// match cache.put("report/7", "worker 3", 60).if_absent().await? {
    ///     ConditionalOutcome::Stored(_) => println!("ours"),
    ///     ConditionalOutcome::NotMet { current } => println!("taken: {current:?}"),
    ///     other => println!("not known: {other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn if_absent(self) -> ConditionalWrite {
        self.conditional(Condition::Absent)
    }

    /// Writes if a plain read finds a value. Options of the value are set before.
    pub fn if_present(self) -> ConditionalWrite {
        self.conditional(Condition::Present)
    }

    /// Writes if the stored value has this version: compare and set. Options of the value are set before.
    pub fn if_version(self, version: Version) -> ConditionalWrite {
        self.conditional(Condition::Version(version))
    }

    fn conditional(mut self, condition: Condition) -> ConditionalWrite {
        let prepared = match std::mem::replace(&mut self.state, WriteState::Over) {
            WriteState::New(prepared) => prepared,
            // Options are set before the first poll.
            _ => Err(Error::Refused("the write has begun already".to_owned())),
        };
        ConditionalWrite::new(self.client.clone(), self.ack, self.deadline, (prepared, condition))
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
        let written = ready!(self.poll_written(context));
        let Self { near, client, .. } = &mut *self;
        near.keep(client.local_state(), &written);
        Poll::Ready(written)
    }
}

impl Write {
    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<Result<Written, Error>> {
        loop {
            match std::mem::replace(&mut self.state, WriteState::Over) {
                WriteState::New(mut prepared) => {
                    if let Ok(prepared) = &mut prepared {
                        self.near.begin(self.client.local_state(), prepared);
                    }
                    let compress_above = self.client.compress_above();
                    let request =
                        prepared.and_then(|prepared| prepared.request(self.ack, compress_above))?;
                    self.state = self.begin(request, context);
                    if matches!(self.state, WriteState::Sent(..)) {
                        // It was sent with the waker of this task.
                        return Poll::Pending;
                    }
                }
                WriteState::Sent(request, mut first) => {
                    // An error in a forked child in which the client does not start again.
                    let Live { engine, .. } = self.client.live().map_err(Error::clone)?;
                    let Poll::Ready((action, ended)) = first.poll(engine, context) else {
                        self.state = WriteState::Sent(request, first);
                        return Poll::Pending;
                    };
                    let FirstAttempt { operation, started, .. } = first;
                    if let Action::Done(outcome) = action {
                        let written = engine.write_outcome(&request.key, outcome);
                        let took = ended.saturating_sub(started);
                        engine.timings.took(request.operation(), End::of_write(&written), took);
                        return Poll::Ready(written);
                    }
                    let write = Unsent { operation, started, action };
                    self.state = WriteState::Driven(self.client.drive_write(request, write));
                }
                WriteState::Driven(mut running) => {
                    let polled = Pin::new(&mut running).poll(context);
                    if polled.is_pending() {
                        self.state = WriteState::Driven(running);
                    }
                    return polled;
                }
                // Polled again after its end, against the contract of futures.
                WriteState::Over => return Poll::Pending,
            }
        }
    }

    fn begin(&self, request: WriteRequest, context: &Context<'_>) -> WriteState {
        let Self { client, deadline, .. } = self;
        let Some(Live { engine, .. }) = client.fast_path() else {
            return WriteState::Driven(client.start_write(request, *deadline));
        };
        engine.near_writing(&request.key);
        let (rules, total_ms) = (request.rules(), client.total_ms(*deadline));
        match engine.begin_fast(rules, total_ms, |seen| request.fast(seen), context.waker()) {
            Beginning::Sent(first) => WriteState::Sent(request, first),
            Beginning::Unsent(unsent) => WriteState::Driven(client.drive_write(request, unsent)),
        }
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        if let WriteState::Sent(request, first) =
            std::mem::replace(&mut self.state, WriteState::Over)
        {
            self.client.finish_write(request, first);
        }
    }
}
