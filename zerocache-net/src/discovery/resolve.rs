//! Periodic resolution of names: `--dns` and `--seed`.
//!
//! Each name has one task and at most one lookup at a time, so that a resolver that hangs holds one thread
//! per name.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::info;

use super::event_sender::{Closed, EventSender};
use super::sources::{SourceId, SourceState, Sources};
use super::{ADDRESSES_PER_NAME_MAX, HostPort, Proposal, Source};

/// After this time a lookup counts as failed; its answer is still taken when it comes.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

/// Pause before a lookup that failed is tried again, while others wait for the first answer: a resolver
/// that comes up beside this process is asked soon after.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// The outcome of a lookup.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Found(Vec<SocketAddr>),
    Failed(String),
}

/// A name with the receivers of its state and addresses.
pub(super) struct Name {
    pub(super) name: HostPort,
    pub(super) source: Source,
    pub(super) id: SourceId,
    pub(super) sources: Arc<Sources>,
    pub(super) events: EventSender,
}

/// Resolves a name until the receiver of the events is gone. A failed lookup is no first answer: it does not
/// tell whether there are nodes.
pub(super) async fn run(name: Name, interval: Duration, first_answer: mpsc::Sender<()>) {
    let mut first_answer = Some(first_answer);
    let mut last = None;
    let mut next = 0;
    loop {
        let mut lookup = pin!(tokio::net::lookup_host((name.name.host(), name.name.port())));
        let answer = match tokio::time::timeout(LOOKUP_MAX, &mut lookup).await {
            Ok(answer) => answer,
            Err(_) => {
                let outcome = Outcome::Failed(format!("no answer within {LOOKUP_MAX:?}"));
                name.note(outcome, &mut last);
                lookup.await
            }
        };
        let outcome = outcome(answer, &name.events);
        if let Outcome::Found(addresses) = &outcome {
            if propose(addresses, name.source, &name.events, &mut next).is_err() {
                return;
            }
            drop(first_answer.take());
        }
        name.note(outcome, &mut last);
        let is_awaited = first_answer.as_ref().is_some_and(|first| !first.is_closed());
        let pause = if is_awaited { RETRY_PAUSE.min(interval) } else { interval };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = name.events.closed() => return,
        }
    }
}

impl Name {
    fn note(&self, outcome: Outcome, last: &mut Option<Outcome>) {
        match &outcome {
            Outcome::Found(addresses) => {
                self.sources.resolved(self.id, addresses);
                // An address stands for itself; that it does is no news.
                let is_address = self.name.host().parse::<IpAddr>().is_ok();
                if !is_address && last.as_ref() != Some(&outcome) {
                    info!(name = %self.name, ?addresses, "name resolves");
                }
            }
            Outcome::Failed(error) => {
                self.events.counters.lookups_failed.add(1);
                self.sources.set_state(self.id, SourceState::Unresolved(error.clone()));
            }
        }
        *last = Some(outcome);
    }
}

fn outcome(answer: io::Result<impl Iterator<Item = SocketAddr>>, events: &EventSender) -> Outcome {
    match answer {
        Ok(found) => {
            // Sorted, because resolvers rotate their answers and that is no change.
            let mut addresses: Vec<_> = found.collect::<BTreeSet<_>>().into_iter().collect();
            events.counters.over_limit.add(addresses.len().saturating_sub(ADDRESSES_PER_NAME_MAX));
            addresses.truncate(ADDRESSES_PER_NAME_MAX);
            if addresses.is_empty() {
                Outcome::Failed("no addresses".to_owned())
            } else {
                Outcome::Found(addresses)
            }
        }
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// Proposes each address until the channel is full. Begins at `next`,
/// and sets it to the first address that found no room, so that all are proposed in time when there are more
/// than the channel holds.
fn propose(
    addresses: &[SocketAddr],
    source: Source,
    events: &EventSender,
    next: &mut usize,
) -> Result<(), Closed> {
    let from = *next % addresses.len().max(1);
    let (then, first) = addresses.split_at(from);
    for (offset, address) in first.iter().chain(then).enumerate() {
        let proposal =
            Proposal { addresses: vec![*address], source, region: None, incarnation: None };
        if !events.propose(proposal)? {
            *next = from + offset;
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Event, counts::Counters};
    use super::*;

    #[test]
    fn all_addresses_are_proposed_through_a_small_channel() {
        let addresses: Vec<SocketAddr> =
            (1..=10).map(|last| SocketAddr::from(([127, 0, 0, last], 1))).collect();
        let (sender, mut received) = mpsc::channel(3);
        let events = EventSender::new(sender, Arc::new(Counters::default()));
        let mut next = 0;
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            propose(&addresses, Source::Dns, &events, &mut next).unwrap();
            while let Ok(Event::Proposed(proposal)) = received.try_recv() {
                seen.extend(proposal.addresses);
            }
        }
        assert_eq!(seen.len(), addresses.len());
        // An answer that has become shorter.
        propose(&addresses[..1], Source::Dns, &events, &mut next).unwrap();
        assert!(received.try_recv().is_ok());
        drop(received);
        assert_eq!(propose(&addresses, Source::Dns, &events, &mut next), Err(Closed));
    }
}
