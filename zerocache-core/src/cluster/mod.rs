//! Who is in the cluster, as one node or client sees it.

mod candidates;
mod contacts;
mod gossip;
mod latency;
mod pulse;
mod ranking;
mod rows;
mod view;

pub use self::{
    candidates::{Candidates, Teller},
    contacts::{CONTACTS_PER_REGION, Standing, choose},
    gossip::{FORGET_MS, Gossip, Heard, RENEW_EVERY_MS, ROWS_MAX},
    latency::Latency,
    pulse::{Pulse, Window},
    ranking::Ranking,
    view::{Member, Missed, Reach, View},
};
