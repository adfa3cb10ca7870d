//! Calls of memoized functions, as futures.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use pin_project_lite::pin_project;

use super::args::Args;
use super::background::{BackgroundRefresh, Detach};
use super::call_target::CallTarget;
use super::invalidate::Invalidate;
use super::limit::RunPermit;
use super::near;
use super::options::Options;
use super::origin::Blocking;
use super::peek::Peek;
use super::purge::Purge;
use super::report::{CallOutcome, CallReport, ExplainCall};
use super::rule::{Encode, Errors, Policy, Sharing};
use super::run::{Mode, Run, Steps, start};
use super::site::Site;
use super::stage::{Stage, Step};
use super::target::Target;
use super::ttl::TtlRule;
use crate::lifetime::Lifetime;
use crate::wait;

pin_project! {
    /// A call of a memoized function: a future of its value, and a handle on its entry.
    ///
    /// Awaiting it returns the function's value: from the cache, from a concurrent call of the same key in
    /// this process, or computed. A failure of the cache is counted
    /// ([`MemoStats`](crate::stats::MemoStats)) and never fails the call.
    ///
    /// # Cancellation
    ///
    /// Dropping a call ends its computation; where others wait for it, one of them takes over.
    #[must_use = "a call does nothing unless it is awaited"]
    pub struct Call<F: Future> {
        call: CallTarget,
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

/// The parts of a call, from the attribute's expansion.
pub struct Parts<T> {
    /// The function.
    pub site: &'static Site,
    /// The client to use.
    pub target: Target,
    /// The arguments.
    pub args: Args,
    /// The lifetime.
    pub ttl: TtlRule<T>,
    /// The conversion of values to and from bytes.
    pub policy: Policy<T>,
    /// Further options.
    pub options: Options<T>,
}

/// Creates a call.
#[inline]
pub fn call<F: Future>(parts: Parts<F::Output>, origin: F) -> Call<F> {
    let Parts { site, target, args, ttl, policy, options } = parts;
    let call = CallTarget::new(site, target, args);
    Call::new(call, ttl, policy, options, origin)
}

impl<F: Future> Call<F> {
    /// Creates a call with an explicit key.
    pub(super) fn explicit(
        call: CallTarget,
        ttl: TtlRule<F::Output>,
        policy: Policy<F::Output>,
        origin: F,
    ) -> Self {
        Self::new(call, ttl, policy, Options::new(), origin)
    }

    #[inline]
    fn new(
        call: CallTarget,
        ttl: TtlRule<F::Output>,
        policy: Policy<F::Output>,
        options: Options<F::Output>,
        origin: F,
    ) -> Self {
        Call {
            call,
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

    /// Creates the call that completes a refresh in the background.
    pub(super) fn background_refresh(
        refresh: BackgroundRefresh<F::Output>,
        report: Option<Box<CallReport>>,
        origin: F,
    ) -> Self {
        let BackgroundRefresh { call: target, ttl, policy, options, run, stage, .. } = refresh;
        let mut call = Self::explicit(target, ttl, policy, origin);
        (call.options, call.run, call.mode, call.stage) = (options, run, Mode::Background, stage);
        call.report = report;
        call
    }

    /// Changes the options.
    pub(super) fn with(
        mut self,
        change: impl FnOnce(Options<F::Output>) -> Options<F::Output>,
    ) -> Self {
        self.options = change(self.options);
        self
    }

    /// Changes how errors are shared with waiting callers.
    pub(super) fn sharing(mut self, sharing: Sharing<F::Output>) -> Self {
        self.policy.sharing = sharing;
        self
    }

    /// Changes how values are encoded.
    pub(super) fn encoding(mut self, encode: Encode<F::Output>) -> Self {
        self.policy.encode = encode;
        self
    }

    /// Changes how stored errors are decoded.
    pub(super) fn reading_errors(mut self, errors: Errors<F::Output>) -> Self {
        self.policy.errors = errors;
        self
    }

    /// Sets how the function is moved to the background.
    pub(super) fn detached_by(mut self, detach: Detach<F>) -> Self {
        self.detach = Some(detach);
        self
    }

    /// Marks the caller as one that blocks its thread.
    pub(super) fn blocking(mut self) -> Self {
        self.blocking = true;
        self
    }

    /// Returns the report of a completed call.
    pub(super) fn take_report(self: Pin<&mut Self>) -> CallReport {
        self.project().report.take().map_or_else(CallReport::new, |report| *report)
    }

    /// Returns the key of this call, for the client that would run it here; `None` if an argument cannot be
    /// encoded, or another function has the same identity.
    pub fn key(&self) -> Option<Bytes> {
        self.call.key(&self.call.client())
    }

    /// Reads the cache and computes nothing. The result is what the call would return: for a function that
    /// returns a `Result`, `Some(Ok(value))`, or `Some(Err(error))` for a stored error. A value past its
    /// lifetime is a miss.
    ///
    /// # Errors
    ///
    /// When no node answers. A value that does not decode is a miss.
    pub fn peek(self) -> Peek<F::Output> {
        Peek::new(self.call, self.policy)
    }

    /// Computes the value whatever the cache holds, and replaces the entry. Concurrent computations of the
    /// key in this process are not stored.
    pub fn refresh(mut self) -> Self {
        self.mode = Mode::Refresh;
        self
    }

    /// Removes the value from the cache. Concurrent computations of the key in this process are not stored; a
    /// value that is already being stored arrives first, and is then removed. Once polled, the removal
    /// completes also if it is dropped.
    ///
    /// # Errors
    ///
    /// When no node answers, or the call has no key.
    pub fn invalidate(self) -> Invalidate {
        Invalidate::new(self.call)
    }

    /// Removes all results of this function, whatever its arguments, of the client's namespace from the cache in
    /// all regions. No key is listed; the arguments of this call do not matter.
    ///
    /// # Errors
    ///
    /// When no node answers, or the call has no key.
    pub fn invalidate_all(self) -> Purge {
        self.call.purge_function()
    }

    /// Computes the value without the cache.
    pub fn uncached(mut self) -> Self {
        self.mode = Mode::Uncached;
        self
    }

    /// Sets the lifetime of this call's value: seconds or a `Duration`; zero stores nothing.
    pub fn ttl(mut self, lifetime: impl Lifetime) -> Self {
        self.ttl = TtlRule::given(lifetime);
        self
    }

    /// Runs the call and reports its steps.
    pub fn explain(mut self) -> ExplainCall<F> {
        self.report = Some(Box::new(CallReport::new()));
        ExplainCall::new(self)
    }

    /// Runs the call and blocks the thread meanwhile; works inside and outside of any runtime.
    ///
    /// For sync functions. This waits for another sync caller that computes the key, but not for an async
    /// one, which may need this thread.
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
            && let Some(value) = near::hit(this.call, age, this.policy)
        {
            if let Some(report) = this.report {
                report.outcome = CallOutcome::Near;
            }
            *this.stage = Stage::Done;
            return Poll::Ready(value);
        }
        let mut decoded = None;
        loop {
            if matches!(this.stage, Stage::Start) {
                *this.run = start(this.call, *this.mode);
            }
            let mut steps = Steps {
                run: this.run.as_ref(),
                call: this.call,
                policy: this.policy,
                ttl: this.ttl,
                options: this.options,
                is_background: *this.mode == Mode::Background,
                report: this.report.as_deref_mut(),
                decoded: Some(&mut decoded),
            };
            if this.detach.is_some()
                && let Some(computation) = this.stage.computation()
                && let Some(plan) = steps.plan_detach(computation)
                && let Some(detach) = this.detach.take()
            {
                let (caller, detached) = steps.wait_or_serve(&plan).unzip();
                let refresh = BackgroundRefresh {
                    call: this.call.clone(),
                    ttl: mem::replace(this.ttl, TtlRule::seconds(0)),
                    policy: *this.policy,
                    options: mem::replace(this.options, Options::new()),
                    run: this.run.clone(),
                    stage: mem::replace(this.stage, Stage::Done),
                    caller,
                };
                if let Some(work) = detach(this.origin.as_mut(), refresh) {
                    work.start();
                }
                let Some(detached) = detached else { return Poll::Ready(plan.previous) };
                *this.stage = Stage::Detached(Box::new((detached, Some(plan))));
                continue;
            }
            let step = match this.stage {
                Stage::Start => steps.first_stage(*this.mode, *this.blocking),
                Stage::LookingUp(lookup) => {
                    let lookup = ready!(lookup.as_mut().poll(context));
                    steps.after_lookup(lookup)
                }
                Stage::Leasing { request, computation } => {
                    let response = ready!(request.as_mut().poll(context));
                    steps.after_lease(response, computation.take().unwrap_or_default())
                }
                Stage::Queued { turn, computation } => {
                    let end = ready!(turn.as_mut().poll(context));
                    steps.after_turn(end, computation.take().unwrap_or_default())
                }
                Stage::Computing(computation) => {
                    let value = {
                        let _running = computation.permit.as_ref().map(RunPermit::enter);
                        let _span = computation.start(this.call.site.name()).span.enter();
                        let _entered = this.run.as_ref().map(Run::enter);
                        ready!(this.origin.as_mut().poll(context))
                    };
                    steps.after_compute(value, mem::take(&mut **computation))
                }
                Stage::Detached(waiting) => {
                    let (detached, plan) = &mut **waiting;
                    let result = ready!(detached.poll(context));
                    // It is there until the wait is over.
                    let Some(plan) = plan.take() else { return Poll::Pending };
                    Step::Value(steps.after_wait(result, plan))
                }
                Stage::Storing(storing) => {
                    let written = ready!(storing.write.as_mut().poll(context));
                    steps.after_write(written, &storing.key, storing.started);
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
