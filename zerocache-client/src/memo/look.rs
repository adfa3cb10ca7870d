//! Looking a key up, and waiting for another caller that computes it.
//!
//! Everything here is `Send + 'static` whatever the function is: it needs the key, not the call.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use zerocache_core::metadata::Freshness;
use zerocache_net::clock;

use super::counters::count;
use super::flight::{self, Joined, Lead, Progress};
use super::rule::Shared;
use super::stored::{Form, Stored};
use crate::{Report, ZerocacheClient};

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
    pub(crate) read: Option<Report>,
}

impl Looked {
    fn by_another(found: Found) -> Self {
        Looked { found, lead: None, read: None }
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
    let group = client.memo_counters().flight_group();
    let mut bound = pin!(None);
    loop {
        let mut progress = match flight::join(group, &key, how.blocking) {
            Joined::Lead(lead) => return read(&client, key, how, Some(lead)).await,
            Joined::Alone => return read(&client, key, how, None).await,
            Joined::Wait(progress) => progress,
        };
        if bound.is_none() {
            // One bound for all leaders after each other.
            let wait = client.memo_counters().flight_wait().saturating_add(how.lease_wait);
            bound.set(Some(client.sleep(wait)));
        }
        let waited = tokio::select! {
            biased;
            waited = published(&mut progress) => waited,
            // The precondition holds: it was set above.
            () = async { if let Some(bound) = bound.as_mut().as_pin_mut() { bound.await } } => {
                count(&client.memo_counters().wait_timeouts);
                let old = match &*progress.borrow() {
                    Progress::Computing(old) => Some(old.clone()),
                    _ => None,
                };
                return Looked::by_another(Found::Nothing(old));
            }
        };
        let found = match waited {
            Some(Progress::Computing(old)) => {
                // What is computed ahead of the end of its lifetime is not past it.
                let is_old = old.freshness(clock::mono()) != Freshness::Fresh;
                Found::Joined { form: old.form, old: is_old }
            }
            Some(Progress::Value(form)) => Found::Joined { form, old: false },
            Some(Progress::Old(form)) => Found::Joined { form, old: true },
            Some(Progress::Failed(error)) => Found::Failed(error),
            Some(Progress::Nothing) => Found::Nothing(None),
            // The leader is gone without a word; perhaps it is our turn.
            Some(Progress::Looking) | None => continue,
        };
        return Looked::by_another(found);
    }
}

/// Waits until the leader has something that can be used.
async fn published(progress: &mut watch::Receiver<Progress>) -> Option<Progress> {
    let settles = |progress: &Progress| match progress {
        Progress::Looking => false,
        Progress::Computing(old) => old.serves(clock::mono()),
        _ => true,
    };
    let value = progress.wait_for(settles).await.ok()?;
    Some(value.clone())
}

async fn read(client: &ZerocacheClient, key: Bytes, how: How, lead: Option<Lead>) -> Looked {
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
            Found::Nothing(None)
        }
    };
    Looked { found, lead, read }
}
