use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use bytes::Bytes;
use zerocache_core::{
    access::Secret,
    key::Key,
    limits::KEY_BYTES_WIRE_MAX,
    node::Caller,
    wire::{Envelope, Hello, Request, RequestMessage, Response, cluster_id, features},
};

use zerocache_net::security::Source;

use super::*;
use crate::config::DiscoverySet;

/// Far longer than anything takes here.
const MOST: Duration = Duration::from_secs(20);

async fn node() -> RunningNode {
    node_with(|_| {}).await
}

async fn node_with(change: impl FnOnce(&mut ServerConfig)) -> RunningNode {
    let mut config = ServerConfig::new("oslo");
    change(&mut config);
    config.addresses = vec![[127, 0, 0, 1].into()];
    config.port = 0;
    config.discovery = DiscoverySet::NONE;
    let node = RunningNode::start(config).await.expect("a node on a free port");
    assert!(node.ready(MOST).await);
    node
}

fn key() -> Key {
    Key::within(Bytes::from_static(b"k"), KEY_BYTES_WIRE_MAX).expect("is allowed")
}

async fn ask(node: &RunningNode, request: Request) -> Response {
    let cluster = cluster_id(&ServerConfig::new("oslo").cluster);
    let envelope = Envelope { cluster, ..Envelope::default() };
    node.driver.request(Caller::unauthenticated(None), RequestMessage { envelope, request }).await
}

fn lease(wait_ms: u64) -> Request {
    Request::Lease { key: key(), lease_ms: 300_000, wait_ms, newer_than: None }
}

#[tokio::test]
async fn lease_whose_grant_was_not_received_is_handed_over() {
    let node = node().await;
    let Response::LeaseGranted { token } = ask(&node, lease(0)).await else {
        panic!("nobody has it")
    };
    {
        let mut waits = pin!(ask(&node, lease(60_000)));
        poll_fn(|context| {
            assert!(waits.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        // The one who waits gets it, and goes away before it knows.
        let release = Request::Release { key: key(), token, failed: false };
        assert_eq!(ask(&node, release).await, Response::Done);
    }
    let next = tokio::time::timeout(MOST, ask(&node, lease(60_000))).await;
    assert!(matches!(next, Ok(Response::LeaseGranted { .. })), "{next:?}");
}

#[tokio::test]
async fn datagrams_are_encrypted_where_tls_is_required() {
    let secret = || Some(Source::Value(Secret::from_random([7; 32]).to_text()));
    for (tls, is_sealed) in [(None, true), (Some(TlsMode::Optional), false)] {
        let node = node_with(|config| (config.secret, config.tls) = (secret(), tls)).await;
        let hello = Hello::of_client(&ServerConfig::new("oslo").cluster, "oslo", 0);
        let answer = ask(&node, Request::Hello(Box::new(hello))).await;
        let Response::Hello(hello) = answer else { panic!("{answer:?}") };
        assert_eq!(hello.features & features::SEALED_DATAGRAMS != 0, is_sealed, "{tls:?}");
    }
}
