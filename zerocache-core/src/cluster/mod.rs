//! Who is in the cluster, as one node or client sees it.

mod latency;
mod ranking;
mod view;

pub use self::{
    latency::Latency,
    ranking::Ranking,
    view::{Member, Reach, View},
};
