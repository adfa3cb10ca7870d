//! What the caller decides when a segment is removed.

use zerocache_core::{
    key::KeyHash,
    store::{Backend, DiskVerdict, Store},
    time::Now,
    version::Version,
};

use crate::format::{Address, Head};

/// What becomes of a record whose segment is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is wanted: it is appended again.
    Keep,
    /// It is wanted, however little room there is for copies, and has to survive a power failure.
    KeepDurably,
    /// It is not wanted.
    Drop,
    /// The caller has the same version of the value at another address.
    Duplicate,
}

/// Decides what is kept of a segment that is removed.
pub trait Judge {
    /// Judges a value. Dead ones are asked for too: a value that was deleted or replaced must not be kept.
    fn judge(&mut self, head: &Head<'_>, address: Address) -> Verdict;

    /// Reports what became of a value, wanted or not: its new address, or `None` if it is gone.
    fn moved(&mut self, head: &Head<'_>, old: Address, new: Option<Address>);

    /// Judges a note of the oldest segment.
    fn judge_note(&mut self, content: &[u8]) -> Verdict;

    /// Judges an erase of the oldest segment. The log has no use for it any more.
    fn judge_erase(&mut self, _hash: KeyHash, _version: Version) -> Verdict {
        Verdict::Drop
    }
}

/// Wants nothing.
pub(crate) struct DropAll;

impl Judge for DropAll {
    fn judge(&mut self, _head: &Head<'_>, _address: Address) -> Verdict {
        Verdict::Drop
    }

    fn moved(&mut self, _head: &Head<'_>, _old: Address, _new: Option<Address>) {}

    fn judge_note(&mut self, _content: &[u8]) -> Verdict {
        Verdict::Drop
    }
}

/// Judges records by what the store has of them.
pub(crate) struct StoreJudge<'a, B: Backend> {
    pub(crate) store: &'a Store<B>,
    pub(crate) now: Now,
}

impl<B: Backend> Judge for StoreJudge<'_, B> {
    fn judge(&mut self, head: &Head<'_>, address: Address) -> Verdict {
        if head.expires_ms <= self.now.wall_ms {
            return Verdict::Drop;
        }
        match self.store.disk_verdict(head.hash, head.version, address.encode()) {
            DiskVerdict::Keep => Verdict::Keep,
            DiskVerdict::KeepDurably => Verdict::KeepDurably,
            DiskVerdict::Drop => Verdict::Drop,
            DiskVerdict::Duplicate => Verdict::Duplicate,
        }
    }

    fn moved(&mut self, head: &Head<'_>, old: Address, new: Option<Address>) {
        let new = new.map(Address::encode);
        self.store.moved_on_disk((head.hash, head.version), old.encode(), new);
    }

    fn judge_note(&mut self, _content: &[u8]) -> Verdict {
        Verdict::Drop
    }
}
