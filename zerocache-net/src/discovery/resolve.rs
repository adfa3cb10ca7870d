//! Names that are resolved again and again: `--dns` and `--seed`.
//!
//! One task per name and at most one lookup of it at a time, so that a resolver that hangs holds one
//! thread per name and no more.

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

/// What the last lookup said.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Found(Vec<SocketAddr>),
    Failed(String),
}

/// A name, and who is told what became of it.
pub(super) struct Name {
    pub(super) name: HostPort,
    pub(super) source: Source,
    pub(super) id: SourceId,
    pub(super) sources: Arc<Sources>,
    pub(super) outlet: EventSender,
}

/// Resolves a name until the receiver of the events is gone. A lookup that failed is no first answer:
/// of what stands there it says nothing.
pub(super) async fn run(name: Name, interval: Duration, first_answer: mpsc::Sender<()>) {
    let mut first_answer = Some(first_answer);
    let mut last = None;
    let mut turn = 0;
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
        let outcome = outcome(answer, &name.outlet);
        if let Outcome::Found(addresses) = &outcome {
            if propose(addresses, name.source, &name.outlet, &mut turn).is_err() {
                return;
            }
            drop(first_answer.take());
        }
        name.note(outcome, &mut last);
        let is_awaited = first_answer.as_ref().is_some_and(|first| !first.is_closed());
        let pause = if is_awaited { RETRY_PAUSE.min(interval) } else { interval };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = name.outlet.closed() => return,
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
                self.outlet.counters.lookups_failed.add(1);
                self.sources.say(self.id, SourceState::Unresolved(error.clone()));
            }
        }
        *last = Some(outcome);
    }
}

fn outcome(answer: io::Result<impl Iterator<Item = SocketAddr>>, outlet: &EventSender) -> Outcome {
    match answer {
        Ok(found) => {
            // Sorted, because resolvers rotate their answers and that is no change.
            let mut addresses: Vec<_> = found.collect::<BTreeSet<_>>().into_iter().collect();
            outlet.counters.over_limit.add(addresses.len().saturating_sub(ADDRESSES_PER_NAME_MAX));
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

/// Proposes each address until the channel is full. `turn` is where to begin, and is left at the
/// first that found no room, so that each has its turn when there are more than the channel holds.
fn propose(
    addresses: &[SocketAddr],
    source: Source,
    outlet: &EventSender,
    turn: &mut usize,
) -> Result<(), Closed> {
    let from = *turn % addresses.len().max(1);
    let (then, first) = addresses.split_at(from);
    for (offset, address) in first.iter().chain(then).enumerate() {
        let proposal =
            Proposal { addresses: vec![*address], source, region: None, incarnation: None };
        if !outlet.propose(proposal)? {
            *turn = from + offset;
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
    fn each_address_has_its_turn_in_a_small_channel() {
        let addresses: Vec<SocketAddr> =
            (1..=10).map(|last| SocketAddr::from(([127, 0, 0, last], 1))).collect();
        let (sender, mut events) = mpsc::channel(3);
        let outlet = EventSender::new(sender, Arc::new(Counters::default()));
        let mut turn = 0;
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            propose(&addresses, Source::Dns, &outlet, &mut turn).unwrap();
            while let Ok(Event::Proposed(proposal)) = events.try_recv() {
                seen.extend(proposal.addresses);
            }
        }
        assert_eq!(seen.len(), addresses.len());
        // An answer that has become shorter.
        propose(&addresses[..1], Source::Dns, &outlet, &mut turn).unwrap();
        assert!(events.try_recv().is_ok());
        drop(events);
        assert_eq!(propose(&addresses, Source::Dns, &outlet, &mut turn), Err(Closed));
    }
}
