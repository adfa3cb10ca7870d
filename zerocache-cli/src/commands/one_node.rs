//! What commands share that work at one node, or at each: which one it is, and its administrative requests.

use std::net::SocketAddr;

use bytes::Bytes;
use hyper::Method;
use serde_json::Value as Json;

use crate::{
    context::{Context, no_answer, parse_json},
    failure::Failure,
    say,
    survey::{self, NodeView},
};

/// The node at which a command works.
pub(crate) struct OneNode {
    pub(crate) address: SocketAddr,
    pub(crate) id: String,
    /// The node in text.
    pub(crate) label: String,
}

impl From<&NodeView> for OneNode {
    fn from(view: &NodeView) -> Self {
        Self { address: view.address, id: view.id().to_owned(), label: view.label() }
    }
}

impl OneNode {
    /// Chooses the node that was named, or else the first one in sync that answers; without one, any that answers.
    pub(crate) async fn choose(context: &Context) -> Result<Self, Failure> {
        let is_ready = |view: &NodeView| view.own()["state"] == "in-sync";
        Ok(Self::from(&survey::first(context, is_ready).await?))
    }

    /// Returns the address of the node that was named, without asking it, or of the one that [`choose`](Self::choose)
    /// finds.
    pub(crate) async fn address(context: &Context) -> Result<SocketAddr, Failure> {
        match &context.global.node {
            Some(node) => context.resolve(node).await,
            None => Ok(Self::choose(context).await?.address),
        }
    }

    /// Returns the node that was named, or else all that answer; says which do not.
    pub(crate) async fn each(context: &Context) -> Result<Vec<Self>, Failure> {
        let survey = survey::needed(context).await?;
        if !context.global.quiet {
            survey.silent.iter().for_each(|silent| say(&format!("not asked: {}", silent.why)));
        }
        Ok(survey.nodes.iter().map(Self::from).collect())
    }

    /// Returns the node at an address.
    pub(crate) async fn at(context: &Context, address: SocketAddr) -> Result<Self, Failure> {
        let nobody = Self { address, id: String::new(), label: String::new() };
        let cluster = nobody.ask(context, (Method::GET, "/v1/cluster")).await?;
        let own = &cluster["nodes"][0];
        let text = |name: &str| own[name].as_str().unwrap_or_default().to_owned();
        let name = cluster["cluster"].as_str().unwrap_or_default();
        if name != context.cluster() {
            let line = format!("{address}: a node of the cluster {name:?}");
            return Err(Failure::unreachable(line));
        }
        Ok(Self { id: text("id"), label: format!("{} {address}", text("region")), ..nobody })
    }

    /// Returns the document that the node answers a request with.
    pub(crate) async fn ask(
        &self,
        context: &Context,
        (method, target): (Method, &str),
    ) -> Result<Json, Failure> {
        let response = context.request(self.address, (method, target, Bytes::new())).await;
        let response = response.map_err(|failure| no_answer(self.address, failure))?;
        parse_json(self.address, &response)
    }
}
