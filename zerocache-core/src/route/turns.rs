//! The first requests of operations that are not driven by `client` yet.

use super::{Directory, Plan, RotationTicket, Step};
use crate::{time::Instant, version::Incarnation};

/// The place in the rotation of an operation that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    ticket: RotationTicket,
    first: Option<Incarnation>,
    is_oldest: bool,
}

impl Turn {
    /// The same place, with another node to be asked before all others.
    #[must_use]
    pub const fn with_first(self, first: Option<Incarnation>) -> Self {
        Self { first, ..self }
    }
}

impl Directory {
    /// The first node to ask for the next read.
    pub fn begin_read(&mut self, now: Instant, first: Option<Incarnation>) -> Option<(Step, Turn)> {
        self.begin(now, first, (false, true))
    }

    /// The first node to ask for the next write.
    pub fn begin_write(&mut self, now: Instant, expect_soon: bool) -> Option<(Step, Turn)> {
        self.begin(now, None, (true, expect_soon))
    }

    fn begin(
        &mut self,
        now: Instant,
        first: Option<Incarnation>,
        (is_write, expect_soon): (bool, bool),
    ) -> Option<(Step, Turn)> {
        let next = RotationTicket::next(self, is_write);
        let step = self.first_step(next, first, now)?;
        let ticket = self.take_ticket(is_write);
        let is_oldest = expect_soon && self.request_sent(step.node, now);
        Some((step, Turn { ticket, first, is_oldest }))
    }

    /// A place in the rotation for many keys.
    pub fn take_turn(&mut self, is_write: bool) -> Turn {
        Turn { ticket: self.take_ticket(is_write), first: None, is_oldest: false }
    }

    /// The plan of an operation that began.
    #[must_use]
    pub fn go_on(&self, began: Turn, now: Instant) -> Plan {
        self.plan(began.ticket, began.first, now)
    }

    /// The plan of the next read.
    pub fn plan_read(&mut self, now: Instant, first: Option<Incarnation>) -> Plan {
        let ticket = self.take_ticket(false);
        self.plan(ticket, first, now)
    }

    /// The plan of the next write.
    pub fn plan_write(&mut self, now: Instant) -> Plan {
        let ticket = self.take_ticket(true);
        self.plan(ticket, None, now)
    }

    /// Nobody waits for the answer to the first request, or it was not sent.
    pub fn given_up(&mut self, node: Incarnation, began: Turn, now: Instant) {
        if began.is_oldest {
            self.answer_abandoned(node, now);
        }
    }

    /// The first request was not sent.
    pub fn not_sent(&mut self, node: Incarnation, began: Turn, now: Instant) {
        RotationTicket::give_back(self, began.ticket);
        self.given_up(node, began, now);
    }
}
