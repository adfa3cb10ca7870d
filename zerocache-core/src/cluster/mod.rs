//! Who is in the cluster, as one node or client sees it.

mod candidates;
mod latency;
mod ranking;
mod view;

pub use self::{
    candidates::{CANDIDATES_MAX, Candidates, DIALLING_MAX},
    latency::Latency,
    ranking::Ranking,
    view::{Member, Missed, Reach, View},
};
