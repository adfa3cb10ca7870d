//! The cluster as one node or client sees it: who exists, who responds, and who holds which keys.

mod candidates;
mod contacts;
mod draw;
mod failure_detector;
mod gossip;
mod latency;
mod placement;
mod ranking;
mod residents;
mod view;

pub use self::{
    candidates::{AddressSource, Candidates, DialRefusal},
    contacts::{CONTACTS_PER_REGION, ContactState, choose_contacts},
    failure_detector::{FailureDetector, HeartbeatCounts, ReplayWindow},
    gossip::{FORGET_MS, Gossip, GossipChanges, RENEW_EVERY_MS, ROWS_MAX},
    latency::Latency,
    placement::{Owners, Placement, PlacementNode, REPLICAS_MAX, Replicas},
    ranking::Ranking,
    residents::{Residents, resident_name},
    view::{MEMBERS_MAX, Member, Reachability, View},
};
