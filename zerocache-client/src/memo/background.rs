//! Refreshes in the background: in a task, or on a thread, of their own, while the caller has the previous value.

use std::future::Future;
use std::pin::Pin;

use tokio::runtime::{Handle, RuntimeFlavor};

use super::BoxFuture;
use super::call::{Call, Parts, call};
use super::call_target::CallTarget;
use super::options::Options;
use super::origin::{self, Boxed, Lazy};
use super::rule::Policy;
use super::run::Run;
use super::stage::Stage;
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
    call(parts, origin::boxed(make)).detached_by(|mut origin, refresh| {
        let make = origin.as_mut().take()?;
        Some(Work::Task(Box::pin(async move {
            drop(Call::background_refresh(refresh, origin::boxed(make)).await);
        })))
    })
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
            drop(wait::block_on(Call::background_refresh(refresh, origin::lazy(body))));
        })))
    })
}
