//! How far a running call has come.

use std::time::Duration;

use bytes::Bytes;
use zerocache_core::metadata::Freshness;
use zerocache_core::version::{Incarnation, Version};
use zerocache_net::clock;

use super::flight::{Aside, Lead, Void};
use super::lease::{Leased, Token};
use super::look::Looked;
use super::operation::BoxFuture;
use super::rule::Policy;
use super::stored::{Base, Stored};
use super::writing::Outcome;

/// What is large stands behind a pointer: a call is moved about, and most never come so far.
pub(super) enum Stage<T> {
    Start,
    Looking(BoxFuture<Looked>),
    /// Asks for leave to compute.
    Leasing {
        asking: BoxFuture<(Leased, Option<Incarnation>)>,
        computation: Option<Box<Computation>>,
    },
    Computing(Box<Computation>),
    Storing(Box<Storing<T>>),
    Done,
}

impl<T> Stage<T> {
    /// What is to be computed, or is.
    pub(super) fn computation(&self) -> Option<&Computation> {
        match self {
            Self::Leasing { computation, .. } => computation.as_deref(),
            Self::Computing(computation) => Some(computation),
            Self::Start | Self::Looking(_) | Self::Storing(_) | Self::Done => None,
        }
    }
}

/// The next stage, or the call's value.
pub(super) enum Step<T> {
    Next(Stage<T>),
    Value(T),
}

/// What a call holds while its value is written.
pub(super) struct Storing<T> {
    pub(super) put: BoxFuture<Outcome>,
    pub(super) value: Option<T>,
    /// Under which key.
    pub(super) key: Bytes,
    /// When that began, on the process's clock.
    pub(super) at: Duration,
}

/// What a call holds while its function runs.
#[derive(Default)]
pub(super) struct Computation {
    /// The right to publish; none for who computes beside others.
    pub(super) lead: Option<Lead>,
    /// For who computes beside others: their place, from the moment at which that begins.
    pub(super) aside: Option<Aside>,
    /// What may be served instead where computing fails.
    pub(super) old: Option<Stored>,
    /// The entry beside which the value is to be stored; none where it is to be the base entry itself.
    pub(super) base: Option<Box<Base>>,
    /// The version of what is stored under the value's key and cannot be used.
    pub(super) over: Option<Version>,
    /// None where leave was not asked for.
    pub(super) asked: Option<Asked>,
    /// Leave, where the function asks for it.
    pub(super) token: Option<Token>,
    /// Set at the first poll of the function.
    pub(super) begun: Option<Begun>,
}

/// The question for leave, which may be asked again.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) times: u8,
    /// When it was asked first, on the process's clock.
    pub(super) at: Duration,
    /// Until when others are waited for who have leave.
    pub(super) until: Duration,
}

pub(super) struct Begun {
    pub(super) span: tracing::Span,
    pub(super) at: Duration,
}

impl Computation {
    pub(super) fn new(lead: Option<Lead>, old: Option<Stored>) -> Box<Self> {
        Box::new(Computation { lead, old, ..Computation::default() })
    }

    /// Beside an entry that stays and that the function cannot read, or else in its place.
    pub(super) fn beside(mut self: Box<Self>, base: Option<Box<Base>>) -> Box<Self> {
        self.base = base.filter(|base| base.stays(clock::mono()));
        self.over = self.base.as_ref().and_then(|base| base.over);
        self
    }

    /// Under which key the value is to be stored, of a call with this key.
    pub(super) fn key<'a>(&'a self, of: &'a Bytes) -> &'a Bytes {
        self.base.as_ref().map_or(of, |base| &base.key)
    }

    /// Whether the key was deleted or replaced since this began.
    pub(super) fn void(&self) -> Void {
        let void = self.lead.as_ref().map(Lead::void).or(self.aside.as_ref().map(Aside::void));
        void.cloned().unwrap_or_default()
    }

    /// The others are served an old value meanwhile, and so can this call's caller be.
    pub(super) fn is_refresh(&self) -> bool {
        self.lead.is_some() && self.old.as_ref().is_some_and(|old| old.serves(clock::mono()))
    }

    /// What is computed anew although it is not past its time.
    pub(super) fn fresh(&self) -> Option<&Stored> {
        self.old.as_ref().filter(|old| old.freshness(clock::mono()) == Freshness::Fresh)
    }

    /// What may be served instead of what is computed; none where that has begun.
    pub(super) fn old_value<T>(&self, policy: &Policy<T>) -> Option<T> {
        if self.begun.is_some() || !self.is_refresh() {
            return None;
        }
        self.old.as_ref()?.form.decode(policy).ok()
    }

    pub(super) fn begin(&mut self, function: &'static str) -> &Begun {
        self.begun.get_or_insert_with(|| Begun {
            span: tracing::debug_span!("zerocache_compute", function),
            at: clock::elapsed(),
        })
    }
}
