//! Refreshes in the background: in a task, or on a thread, of their own, while the caller has the previous value.

use std::future::Future;
use std::pin::{Pin, pin};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use super::BoxFuture;
use super::call::{Call, Parts, call};
use super::call_target::CallTarget;
use super::options::Options;
use super::origin::{self, Boxed, Lazy};
use super::report::CallReport;
use super::rule::Policy;
use super::run::Run;
use super::stage::{DetachedResult, Stage};
use super::ttl::TtlRule;
use crate::client::function_runtime;
use crate::wait;

/// Moves the function out of a call that has not begun to compute, into work that runs in the background.
pub(super) type Detach<F> =
    fn(Pin<&mut F>, BackgroundRefresh<<F as Future>::Output>) -> Option<Work>;

/// A running call without its function.
pub(super) struct BackgroundRefresh<T> {
    pub(super) call: CallTarget,
    pub(super) ttl: TtlRule<T>,
    pub(super) policy: Policy<T>,
    pub(super) options: Options<T>,
    pub(super) run: Option<Run>,
    /// The stage of the call: it requests a lease, or computes.
    pub(super) stage: Stage<T>,
    /// The caller, if it waits for the value.
    pub(super) caller: Option<Caller<T>>,
}

/// A caller that waits for the value of a computation in another task, and its report so far.
pub(super) type Caller<T> = (oneshot::Sender<DetachedResult<T>>, Box<CallReport>);

impl<T> BackgroundRefresh<T> {
    /// Completes the call with its function. The caller gets the value if it still waits.
    async fn complete<F: Future<Output = T>>(mut self, origin: F) {
        let (caller, report) = self.caller.take().unzip();
        let mut call = pin!(Call::background_refresh(self, report, origin));
        let value = call.as_mut().await;
        if let Some(caller) = caller {
            // A caller that has the previous value, or is gone, has dropped its end.
            drop(caller.send((value, Box::new(call.take_report()))));
        }
    }
}

/// Work that runs without the caller.
pub(super) enum Work {
    Task(BoxFuture<()>),
    Thread(Box<dyn FnOnce() + Send>),
}

impl Work {
    /// Starts the work where it completes whatever the caller does: on the caller's runtime if that has
    /// threads of its own, otherwise on the clients' runtime for functions. A current-thread runtime may
    /// never run again.
    pub(super) fn start(self) {
        let caller = Handle::try_current().ok();
        let has_threads = |caller: &Handle| caller.runtime_flavor() != RuntimeFlavor::CurrentThread;
        let runtime = match caller.filter(has_threads).map_or_else(function_runtime, Ok) {
            Ok(runtime) => runtime,
            Err(error) => {
                // The next caller leads.
                tracing::warn!(%error, "cannot refresh a value in the background");
                return;
            }
        };
        // The work ends with the function; nobody waits for it.
        match self {
            Work::Task(task) => drop(runtime.spawn(task)),
            Work::Thread(work) => drop(runtime.spawn_blocking(work)),
        }
    }
}

/// Creates a call whose value may be refreshed in a task of its own.
pub fn background<B, F>(parts: Parts<F::Output>, make: B) -> Call<Boxed<B, F>>
where
    B: FnOnce() -> F + Send + 'static,
    F: Future<Output: Send + 'static> + Send + 'static,
{
    call(parts, origin::boxed(make)).detached_by(detach)
}

/// Moves an async function into a task.
pub(super) fn detach<B, F>(
    origin: Pin<&mut Boxed<B, F>>,
    refresh: BackgroundRefresh<F::Output>,
) -> Option<Work>
where
    B: FnOnce() -> F + Send + 'static,
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let make = origin.take()?;
    Some(Work::Task(Box::pin(refresh.complete(origin::boxed(make)))))
}

/// Creates a sync call whose value may be refreshed on a thread of its own.
pub fn background_sync<T, B>(parts: Parts<T>, body: B) -> Call<Lazy<B>>
where
    B: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    call(parts, origin::lazy(body)).detached_by(|mut origin, refresh| {
        let body = origin.as_mut().take()?;
        Some(Work::Thread(Box::new(move || {
            wait::block_on(refresh.complete(origin::lazy(body)));
        })))
    })
}
