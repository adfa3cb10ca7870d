//! Exit codes. `--json` carries the same as `exit`.

use serde_json::Value as Json;

use crate::{failure::Failure, print_line};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Exit(pub(crate) u8);

impl Exit {
    /// It did what was asked.
    pub(crate) const DONE: Self = Self(0);
    /// Something failed, is not there, or nothing was done.
    pub(crate) const NOTHING: Self = Self(1);
    /// The command line or the configuration is wrong.
    pub(crate) const USAGE: Self = Self(2);
    /// No node is reachable.
    pub(crate) const UNREACHABLE: Self = Self(3);
    /// A node denies it.
    pub(crate) const DENIED: Self = Self(4);
    /// A write was sent and no answer came: it may have been done.
    pub(crate) const UNKNOWN: Self = Self(5);
    /// The answer is bad news.
    pub(crate) const BAD_NEWS: Self = Self(6);
    /// The answer has warnings only.
    pub(crate) const WARNINGS: Self = Self(7);
}

/// Prints the one document of a command, with its exit code in it.
pub(crate) fn print_document(mut document: Json, exit: Exit) -> Result<Exit, Failure> {
    document["exit"] = exit.0.into();
    print_line(&document.to_string())?;
    Ok(exit)
}
