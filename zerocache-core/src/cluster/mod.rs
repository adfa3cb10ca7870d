//! Who is in the cluster, as one node or client sees it.

mod candidates;
mod contacts;
mod gossip;
mod latency;
mod placement;
mod pulse;
mod ranking;
mod rows;
mod view;

pub use self::{
    candidates::{AddressSource, Candidates},
    contacts::{CONTACTS_PER_REGION, Standing, choose},
    gossip::{FORGET_MS, Gossip, Heard, RENEW_EVERY_MS, ROWS_MAX},
    latency::Latency,
    placement::{Everyone, PLACEMENT, Placement},
    pulse::{Pulse, Window},
    ranking::Ranking,
    view::{Member, Missed, Reach, View},
};
