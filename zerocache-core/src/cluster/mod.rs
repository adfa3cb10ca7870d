//! Who is in the cluster, as one node or client sees it.

mod candidates;
mod latency;
mod pulse;
mod ranking;
mod view;

pub use self::{
    candidates::{CANDIDATES_MAX, Candidates, DIALLING_MAX},
    latency::Latency,
    pulse::{Pulse, Window},
    ranking::Ranking,
    view::{Member, Missed, Reach, View},
};
