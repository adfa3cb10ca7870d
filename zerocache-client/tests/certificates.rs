//! Clients of a cluster with certificates and an access file.

mod support;

use std::{path::PathBuf, time::Duration};

use support::{bounded, node_config};
use tempfile::TempDir;
use zerocache_client::{ClientBuilder, Error, ErrorKind, ZerocacheClient, error::DenialReason};
use zerocache_core::access::StaticToken;
use zerocache_net::security::{Issued, Subject, TlsFiles, issue_certificate, new_authority};
use zerocache_server::EmbeddedNode;

const CLUSTER: &str = "with-certificates";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A node, and the files of its cluster.
struct Cluster {
    folder: TempDir,
    node: EmbeddedNode,
}

impl Cluster {
    /// `access` is the content of the access file.
    fn start(access: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = new_authority("test CA", DAY).expect("is made");
        let of_node = Subject::Node { region: "london".to_owned(), names: Vec::new() };
        let uris = vec!["spiffe://shop.example/orders".to_owned()];
        let of_client = Subject::Client { names: Vec::new(), uris };
        let issue = |subject| {
            issue_certificate(&ca.certificate_pem, &ca.key_pem, &subject, DAY).expect("is made")
        };
        let (of_node, of_client) = (issue(of_node), issue(of_client));
        let stranger = new_authority("another CA", DAY).expect("is made");
        for (name, Issued { certificate_pem, key_pem }) in
            [("ca", &ca), ("node", &of_node), ("client", &of_client), ("stranger", &stranger)]
        {
            let write = |end: &str, text: &str| {
                std::fs::write(folder.path().join(format!("{name}{end}.pem")), text)
            };
            write("", certificate_pem).and_then(|()| write("-key", key_pem)).expect("is written");
        }
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("access.toml"), access).expect("is written");
        let mut config = node_config(CLUSTER);
        config.tls_files = TlsFiles {
            cert: Some(path("node.pem")),
            key: Some(path("node-key.pem")),
            ca: Some(path("ca.pem")),
        };
        config.access = Some(path("access.toml"));
        let node = EmbeddedNode::start(config, Duration::from_secs(10)).expect("a free port");
        Self { folder, node }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client that verifies nodes by this CA.
    fn builder(&self, ca: &str) -> ClientBuilder {
        let seed = self.node.address().to_string();
        let builder = ZerocacheClient::builder("london").cluster(CLUSTER).mdns(false).seed(seed);
        builder.tls_ca(self.path(ca))
    }
}

fn built(builder: ClientBuilder) -> ZerocacheClient {
    builder.build().expect("it is allowed")
}

fn reason<T: std::fmt::Debug>(result: Result<T, Error>) -> DenialReason {
    match result {
        Err(Error::Denied { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn access_file_says_what_certificates_and_static_tokens_may_do() {
    bounded(async {
        let token = StaticToken::from_random([1; 32]);
        let cluster = Cluster::start(&format!(
            r#"
            [[client]]
            name = "orders"
            san = ["spiffe://shop.example/orders"]
            role = "write"
            prefixes = ["orders/"]

            [[client]]
            name = "reports"
            token_hashes = ["{}"]
            role = "read"
            "#,
            token.hash()
        ));
        let builder = || cluster.builder("ca.pem");
        let [cert, key] = ["client.pem", "client-key.pem"].map(|name| cluster.path(name));
        let orders = built(builder().tls_cert(cert).tls_key(key));
        orders.put("orders/1", "a", 60).await.expect("is its own");
        assert_eq!(reason(orders.put("other", "a", 60).await), DenialReason::Forbidden);

        let reports = built(builder().token(token.as_text()));
        assert!(reports.get("orders/1").await.expect("reads").is_some());
        assert_eq!(reason(reports.put("orders/1", "b", 60).await), DenialReason::Forbidden);

        let unknown = StaticToken::from_random([2; 32]);
        let unknown = built(builder().token(unknown.as_text()));
        assert_eq!(reason(unknown.get("orders/1").await), DenialReason::Wrong);
        assert_eq!(reason(built(builder()).get("orders/1").await), DenialReason::Missing);

        let stranger = built(cluster.builder("stranger.pem").token(token.as_text()));
        let error = stranger.get("orders/1").await.expect_err("it verifies the node first");
        assert!(matches!(error, Error::Unverified { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Unreachable);

        let alone = ZerocacheClient::builder("london").offline(false).token(token.as_text());
        let error = alone.build().expect_err("it says no CA").to_string();
        assert!(error.contains("CA"), "{error}");
    })
    .await;
}
