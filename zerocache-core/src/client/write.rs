//! Writes of a key: when another node may be asked, and what the client remembers of them.

use alloc::string::String;

use super::{AttemptResult, ClientState, KeyRules, OwnWrite, read::is_invalid, rules::Verdict};
use crate::{
    access::Denial,
    call::{CallFailure, CallResult},
    key::KeyHash,
    route::Step,
    time::Instant,
    version::Incarnation,
    wire::{Ack, RefusalCode, Response, Status, Written, value_too_large},
};

/// The outcome of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// A node answered.
    Written(Written),
    /// A node may have received the write, and did not answer.
    Unknown,
    /// Every node that could be asked refused, for a reason that may pass.
    Refused,
    /// The value is larger than the node accepts.
    TooLarge {
        /// The refusal, for people.
        text: String,
        /// Whether the value was sent to find that out.
        is_sent: bool,
    },
    /// Nodes do not accept the key or the request, for this reason.
    Invalid(String),
    /// The caller may not do this, and a node says why.
    Denied(Denial, String),
    /// No node could be reached.
    Unreachable,
}

/// The rules of a write of one key.
#[derive(Clone, Copy, Debug)]
pub struct WriteRules {
    key: KeyHash,
    /// The bytes of the value; none for a delete.
    value_bytes: Option<u64>,
    ack: Ack,
    is_refused: bool,
}

impl WriteRules {
    /// A put of a value of `value_bytes` for `key`, or a delete where there is none.
    #[must_use]
    pub fn new(key: &[u8], value_bytes: Option<u64>, ack: Ack) -> Self {
        Self { key: KeyHash::of(key), value_bytes, ack, is_refused: false }
    }
}

impl KeyRules for WriteRules {
    type Output = WriteResult;
    const IS_WRITE: bool = true;

    fn key(&self) -> KeyHash {
        self.key
    }

    fn preferred(&mut self, _: &ClientState, _: Instant) -> Option<Incarnation> {
        None
    }

    /// Waiting for replicas is no sign of a silent node, and may take all the time that there is.
    fn expects_soon(&self) -> bool {
        self.ack == Ack::Local
    }

    fn refused_unsent(&self, step: &Step) -> Option<WriteResult> {
        let bytes = self.value_bytes.filter(|bytes| *bytes > step.value_bytes_max)?;
        let text = value_too_large(bytes, step.value_bytes_max);
        Some(WriteResult::TooLarge { text, is_sent: false })
    }

    fn judge(
        &mut self,
        state: &mut ClientState,
        step: &Step,
        result: CallResult,
        now: Instant,
    ) -> (Verdict<WriteResult>, AttemptResult) {
        match result {
            Ok(Response::Written(written)) => {
                let is_delete = self.value_bytes.is_none();
                let (node, version) = (step.node, written.version);
                // A value that a purge ended is nowhere: what the client wrote before it still counts.
                if version.is_some() || written.status != Status::Superseded {
                    state.record_own_write(self.key, OwnWrite { node, version, is_delete }, now);
                }
                if let Some(version) = version {
                    state.note_seen(version);
                }
                (Verdict::Complete(WriteResult::Written(written)), AttemptResult::Answered)
            }
            Ok(Response::Refused(refusal)) => {
                let text = refusal.text.clone();
                let verdict = match refusal.code {
                    RefusalCode::TooLarge => {
                        let (bytes, max) = (self.value_bytes.unwrap_or(0), refusal.value_bytes_max);
                        state.directory_mut().record_value_limit(step.node, bytes, max, now);
                        Verdict::Complete(WriteResult::TooLarge { text, is_sent: true })
                    }
                    code if is_invalid(code) => Verdict::Complete(WriteResult::Invalid(text)),
                    code => match Denial::from_refusal_code(code) {
                        Some(denial) => Verdict::Complete(WriteResult::Denied(denial, text)),
                        None => {
                            self.is_refused = true;
                            Verdict::Continue
                        }
                    },
                };
                (verdict, AttemptResult::Refused(refusal.text))
            }
            // An answer that does not fit was not written by it.
            Ok(_) => {
                self.is_refused = true;
                (Verdict::Continue, AttemptResult::NotReached)
            }
            Err(
                CallFailure::Refused
                | CallFailure::NotSent
                | CallFailure::Unverified
                | CallFailure::OtherHost,
            ) => (Verdict::Continue, AttemptResult::NotReached),
            // It may have arrived: another node would make two writes of one.
            Err(CallFailure::NoAnswer) => {
                (Verdict::Complete(WriteResult::Unknown), AttemptResult::NoAnswer)
            }
        }
    }

    fn accept_miss(&self, _: &Step) -> Option<WriteResult> {
        None
    }

    fn exhausted(&self) -> WriteResult {
        if self.is_refused { WriteResult::Refused } else { WriteResult::Unreachable }
    }
}
