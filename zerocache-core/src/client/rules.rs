//! The rules for one key, alone or among many.

use super::{AttemptReport, AttemptResult, ClientState};
use crate::{
    call::CallResult,
    key::KeyHash,
    route::{Step, Walk},
    time::Instant,
    version::Incarnation,
};

/// The rules of a read or write of one key: the node that it prefers, and the meaning of each answer.
pub trait KeyRules {
    /// The outcome for the key.
    type Output;
    /// Whether it writes.
    const IS_WRITE: bool;

    /// The hash of the key.
    fn key(&self) -> KeyHash;

    /// The node to ask before all others. Called once, when the key is planned.
    fn preferred(&mut self, state: &ClientState, now: Instant) -> Option<Incarnation>;

    /// Whether a node that says nothing for a while is silent, and not waiting for others.
    fn expects_soon(&self) -> bool;

    /// The outcome without a request, where the node is known to refuse.
    fn refused_unsent(&self, step: &Step) -> Option<Self::Output>;

    /// The meaning of an answer.
    fn judge(
        &mut self,
        state: &mut ClientState,
        step: &Step,
        result: CallResult,
        now: Instant,
    ) -> (Verdict<Self::Output>, AttemptResult);

    /// The outcome of an authoritative miss of the node of `step`; none where that node may lack a write
    /// that the operation is to see.
    fn accept_miss(&self, step: &Step) -> Option<Self::Output>;

    /// The outcome when no node is left to ask.
    fn exhausted(&self) -> Self::Output;
}

/// The meaning of an answer for one key.
#[derive(Debug)]
pub enum Verdict<T> {
    /// The operation is over for this key.
    Complete(T),
    /// The node has no value. The walk decides whether the miss is authoritative.
    Missed {
        /// Whether the node does not have everything yet.
        warming: bool,
    },
    /// The next node is asked.
    Continue,
}

impl<T> Verdict<T> {
    /// Ends the attempt at `step`: the outcome for the key, if the answer is one, and the report. A miss
    /// needs the `walk` of the key.
    pub(super) fn conclude(
        self,
        rules: &impl KeyRules<Output = T>,
        walk: Option<&mut Walk>,
        step: Step,
        result: AttemptResult,
    ) -> (Option<T>, AttemptReport) {
        let (output, result) = match self {
            Self::Complete(output) => (Some(output), result),
            Self::Continue => (None, result),
            Self::Missed { warming } => {
                let is_authoritative = walk.is_some_and(|walk| walk.missed(&step, warming));
                let output = rules.accept_miss(&step).filter(|_| is_authoritative);
                let is_authoritative = output.is_some();
                (output, AttemptResult::NotFound { is_authoritative })
            }
        };
        let is_error = result.is_error(output.is_some());
        (output, AttemptReport { step, result, is_error, is_hedge_win: false })
    }
}
