//! Counters that the client and memoization share.

mod memo;
mod striped;

pub use self::memo::MemoStats;
pub(crate) use self::{
    memo::{FLIGHT_WAIT_DEFAULT, MemoCounters, count},
    striped::Striped,
};
