//! Reads of a key: which answers are taken.

use alloc::string::String;

use bytes::Bytes;

use super::{AttemptResult, ClientState, KeyRules, OwnWrite, rules::Verdict};
use crate::{
    access::Denial,
    call::{CallFailure, CallResult},
    key::KeyHash,
    route::Step,
    time::Instant,
    version::{Incarnation, Version},
    wire::{RefusalCode, Response},
};

/// The answers that a caller takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Values past their fresh time too.
    pub stale: bool,
    /// No value older than this.
    pub at_least: Option<Version>,
}

/// A value as a node sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundItem {
    /// The value, packed as its metadata say.
    pub value: Bytes,
    /// The encoded metadata.
    pub metadata: Bytes,
    /// The version of the write that it comes from.
    pub version: Version,
    /// The time until it expires, in milliseconds.
    pub remaining_ms: u64,
}

/// The outcome of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadResult {
    /// A node has a value that is new enough. Whether it can be decoded, and is fresh enough, is left to the
    /// driver: the read is over in any case.
    Found(Step, FoundItem),
    /// There is no value that the read takes.
    Miss {
        /// The highest stamp of a version of the key that nodes had; 0 if they named none.
        known: u64,
        /// Whether none of them could tell that there is no value.
        is_doubtful: bool,
    },
    /// Nodes do not accept the key, for this reason.
    Refused(String),
    /// The caller may not do this, and a node says why.
    Denied(Denial, String),
    /// No node answered.
    Unreachable {
        /// Whether a node may have received the request.
        timed_out: bool,
    },
}

/// The rules of a read of one key.
#[derive(Clone, Copy, Debug)]
pub struct ReadRules {
    key: KeyHash,
    at_least: Option<Version>,
    /// The client's own last write of the key, if it was a moment ago.
    own: Option<OwnWrite>,
    /// The highest stamp of a version that a node named.
    known: u64,
    is_missed: bool,
    is_timed_out: bool,
}

impl ReadRules {
    /// A read of `key`, a valid key.
    #[must_use]
    pub fn new(key: &[u8], options: &ReadOptions) -> Self {
        let (key, at_least) = (KeyHash::of(key), options.at_least);
        Self { key, at_least, own: None, known: 0, is_missed: false, is_timed_out: false }
    }

    /// Whether a value of this version is new enough.
    fn takes(&self, version: Version) -> bool {
        let own = self.own.and_then(|own| own.version);
        self.at_least.max(own).is_none_or(|least| version >= least)
    }
}

impl KeyRules for ReadRules {
    type Output = ReadResult;
    const IS_WRITE: bool = false;

    fn key(&self) -> KeyHash {
        self.key
    }

    /// The node that gave the version which is asked for, or the one that accepted the client's last write.
    fn preferred(&mut self, state: &ClientState, now: Instant) -> Option<Incarnation> {
        self.own = state.own_write(self.key, now);
        let given = self.at_least.map(|version| version.incarnation());
        given.or_else(|| self.own.map(|own| own.node))
    }

    fn expects_soon(&self) -> bool {
        true
    }

    fn refused_unsent(&self, _: &Step) -> Option<ReadResult> {
        None
    }

    fn judge(
        &mut self,
        state: &mut ClientState,
        step: &Step,
        result: CallResult,
        now: Instant,
    ) -> (Verdict<ReadResult>, AttemptResult) {
        match result {
            Ok(Response::Found { value, metadata, version, remaining_ms }) => {
                state.note_seen(version);
                if !self.takes(version) {
                    self.is_missed = true;
                    self.known = self.known.max(version.stamp());
                    return (Verdict::Continue, AttemptResult::Older);
                }
                state.directory_mut().record_hit(step.node, self.key, now);
                let found = FoundItem { value, metadata, version, remaining_ms };
                (Verdict::Complete(ReadResult::Found(*step, found)), AttemptResult::Answered)
            }
            Ok(Response::NotFound { warming, known }) => {
                self.is_missed = true;
                self.known = self.known.max(known);
                // A write after this is later, whichever node accepts it.
                state.note_seen_stamp(known);
                // The walk may say otherwise.
                (Verdict::Missed { warming }, AttemptResult::NotFound { is_authoritative: false })
            }
            Ok(Response::Refused(refusal)) => {
                let text = refusal.text.clone();
                let verdict = match Denial::from_refusal_code(refusal.code) {
                    Some(denial) => Verdict::Complete(ReadResult::Denied(denial, text)),
                    None if is_invalid(refusal.code) => {
                        Verdict::Complete(ReadResult::Refused(text))
                    }
                    None => Verdict::Continue,
                };
                (verdict, AttemptResult::Refused(refusal.text))
            }
            Err(CallFailure::NoAnswer) => {
                self.is_timed_out = true;
                (Verdict::Continue, AttemptResult::NoAnswer)
            }
            Ok(_) | Err(_) => (Verdict::Continue, AttemptResult::NotReached),
        }
    }

    /// A node that lacks the version asked for may not have received it yet, unless it gave the version
    /// itself. The same holds for the client's own last write, unless that is a delete.
    fn accept_miss(&self, step: &Step) -> Option<ReadResult> {
        let has_version = self.at_least.is_none_or(|least| least.incarnation() == step.node);
        let has_own = self.own.is_none_or(|own| own.is_delete || own.node == step.node);
        (has_version && has_own)
            .then_some(ReadResult::Miss { known: self.known, is_doubtful: false })
    }

    fn exhausted(&self) -> ReadResult {
        if self.is_missed {
            return ReadResult::Miss { known: self.known, is_doubtful: true };
        }
        ReadResult::Unreachable { timed_out: self.is_timed_out }
    }
}

/// Whether a refusal is about the request itself, so that every node would refuse it.
pub(super) const fn is_invalid(code: RefusalCode) -> bool {
    matches!(code, RefusalCode::BadKey | RefusalCode::TooLarge | RefusalCode::BadMessage)
}
