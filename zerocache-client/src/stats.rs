//! Counters of clients, and the nodes that a client knows.

pub use crate::{
    client::{ClientStats, NodeStatus, TierCounts},
    counters::MemoStats,
    near::NearStats,
};
