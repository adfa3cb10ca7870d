//! Looking a key up, and waiting for another caller that computes it.
//!
//! Everything here is `Send + 'static` whatever the function is: it needs the key, not the call.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use zerocache_core::metadata::Freshness;
use zerocache_net::clock;

use super::flight::{self, Joined, Lead, Progress, Turn};
use super::rule::Shared;
use super::stored::{Base, Form, Stored};
use crate::ZerocacheClient;
use crate::client::ReadReport;
use crate::counters::count;

/// A caller waits for so many times the bound of a wait in all, whoever leads meanwhile: with the bound
/// that is set unless a program says otherwise for five minutes.
const WAITS_MAX: u32 = 30;

/// What looking found.
pub(crate) enum Found {
    /// An entry; who leads must say whether it decodes.
    Entry(Stored),
    /// What another caller computed meanwhile, or serves while it computes.
    Joined { form: Form, old: bool },
    /// The error that another caller met meanwhile.
    Failed(Shared),
    /// Nothing that may be served, but perhaps something for the case that computing fails.
    Nothing(Option<Stored>),
}

/// What looking found, the right to compute it for all, and how it was read.
pub(crate) struct Looked {
    pub(crate) found: Found,
    pub(crate) lead: Option<Lead>,
    pub(crate) read: Option<ReadReport>,
    /// The base entry, where that was found before and this was looked for beside it.
    pub(crate) base: Option<Box<Base>>,
}

impl Looked {
    fn by_another(found: Found) -> Self {
        Looked { found, lead: None, read: None, base: None }
    }
}

/// How to look.
#[derive(Clone, Copy, Default)]
pub(crate) struct How {
    /// The caller sleeps on its thread.
    pub(crate) blocking: bool,
    /// Whether the near cache is asked, and for what age.
    pub(crate) near: Option<Option<Duration>>,
    /// How long a leader may itself wait for another process that has a lease.
    pub(crate) lease_wait: Duration,
    /// How long the nodes may take, instead of the client's own bound.
    pub(crate) deadline: Option<Duration>,
    /// The read is to be reported.
    pub(crate) explain: bool,
}

/// Reads the key, alone for all callers of it.
pub(crate) async fn look(client: ZerocacheClient, key: Bytes, how: How) -> Looked {
    let counters = client.memo_counters();
    let group = counters.flight_group();
    let wait = counters.flight_wait().saturating_add(how.lease_wait);
    let (mut timer, mut left) = (pin!(None), wait);
    // When the first wait began. One bound for all leaders after each other.
    let mut since = None;
    loop {
        let mut waiting = match flight::join(group, &key, how.blocking) {
            Joined::Lead(lead) => return read(&client, key, how, Some(lead), None).await,
            Joined::Alone => return read(&client, key, how, None, None).await,
            Joined::Wait(waiting) => waiting,
        };
        let since = *since.get_or_insert_with(clock::elapsed);
        let told = loop {
            if timer.is_none() {
                timer.set(Some(client.sleep(left)));
            }
            tokio::select! {
                biased;
                told = waiting.told() => break told,
                // The precondition holds: it was set above.
                () = async { if let Some(timer) = timer.as_mut().as_pin_mut() { timer.await } } => {}
            }
            timer.set(None);
            let waited = clock::elapsed().saturating_sub(since);
            // A client that cannot work has no timer either.
            if waited >= wait.saturating_mul(WAITS_MAX) || client.runtime().is_none() {
                count(&counters.wait_timeouts);
                return Looked::by_another(Found::Nothing(waiting.old()));
            }
            match waiting.take_turn(wait) {
                Turn::Lead(lead) => {
                    count(&counters.wait_timeouts);
                    let old = waiting.old();
                    return read(&client, key, how, Some(lead), old).await;
                }
                Turn::Later(time) => left = time,
                Turn::Over => {
                    left = Duration::ZERO;
                    break None;
                }
            }
        };
        let found = match told {
            Some(Progress::Computing(old)) => {
                // What is computed ahead of the end of its lifetime is not past it.
                let is_old = old.freshness(clock::mono()) != Freshness::Fresh;
                Found::Joined { form: old.form, old: is_old }
            }
            Some(Progress::Value(form)) => Found::Joined { form, old: false },
            Some(Progress::Old(form)) => Found::Joined { form, old: true },
            Some(Progress::Failed(error)) => Found::Failed(error),
            Some(Progress::Nothing) => Found::Nothing(None),
            // The leaders are gone without a word; perhaps it is our turn.
            Some(Progress::Looking) | None => continue,
        };
        return Looked::by_another(found);
    }
}

/// Reads the key, whoever else does.
pub(crate) async fn look_alone(client: ZerocacheClient, key: Bytes, how: How) -> Looked {
    read(&client, key, how, None, None).await
}

/// Reads what stands beside a base entry that cannot be read itself.
pub(crate) async fn look_beside(
    client: ZerocacheClient,
    mut base: Box<Base>,
    how: How,
    lead: Option<Lead>,
) -> Looked {
    let mut looked = read(&client, base.key.clone(), how, lead, None).await;
    if let Found::Entry(stored) = &looked.found
        && !base.owns(stored)
    {
        base.over = Some(stored.version);
        looked.found = Found::Nothing(None);
    }
    Looked { base: Some(base), ..looked }
}

/// Reads the key. `old` is what is known of it where that fails.
async fn read(
    client: &ZerocacheClient,
    key: Bytes,
    how: How,
    lead: Option<Lead>,
    old: Option<Stored>,
) -> Looked {
    let mut get = client.raw_get(key).allow_stale().near_within(how.near);
    if let Some(deadline) = how.deadline {
        get = get.deadline(deadline);
    }
    let (result, read) = if how.explain {
        match get.explain().await {
            Ok(explained) => (explained.result, Some(explained.report)),
            Err(error) => (Err(error), None),
        }
    } else {
        (get.entry().await, None)
    };
    let found = match result {
        Ok(Some(entry)) => Found::Entry(Stored::read(entry, clock::mono())),
        Ok(None) => Found::Nothing(None),
        Err(error) => {
            count(&client.memo_counters().read_errors);
            tracing::debug!(%error, "reading a memoized value failed");
            Found::Nothing(old)
        }
    };
    Looked { found, lead, read, base: None }
}
