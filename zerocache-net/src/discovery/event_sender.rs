//! The channel from the sources to the receiver: bounded, and without waiting.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::counts::Counters;
use super::{Event, Proposal};

/// The receiver was dropped: the task ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// Sends the events of discovery.
#[derive(Debug, Clone)]
pub(super) struct EventSender {
    events: mpsc::Sender<Event>,
    pub(super) counters: Arc<Counters>,
}

impl EventSender {
    pub(super) fn new(events: mpsc::Sender<Event>, counters: Arc<Counters>) -> Self {
        Self { events, counters }
    }

    /// Proposes addresses. Returns whether there was room.
    pub(super) fn propose(&self, proposal: Proposal) -> Result<bool, Closed> {
        let sent = self.offer(Event::Proposed(proposal))?;
        if sent {
            self.counters.proposed.add(1);
        }
        Ok(sent)
    }

    #[cfg(feature = "mdns")]
    pub(super) fn withdraw(&self, proposal: Proposal) -> Result<(), Closed> {
        self.offer(Event::Withdrawn(proposal)).map(drop)
    }

    /// Sends [`Event::Complete`]. Waits for room, because the event is sent once and must not be lost.
    pub(super) async fn complete(&self) {
        let _ = self.events.send(Event::Complete).await;
    }

    /// Returns when the receiver was dropped.
    pub(super) async fn closed(&self) {
        self.events.closed().await;
    }

    fn offer(&self, event: Event) -> Result<bool, Closed> {
        match self.events.try_send(event) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.counters.dropped.add(1);
                Ok(false)
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Closed),
        }
    }
}
