//! Names that are resolved again and again: `--dns` and `--seed`.
//!
//! One task per name and at most one lookup of it at a time, so that a resolver that hangs holds one
//! thread per name and no more.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::outlet::{Closed, Outlet};
use super::{ADDRESSES_PER_NAME_MAX, NameAndPort, Proposal, Source};

/// After this time a lookup counts as failed; its answer is still taken when it comes.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

/// What the last lookup said, so that only changes are logged.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Found(Vec<SocketAddr>),
    Failed(String),
}

pub(super) async fn run(
    name: NameAndPort,
    source: Source,
    interval: Duration,
    outlet: Outlet,
    first_answer: mpsc::Sender<()>,
) {
    let mut first_answer = Some(first_answer);
    let mut last = None;
    let mut turn = 0;
    loop {
        let mut lookup = pin!(tokio::net::lookup_host((name.host(), name.port())));
        let answer = match tokio::time::timeout(LOOKUP_MAX, &mut lookup).await {
            Ok(answer) => answer,
            Err(_) => {
                drop(first_answer.take());
                let outcome = Outcome::Failed(format!("no answer within {LOOKUP_MAX:?}"));
                note(&name, outcome, &mut last, &outlet);
                lookup.await
            }
        };
        let outcome = outcome(answer, &outlet);
        if let Outcome::Found(addresses) = &outcome
            && propose(addresses, source, &outlet, &mut turn).is_err()
        {
            return;
        }
        note(&name, outcome, &mut last, &outlet);
        drop(first_answer.take());
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = outlet.closed() => return,
        }
    }
}

fn outcome(answer: io::Result<impl Iterator<Item = SocketAddr>>, outlet: &Outlet) -> Outcome {
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
    outlet: &Outlet,
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

fn note(name: &NameAndPort, outcome: Outcome, last: &mut Option<Outcome>, outlet: &Outlet) {
    if matches!(outcome, Outcome::Failed(_)) {
        outlet.counters.lookups_failed.add(1);
    }
    if last.as_ref() == Some(&outcome) {
        return;
    }
    match &outcome {
        // An address stands for itself; that it does is no news, and says nothing of a node there.
        Outcome::Found(_) if name.host().parse::<IpAddr>().is_ok() => {}
        Outcome::Found(addresses) => info!(%name, ?addresses, "name resolves"),
        Outcome::Failed(error) => warn!(%name, error, "name does not resolve; tried again"),
    }
    *last = Some(outcome);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::super::{Event, counts::Counters};
    use super::*;

    #[test]
    fn each_address_has_its_turn_in_a_small_channel() {
        let addresses: Vec<SocketAddr> =
            (1..=10).map(|last| SocketAddr::from(([127, 0, 0, last], 1))).collect();
        let (sender, mut events) = mpsc::channel(3);
        let outlet = Outlet::new(sender, Arc::new(Counters::default()));
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
