//! A call of a memoized function as a value.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use pin_project_lite::pin_project;

use super::args::Args;
use super::counters::count;
use super::flight::{self, Lead, Outcome};
use super::key::{self, Arguments, FunctionId};
use super::leading;
use super::look::{Looked, look};
use super::operation::{BoxFuture, Invalidate, Peek};
use super::origin::Blocking;
use super::rule::Policy;
use super::site::Site;
use super::target::Target;
use super::ttl::{Lifetime, TtlRule};
use crate::codec::CodecError;
use crate::error::Error;
use crate::{Written, ZerocacheClient, wait};

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
}

/// Makes a call.
pub fn call<F: Future>(parts: Parts<F::Output>, origin: F) -> Call<F> {
    let identity = parts.site.function(parts.function).zip(parts.args.finish());
    Call {
        entry: Entry {
            target: parts.target,
            identity,
        },
        ttl: parts.ttl,
        policy: parts.policy,
        mode: Mode::Cached,
        blocking: false,
        run: None,
        stage: Stage::Start,
        origin,
    }
}

/// Where a call's value is.
#[derive(Clone)]
struct Entry {
    target: Target,
    /// None for a call that cannot have a key.
    identity: Option<(FunctionId, Arguments)>,
}

impl Entry {
    fn key(&self, client: &ZerocacheClient) -> Option<Bytes> {
        let (function, arguments) = self.identity.as_ref()?;
        Some(key::compose(client.namespace(), *function, arguments))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Cached,
    Refresh,
    Uncached,
}

/// The client and key that a running call uses.
struct Run {
    client: ZerocacheClient,
    key: Bytes,
}

enum Stage<T> {
    Start,
    Looking(BoxFuture<Looked>),
    Computing(Option<Lead>),
    Storing {
        put: BoxFuture<Result<Written, Error>>,
        value: Option<T>,
        _lead: Option<Lead>,
    },
    Done,
}

/// The next stage, or the call's value.
enum Step<T> {
    Next(Stage<T>),
    Value(T),
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
        Peek {
            find,
            decode: self.policy.decode,
        }
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
                    computed(value, lead.take(), this.run.as_ref(), this.policy, this.ttl)
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

impl Run {
    fn enter(&self) -> leading::Entered {
        leading::enter(self.client.memo_counters().flight_group(), &self.key)
    }

    fn count_written(&self, written: Result<Written, Error>) {
        let counters = self.client.memo_counters();
        match written {
            Ok(_) => count(&counters.stored),
            Err(error) => {
                count(&counters.write_errors);
                tracing::debug!(%error, "storing a memoized value failed");
            }
        }
    }
}

/// The client and key, unless the call goes without the cache.
fn start(entry: &Entry, mode: Mode) -> Option<Run> {
    if mode == Mode::Uncached {
        return None;
    }
    let client = entry.target.resolve();
    match entry.key(&client) {
        Some(key) => Some(Run { client, key }),
        None => {
            count(&client.memo_counters().unkeyed);
            None
        }
    }
}

fn first_stage<T>(run: Option<&Run>, mode: Mode, blocking: bool) -> Stage<T> {
    let Some(Run { client, key }) = run else {
        return Stage::Computing(None);
    };
    let group = client.memo_counters().flight_group();
    if mode == Mode::Refresh {
        flight::void(group, key);
        return Stage::Computing(None);
    }
    if leading::contains(group, key) {
        // Our own caller computes this key: waiting for it would be waiting for ourselves.
        return Stage::Computing(None);
    }
    Stage::Looking(Box::pin(look(client.clone(), key.clone(), blocking)))
}

fn found<T>(looked: Looked, run: Option<&Run>, policy: &Policy<T>) -> Step<T> {
    let Some(run) = run else {
        return Step::Next(Stage::Computing(None));
    };
    let counters = run.client.memo_counters();
    match looked {
        Looked::Stored(bytes, lead) => match (policy.decode)(&bytes) {
            Ok(value) => {
                count(&counters.hits);
                if let Some(lead) = lead {
                    lead.publish(Outcome::Value(bytes));
                }
                Step::Value(value)
            }
            Err(error) => {
                count(&counters.mismatched);
                count(&counters.misses);
                tracing::debug!(%error, "a stored value is replaced");
                Step::Next(Stage::Computing(lead))
            }
        },
        Looked::Joined(bytes) => match (policy.decode)(&bytes) {
            Ok(value) => {
                count(&counters.joined);
                Step::Value(value)
            }
            Err(_) => Step::Next(Stage::Computing(None)),
        },
        Looked::Failed(error) => match (policy.sharing.unshare)(&error) {
            Some(value) => {
                count(&counters.joined);
                Step::Value(value)
            }
            None => Step::Next(Stage::Computing(None)),
        },
        Looked::Absent(lead) => {
            count(&counters.misses);
            Step::Next(Stage::Computing(lead))
        }
    }
}

fn computed<T>(
    value: T,
    lead: Option<Lead>,
    run: Option<&Run>,
    policy: &Policy<T>,
    ttl: &TtlRule<T>,
) -> Step<T> {
    let Some(run) = run else {
        return Step::Value(value);
    };
    let counters = run.client.memo_counters();
    count(&counters.computed);
    let publish = |outcome| {
        if let Some(lead) = &lead {
            lead.publish(outcome);
        }
    };
    let bytes = match (policy.encode)(&value) {
        None => {
            let shared = (policy.sharing.share)(&value);
            publish(shared.map_or(Outcome::Nothing, Outcome::Failed));
            return Step::Value(value);
        }
        Some(Err(error)) => {
            count(&counters.write_errors);
            tracing::debug!(%error, "a memoized value cannot be stored");
            publish(Outcome::Nothing);
            return Step::Value(value);
        }
        Some(Ok(bytes)) => bytes,
    };
    let Some(lifetime) = ttl.apply(&value, counters) else {
        publish(Outcome::Nothing);
        return Step::Value(value);
    };
    publish(Outcome::Value(bytes.clone()));
    if lead.as_ref().is_some_and(Lead::is_void) {
        return Step::Value(value);
    }
    let put = run.client.raw_put(run.key.clone(), bytes, lifetime);
    Step::Next(Stage::Storing {
        put: Box::pin(put),
        value: Some(value),
        _lead: lead,
    })
}
