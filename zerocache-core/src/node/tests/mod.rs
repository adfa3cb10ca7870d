//! The rules of membership and fan-out, on a virtual network.

mod bounds;
mod claims;
mod fanout;
mod feed;
mod gossip;
mod heartbeat;
mod leases;
mod membership;
mod network;
mod repair;
mod starts;
