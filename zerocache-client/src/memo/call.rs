//! A call of a memoized function as a value.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use pin_project_lite::pin_project;

use super::args::Args;
use super::background::{Detach, Refresh};
use super::near;
use super::operation::{Invalidate, Peek};
use super::options::Options;
use super::origin::Blocking;
use super::report::{CallOutcome, CallReport, ExplainCall};
use super::rule::{Errors, Policy, Sharing};
use super::run::{Entry, Mode, Run, Steps, start};
use super::site::Site;
use super::stage::{Stage, Step};
use super::target::Target;
use super::ttl::TtlRule;
use crate::lifetime::Lifetime;
use crate::wait;

pin_project! {
    /// A call of a memoized function: a future of its value, and a handle on its entry.
    ///
    /// Awaiting it gives what the function gives: from the cache, from another call of the same
    /// key that is under way in this process, or computed. A failure of the cache is counted
    /// ([`MemoStats`](crate::stats::MemoStats)) and never fails the call.
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
        report: Option<Box<CallReport>>,
        detach: Option<Detach<F>>,
        stage: Stage<F::Output>,
        #[pin]
        origin: F,
    }
}

/// What the expansion knows about a call.
pub struct Parts<T> {
    /// The function.
    pub site: &'static Site,
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
#[inline]
pub fn call<F: Future>(parts: Parts<F::Output>, origin: F) -> Call<F> {
    let Parts { site, target, args, ttl, policy, options } = parts;
    let entry = Entry::new(site, target, args);
    Call::new(entry, ttl, policy, options, origin)
}

impl<F: Future> Call<F> {
    /// A call of what goes by a key of its own, not by a function and its arguments.
    pub(super) fn given(
        entry: Entry,
        ttl: TtlRule<F::Output>,
        policy: Policy<F::Output>,
        origin: F,
    ) -> Self {
        Self::new(entry, ttl, policy, Options::new(), origin)
    }

    #[inline]
    fn new(
        entry: Entry,
        ttl: TtlRule<F::Output>,
        policy: Policy<F::Output>,
        options: Options<F::Output>,
        origin: F,
    ) -> Self {
        Call {
            entry,
            ttl,
            policy,
            options,
            mode: Mode::Cached,
            blocking: false,
            run: None,
            report: None,
            detach: None,
            stage: Stage::Start,
            origin,
        }
    }

    /// A call that computes anew what another one has begun to.
    pub(super) fn refreshing(refresh: Refresh<F::Output>, origin: F) -> Self {
        let Refresh { entry, ttl, policy, options, run, stage } = refresh;
        let mut call = Self::given(entry, ttl, policy, origin);
        (call.options, call.run, call.mode, call.stage) = (options, run, Mode::Behind, stage);
        call
    }

    /// The same call with other options.
    pub(super) fn with(
        mut self,
        change: impl FnOnce(Options<F::Output>) -> Options<F::Output>,
    ) -> Self {
        self.options = change(self.options);
        self
    }

    /// The same call, which shares its errors in another way.
    pub(super) fn sharing(mut self, sharing: Sharing<F::Output>) -> Self {
        self.policy.sharing = sharing;
        self
    }

    /// The same call, which reads kept errors.
    pub(super) fn reading_errors(mut self, errors: Errors<F::Output>) -> Self {
        self.policy.errors = errors;
        self
    }

    /// What computes can be taken out in this way.
    pub(super) fn detached_by(mut self, detach: Detach<F>) -> Self {
        self.detach = Some(detach);
        self
    }

    /// The caller sleeps on its thread.
    pub(super) fn blocking(mut self) -> Self {
        self.blocking = true;
        self
    }

    /// What the call did, once it is over.
    pub(super) fn take_report(self: Pin<&mut Self>) -> CallReport {
        self.project().report.take().map_or_else(CallReport::new, |report| *report)
    }

    /// The key of exactly this call, for the client that would run it here; none if it has none,
    /// because an argument cannot be encoded or another function has the same identity.
    pub fn key(&self) -> Option<Bytes> {
        self.entry.key(&self.entry.client())
    }

