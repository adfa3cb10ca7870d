//! The cluster as one node or client sees it: who exists, who responds, and who holds which keys.

mod candidates;
mod contacts;
mod failure_detector;
mod gossip;
mod latency;
mod placement;
mod ranking;
mod view;

pub use self::{
    candidates::{AddressSource, Candidates, DialRefusal},
    contacts::{CONTACTS_PER_REGION, ContactState, choose_contacts},
    failure_detector::{FailureDetector, HeartbeatCounts, ReplayWindow},
    gossip::{FORGET_MS, Gossip, GossipChanges, RENEW_EVERY_MS, ROWS_MAX},
    latency::Latency,
    placement::{Everyone, PLACEMENT, Placement},
    ranking::Ranking,
    view::{Member, Reachability, View},
};
