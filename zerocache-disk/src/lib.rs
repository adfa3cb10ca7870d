//! The log of segments on which a zerocache node keeps values that memory evicts.
//!
//! Internal to the zerocache crates: there is no promise of a stable interface.
//!
//! A [`Log`] is a row of files, the segments, each of which is appended to until it is full, then sealed with a footer
//! that lists its records, and later removed as a whole. A start reads footers only. There is no index: the caller
//! keeps the [`Address`] of each value in memory, and rebuilds that from what [`Log::open`] reports. Everything is
//! synchronous; one thread writes, and any number reads through a [`Reader`].
//!
//! [`recover`], [`StoreWriter`] and [`restore`] tie a log to the store of a node: they fill the store from the log,
//! carry out its jobs, and put values back. They are what a server's threads and a simulator both call.
//!
//! # What counts after a start
//!
//! For each hash the highest version counts, and of equal ones the last in the log. An erase of a version kills all
//! values of that version and older ones, wherever they are. Expiry is in each value, and the caller judges it.
//!
//! # What the caller owes
//!
//! A value that is no longer wanted stays in its segment. It must not come back with the next start. So the caller
//! appends an erase **whenever it forgets a value that has not expired**: when it is deleted, replaced by a value that
//! is not appended, or evicted. It need not
//!
//! - if a later version is appended;
//! - if [`Judge::moved`] said that the value is gone.
//!
//! The erase, or the later version, is appended **after** the value that it kills: if a value becomes obsolete while it
//! is appended, its erase comes after that, even if there was one before. The same version of a value may be appended
//! again; then the earlier record is dead, and the same rules hold for the later one, also if it was not written.
//!
//! Then the log does the rest:
//!
//! - Segments go oldest first, so that whatever kills a value outlives it.
//! - Where a segment goes before an older one, its erases and notes are appended again, and each of its values that is
//!   not kept leaves an erase, since it may have replaced one in an older segment. They are synced before the file is
//!   removed.
//! - Only what [`Judge::judge`] keeps is copied. A dead value never is.
//!
//! # Damage
//!
//! All records and footers have checksums. An undamaged footer makes up for damaged records, and undamaged records
//! for a damaged footer. Where both are damaged, or a segment had no footer yet, erases may be lost: [`LogStats::gaps`]
//! counts such places, and the caller decides what that means.

mod active;
mod checkpoint;
mod directory;
mod error;
mod format;
mod judge;
mod log;
mod marker;
mod memory;
mod open;
mod options;
mod reader;
mod reclaim;
mod recovery;
mod scan;
mod segments;
mod store_writer;
mod system;

pub use checkpoint::Checkpoint;
pub use directory::{Directory, SegmentFile, Space};
pub use error::{OpenError, ReadError, WriteError};
pub use format::{Address, Head};
pub use judge::{Judge, Verdict};
pub use log::Log;
pub use marker::{check_directory, clear_directory, read_state};
pub use memory::{Crash, MemoryDirectory, MemoryFile};
pub use open::Recovered;
pub use options::{LogOptions, LogStats};
pub use reader::{ReadRecord, Reader};
pub use recovery::{RecoveredLog, recover, restore};
pub use store_writer::{OnError, StoreWriter};
pub use system::{SystemDirectory, SystemFile};
