//! Computing anew in a task, or on a thread, of its own, while the caller has the old value.

use std::future::Future;
use std::pin::Pin;

use tokio::runtime::{Handle, RuntimeFlavor};

use super::call::{Call, Parts, call};
use super::operation::BoxFuture;
use super::options::Options;
use super::origin::{self, Boxed, Lazy};
use super::rule::Policy;
use super::run::{Entry, Run};
use super::stage::Stage;
use super::ttl::TtlRule;
use crate::client::function_runtime;
use crate::wait;

/// Takes what computes out of a call that has not begun to, and makes a piece of work of it.
pub(super) type Detach<F> = fn(Pin<&mut F>, Refresh<<F as Future>::Output>) -> Option<Work>;

/// A call under way without what computes.
pub(super) struct Refresh<T> {
    pub(super) entry: Entry,
    pub(super) ttl: TtlRule<T>,
    pub(super) policy: Policy<T>,
    pub(super) options: Options<T>,
    pub(super) run: Option<Run>,
    /// How far it has come: it asks for leave, or computes.
    pub(super) stage: Stage<T>,
}

/// What runs without the caller.
pub(super) enum Work {
    Task(BoxFuture<()>),
    Thread(Box<dyn FnOnce() + Send>),
}

impl Work {
    /// Begins where it goes on whatever the caller does: on the caller's runtime if that has threads of
    /// its own, else on the clients' one for functions. A runtime of the caller's thread alone may
    /// never run again.
    pub(super) fn start(self) {
        let caller = Handle::try_current().ok();
        let has_threads = |caller: &Handle| caller.runtime_flavor() != RuntimeFlavor::CurrentThread;
        let runtime = match caller.filter(has_threads).map_or_else(function_runtime, Ok) {
            Ok(runtime) => runtime,
            Err(error) => {
                // Whoever asks next leads.
                tracing::warn!(%error, "a value cannot be computed in the background");
                return;
            }
        };
        // It ends with the function; nobody waits for it.
        match self {
            Work::Task(task) => drop(runtime.spawn(task)),
            Work::Thread(work) => drop(runtime.spawn_blocking(work)),
        }
    }
}

/// Makes a call whose value may be computed anew in a task of its own.
pub fn background<B, F>(parts: Parts<F::Output>, make: B) -> Call<Boxed<B, F>>
where
    B: FnOnce() -> F + Send + 'static,
    F: Future<Output: Send + 'static> + Send + 'static,
{
    call(parts, origin::boxed(make)).detached_by(|mut origin, refresh| {
        let make = origin.as_mut().take()?;
        Some(Work::Task(Box::pin(async move {
            drop(Call::refreshing(refresh, origin::boxed(make)).await);
        })))
    })
}

/// Makes a sync call whose value may be computed anew on a thread of its own.
pub fn background_sync<T, B>(parts: Parts<T>, body: B) -> Call<Lazy<B>>
where
    B: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    call(parts, origin::lazy(body)).detached_by(|mut origin, refresh| {
        let body = origin.as_mut().take()?;
        Some(Work::Thread(Box::new(move || {
            drop(wait::block_on(Call::refreshing(refresh, origin::lazy(body))));
        })))
    })
}
