//! Reports of single operations: the nodes that were asked, their answers, and the time that passed.
//!
//! [`Get::explain`](crate::ops::Get::explain) gives the report of a read,
//! [`Call::explain`](crate::memo::Call::explain) that of a memoized call.

pub use crate::{
    client::{AttemptOutcome, ExplainedGet, ReadAttempt, ReadOutcome, ReadReport, ReportedNode},
    memo::report::{CallOutcome, CallReport, CallWrite, LeaseOutcome, Mismatch, ShapeEntryOutcome},
};
