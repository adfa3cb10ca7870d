//! The rules of membership and fan-out, on a virtual network.

mod fanout;
mod gossip;
mod heartbeat;
mod membership;
mod network;
mod repair;
