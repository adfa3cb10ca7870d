//! Looking a key up, and waiting for another caller that computes it.
//!
//! Everything here is `Send + 'static` whatever the function is: it needs the key, not the call.

use std::pin::pin;

use bytes::Bytes;
use tokio::sync::watch;

use super::counters::count;
use super::flight::{self, Joined, Lead, Outcome};
use super::rule::Shared;
use crate::ZerocacheClient;

/// What looking found.
pub(crate) enum Looked {
    /// Bytes from the cache; who leads must say whether they decode.
    Stored(Bytes, Option<Lead>),
    /// What another caller computed meanwhile.
    Joined(Bytes),
    /// The error that another caller met meanwhile.
    Failed(Shared),
    /// Nothing: compute.
    Absent(Option<Lead>),
}

/// Reads the key, alone for all callers of it.
pub(crate) async fn look(client: ZerocacheClient, key: Bytes, blocking: bool) -> Looked {
    let group = client.memo_counters().flight_group();
    let mut bound = pin!(None);
    loop {
        let mut outcome = match flight::join(group, &key, blocking) {
            Joined::Lead(lead) => return read(&client, key, Some(lead)).await,
            Joined::Alone => return read(&client, key, None).await,
            Joined::Wait(outcome) => outcome,
        };
        if bound.is_none() {
            // One bound for all leaders after each other.
            bound.set(Some(client.sleep(client.memo_counters().flight_wait())));
        }
        let waited = tokio::select! {
            biased;
            waited = published(&mut outcome) => waited,
            // The precondition holds: it was set above.
            () = async { if let Some(bound) = bound.as_mut().as_pin_mut() { bound.await } } => {
                count(&client.memo_counters().wait_timeouts);
                return Looked::Absent(None);
            }
        };
        match waited {
            Some(Outcome::Value(bytes)) => return Looked::Joined(bytes),
            Some(Outcome::Failed(error)) => return Looked::Failed(error),
            Some(Outcome::Nothing) => return Looked::Absent(None),
            // The leader is gone without a word; perhaps it is our turn.
            None => {}
        }
    }
}

async fn published(outcome: &mut watch::Receiver<Option<Outcome>>) -> Option<Outcome> {
    let value = outcome.wait_for(Option::is_some).await.ok()?;
    value.clone()
}

async fn read(client: &ZerocacheClient, key: Bytes, lead: Option<Lead>) -> Looked {
    match client.raw_get(key).near().await {
        Ok(Some(bytes)) => Looked::Stored(bytes, lead),
        Ok(None) => Looked::Absent(lead),
        Err(error) => {
            count(&client.memo_counters().read_errors);
            tracing::debug!(%error, "reading a memoized value failed");
            Looked::Absent(lead)
        }
    }
}
