//! The errors of a log.

use std::{io, path::PathBuf};

/// The reason why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory has the log of another cluster.
    #[error(
        "the directory belongs to the cluster {found:?}, not to {expected:?}; use an empty one"
    )]
    OtherCluster {
        /// The cluster that the directory names.
        found: String,
        /// The cluster of the caller.
        expected: String,
    },
    /// A later release wrote the directory.
    #[error(
        "the directory has format {found}, of a later release; this release reads up to {supported}"
    )]
    LaterFormat {
        /// The format of the directory.
        found: u32,
        /// The latest format that is known.
        supported: u32,
    },
    /// The file that describes the directory is damaged, or there are segments without it.
    #[error("the file `format` is missing or damaged beside segments; use an empty directory")]
    Unmarked,
    /// Another process has opened the directory.
    #[error("another process uses the directory {}", .0.display())]
    InUse(PathBuf),
    /// The path is not a directory.
    #[error("{} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// The directory cannot be created or written.
    #[error("cannot write to the directory {}", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The budget has no room for segments of the chosen size.
    #[error("a budget of {bytes_max} bytes is too small; at least {bytes_min} are needed")]
    Budget {
        /// The budget.
        bytes_max: u64,
        /// The least that is allowed.
        bytes_min: u64,
    },
    /// The directory cannot be read.
    #[error("cannot read the directory")]
    Io(#[from] io::Error),
}

/// The reason why something cannot be written.
///
/// After [`Io`](Self::Io) from any method, a value that was appended since the last flush is in the log only if
/// [`Log::has`](crate::Log::has) says so. Erases and notes stay pending: the next flush writes them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no room: [`make_room`](crate::Log::make_room) first, or the file system is too full for that too.
    #[error("no room for {bytes} bytes on the disk")]
    Full {
        /// What was to be written.
        bytes: u64,
    },
    /// The record is larger than any that the log takes.
    #[error("a record of {bytes} bytes is too large; at most {bytes_max} are allowed")]
    TooLarge {
        /// The bytes of the record.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The file system refused.
    #[error("cannot write to the disk")]
    Io(#[from] io::Error),
}

impl WriteError {
    /// Whether room is what is missing, in the budget or on the file system.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::TooLarge { .. } => false,
            Self::Io(error) => {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
        }
    }
}

/// The reason why a value cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The segment was removed.
    #[error("the segment was removed")]
    Gone,
    /// The bytes are damaged, or are not those of the value that was asked for.
    #[error("the record is damaged")]
    Corrupt,
    /// The file system refused.
    #[error("cannot read the disk")]
    Io(#[from] io::Error),
}