    /// Looks into the cache and computes nothing. What it finds is what the call would return:
    /// for a function that returns a `Result`, `Some(Ok(value))`, or `Some(Err(error))` where an
    /// error is kept. A value past its lifetime is none.
    ///
    /// # Errors
    ///
    /// When no node answers. A value that does not decode is a miss.
    pub fn peek(self) -> Peek<F::Output> {
        Peek::new(self.entry, self.policy)
    }

    /// Computes whatever the cache holds, and replaces it. A computation of the same key that is
    /// under way is not stored any more.
    pub fn refresh(mut self) -> Self {
        self.mode = Mode::Refresh;
        self
    }

    /// Removes the value from the cache. A computation of the same key that is under way in this
    /// process is not stored any more; what it is storing already arrives first, and is then removed.
    /// Once it has been polled it goes on without its caller.
    ///
    /// # Errors
    ///
    /// When no node answers, or the call has no key.
    pub fn invalidate(self) -> Invalidate {
        Invalidate::new(self.entry)
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

    /// Runs the call and tells what it did.
    pub fn explain(mut self) -> ExplainCall<F> {
        self.report = Some(Box::new(CallReport::new()));
        ExplainCall::new(self)
    }

    /// Runs the call and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// For sync functions. Where another sync caller computes the same key, this waits for it; an
    /// async one is not waited for, because it may need this thread.
    pub fn wait(self) -> F::Output
    where
        F: Blocking,
    {
        wait::block_on(self.blocking())
    }
}

impl<F: Future> Future for Call<F> {
    type Output = F::Output;

    #[expect(clippy::too_many_lines, reason = "one arm for each stage")]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let (Stage::Start, Mode::Cached, Some(age)) =
            (&*this.stage, *this.mode, this.options.near)
            && let Some(value) = near::hit(this.entry, age, this.policy)
        {
            if let Some(report) = this.report {
                report.outcome = CallOutcome::Near;
            }
            *this.stage = Stage::Done;
            return Poll::Ready(value);
        }
        loop {
            if matches!(this.stage, Stage::Start) {
                *this.run = start(this.entry, *this.mode);
            }
            let mut steps = Steps {
                run: this.run.as_ref(),
                policy: this.policy,
                ttl: this.ttl,
                options: this.options,
                behind: *this.mode == Mode::Behind,
                report: this.report.as_deref_mut(),
            };
            if this.detach.is_some()
                && let Some(computation) = this.stage.computation()
                && let Some(old) = computation.old_value(this.policy)
                && let Some(detach) = this.detach.take()
            {
                steps.left_behind(computation);
                let refresh = Refresh {
                    entry: this.entry.clone(),
                    ttl: mem::replace(this.ttl, TtlRule::seconds(0)),
                    policy: *this.policy,
                    options: mem::replace(this.options, Options::new()),
                    run: this.run.take(),
                    stage: mem::replace(this.stage, Stage::Done),
                };
                if let Some(work) = detach(this.origin.as_mut(), refresh) {
                    work.start();
                }
                return Poll::Ready(old);
            }
            let step = match this.stage {
                Stage::Start => Step::Next(steps.first(*this.mode, *this.blocking)),
                Stage::Looking(looking) => {
                    let looked = ready!(looking.as_mut().poll(context));
                    steps.found(looked)
                }
                Stage::Leasing { asking, computation } => {
                    let leased = ready!(asking.as_mut().poll(context));
                    steps.leased(leased, computation.take().unwrap_or_default())
                }
                Stage::Computing(computation) => {
                    let value = {
                        let _span = computation.begin(this.entry.site.name()).span.enter();
                        let _entered = this.run.as_ref().map(Run::enter);
                        ready!(this.origin.as_mut().poll(context))
                    };
                    steps.computed(value, mem::take(&mut **computation))
                }
                Stage::Storing(storing) => {
                    let written = ready!(storing.put.as_mut().poll(context));
                    steps.written(written, &storing.key, storing.at);
                    match storing.value.take() {
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
