//! A call of a memoized function as a value.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use pin_project_lite::pin_project;

use super::args::Args;
use super::flight;
use super::near;
use super::operation::{Invalidate, Peek};
use super::options::Options;
use super::origin::{self, Blocking, Boxed, Lazy};
use super::rule::Policy;
use super::run::{Entry, Mode, Run, Stage, Step, computed, first_stage, found, start};
use super::site::Site;
use super::target::Target;
use super::ttl::{Lifetime, TtlRule};
use crate::codec::CodecError;
use crate::error::Error;
use crate::wait;

pin_project! {
    /// A call of a memoized function: a future of its value, and a handle on its entry.
    ///
    /// Awaiting it gives what the function gives: from the cache, from another call of the same
    /// key that is under way in this process, or computed. A failure of the cache is counted
    /// ([`MemoStats`](crate::MemoStats)) and never fails the call.
    ///
    /// # Cancellation
    ///
    /// Dropping a call ends its computation; where others wait for it, one of them takes over.
    #[must_use = "a call does nothing unless it is awaited"]
    pub struct Call<F: Future> {
        entry: Entry,
        ttl: TtlRule<F::Output>,
        policy: Policy<F::Output>,
        options: Options<F::Output>,
        mode: Mode,
        blocking: bool,
        run: Option<Run>,
        stage: Stage<F::Output>,
        #[pin]
        origin: F,
    }
}

/// What the expansion knows about a call.
pub struct Parts<T> {
    /// The function.
    pub site: &'static Site,
    /// The compiler's name of a closure inside of it.
    pub function: &'static str,
    /// The client.
    pub target: Target,
    /// The arguments.
    pub args: Args,
    /// The lifetime.
    pub ttl: TtlRule<T>,
    /// What to store.
    pub policy: Policy<T>,
    /// What else to do.
    pub options: Options<T>,
}

/// Makes a call.
pub fn call<F: Future>(parts: Parts<F::Output>, origin: F) -> Call<F> {
    let identity = parts.site.function(parts.function).zip(parts.args.finish());
    Call {
        entry: Entry { site: parts.site, target: parts.target, identity },
        ttl: parts.ttl,
        policy: parts.policy,
        options: parts.options,
        mode: Mode::Cached,
        blocking: false,
        run: None,
        stage: Stage::Start,
        origin,
    }
}

/// Makes a call whose value may be computed anew in a task of its own.
pub fn background<B, F>(parts: Parts<F::Output>, make: B) -> Call<Boxed<B, F>>
where
    B: FnOnce() -> F + Send + 'static,
    F: Future<Output: Send + 'static> + Send + 'static,
{
    call(parts, origin::boxed(make))
}

/// Makes a sync call whose value may be computed anew on a thread of its own.
pub fn background_sync<T, B>(parts: Parts<T>, body: B) -> Call<Lazy<B>>
where
    B: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    call(parts, origin::lazy(body))
}

impl<F: Future> Call<F> {
    /// The key of exactly this call, for the client that would run it here; none if it has none,
    /// because an argument cannot be encoded or another function has the same identity.
    pub fn key(&self) -> Option<Bytes> {
        self.entry.key(&self.entry.target.resolve())
    }

    /// Looks into the cache and computes nothing. What it finds is what the call would return:
    /// for a function that returns a `Result`, `Some(Ok(value))`.
    ///
    /// # Errors
    ///
    /// When no node answers. A value that does not decode is a miss.
    pub fn peek(self) -> Peek<F::Output> {
        let entry = self.entry;
        let find = Box::pin(async move {
            let client = entry.target.resolve();
            match entry.key(&client) {
                Some(key) => client.raw_get(key).await,
                None => Ok(None),
            }
        });
        Peek { find, decode: self.policy.decode }
    }

    /// Computes whatever the cache holds, and replaces it. A computation of the same key that is
    /// under way is not stored any more.
    pub fn refresh(mut self) -> Self {
        self.mode = Mode::Refresh;
        self
    }

    /// Removes the value from the cache. A computation of the same key that is under way in this
    /// process is not stored any more.
    ///
    /// # Errors
    ///
    /// When no node answers, or the call has no key.
    pub fn invalidate(self) -> Invalidate {
        let entry = self.entry;
        Invalidate(Box::pin(async move {
            let client = entry.target.resolve();
            let Some(key) = entry.key(&client) else {
                let message = "this call has no key".to_owned();
                return Err(Error::from(CodecError::Encode(message)));
            };
            flight::void(client.memo_counters().flight_group(), &key);
            client.raw_delete(key).await
        }))
    }

    /// Computes and leaves the cache alone.
    pub fn uncached(mut self) -> Self {
        self.mode = Mode::Uncached;
        self
    }

    /// Another lifetime for this call's value: seconds or a `Duration`; zero stores nothing.
    pub fn ttl(mut self, lifetime: impl Lifetime) -> Self {
        self.ttl = TtlRule::given(lifetime);
        self
    }

    /// Runs the call and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// For sync functions. Where another sync caller computes the same key, this waits for it; an
    /// async one is not waited for, because it may need this thread.
    pub fn wait(mut self) -> F::Output
    where
        F: Blocking,
    {
        if self.mode == Mode::Cached
            && let Some(rule) = self.options.near
            && let Some(value) = near::hit(&self.entry, rule, &self.policy)
        {
            return value;
        }
        self.blocking = true;
        wait::block_on(self)
    }
}

impl<F: Future> Future for Call<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        loop {
            let step = match this.stage {
                Stage::Start => {
                    if *this.mode == Mode::Cached
                        && let Some(rule) = this.options.near
                        && let Some(value) = near::hit(this.entry, rule, this.policy)
                    {
                        *this.stage = Stage::Done;
                        return Poll::Ready(value);
                    }
                    *this.run = start(this.entry, *this.mode);
                    Step::Next(first_stage(this.run.as_ref(), *this.mode, *this.blocking))
                }
                Stage::Looking(looking) => {
                    let looked = ready!(looking.as_mut().poll(context));
                    found(looked, this.run.as_ref(), this.policy)
                }
                Stage::Computing(lead) => {
                    let value = {
                        let entered = this.run.as_ref().map(Run::enter);
                        let value = this.origin.as_mut().poll(context);
                        drop(entered);
                        ready!(value)
                    };
                    computed(
                        value,
                        lead.take(),
                        this.run.as_ref(),
                        this.policy,
                        this.ttl,
                        this.options.ack,
                    )
                }
                Stage::Storing { put, value, .. } => {
                    let written = ready!(put.as_mut().poll(context));
                    if let Some(run) = this.run.as_ref() {
                        run.count_written(written);
                    }
                    match value.take() {
                        Some(value) => Step::Value(value),
                        None => Step::Next(Stage::Done),
                    }
                }
                // Polled again after its end, against the contract of futures.
                Stage::Done => return Poll::Pending,
            };
            match step {
                Step::Next(stage) => *this.stage = stage,
                Step::Value(value) => {
                    *this.stage = Stage::Done;
                    return Poll::Ready(value);
                }
            }
        }
    }
}
