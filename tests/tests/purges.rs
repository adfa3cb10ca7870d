//! Purges by real nodes and clients: what they end, wherever it is and however late it arrives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use zerocache_client::{Ack, Status, ZerocacheClient, zerocache};
use zerocache_tests::cluster::Cluster;
use zerocache_tests::http;
use zerocache_tests::node::{Node, entry};
use zerocache_tests::operator::Operator;
use zerocache_tests::poll::{until, until_true};
use zerocache_tests::setup::Setup;

const REGIONS: [&str; 4] = ["oslo", "oslo", "rome", "rome"];

fn put(node: &Node, key: &str, tags: &str) {
    node.put(key.as_bytes(), b"v", &format!("ttl=600&tags={tags}"));
}

fn with_header(node: &Node, key: &str, header: (&str, &str)) -> http::Answer {
    let target = entry(key.as_bytes());
    http::send(node.address(), "PUT", &target, &[header], b"v").expect("an answer")
}

fn is_at(node: &Node, key: &str) -> bool {
    node.value(key.as_bytes()).is_some()
}

/// Waits until every node has the key.
fn until_everywhere(cluster: &Cluster, key: &str) {
    until_true(&format!("{key} everywhere"), || cluster.nodes.iter().all(|node| is_at(node, key)));
}

/// Waits until no node has the key.
fn until_nowhere(cluster: &Cluster, key: &str) {
    until_true(&format!("{key} nowhere"), || cluster.nodes.iter().all(|node| !is_at(node, key)));
}

#[test]
fn purge_over_http_ends_all_variants_everywhere_and_nothing_else() {
    let cluster = Cluster::start(&REGIONS);
    for n in 0..40 {
        put(&cluster[n % 4], &format!("thumb/{n}"), "file:Big.djvu,all");
    }
    put(&cluster[1], "other", "all");
    cluster[0].put(b"plain", b"v", "ttl=600");
    for key in ["thumb/0", "thumb/1", "thumb/38", "thumb/39", "other", "plain"] {
        until_everywhere(&cluster, key);
    }
    let answer = cluster[2].http("POST", "/v1/tags/file%3ABig.djvu/purge?ack=all", b"");
    assert_eq!(answer.status, 200);
    let written = answer.json();
    assert_eq!(written["status"], "stored");
    assert_eq!(written["replicas"], written["replicas_wanted"]);
    // Nodes that acknowledged serve none of them from now on: the one that was asked, and its peer.
    for n in 0..40 {
        assert!(
            !is_at(&cluster[2], &format!("thumb/{n}"))
                && !is_at(&cluster[3], &format!("thumb/{n}"))
        );
    }
    for n in 0..40 {
        until_nowhere(&cluster, &format!("thumb/{n}"));
    }
    assert!(cluster.nodes.iter().all(|node| is_at(node, "other") && is_at(node, "plain")));
    // Repeated with its version it ends nothing that is newer.
    put(&cluster[0], "thumb/0", "file:Big.djvu");
    until_everywhere(&cluster, "thumb/0");
    let version = written["version"].as_str().expect("a version");
    let again = format!("/v1/tags/file%3ABig.djvu/purge?ack=all&version={version}");
    assert_eq!(cluster[1].http("POST", &again, b"").status, 200);
    assert!(cluster.nodes.iter().all(|node| is_at(node, "thumb/0")));
}

#[test]
fn tags_come_in_headers_and_purges_by_other_methods_too() {
    let node = Setup::new("oslo").start();
    until_true("a node that is ready", || node.is_ready());
    let put = |key: &str, header: (&str, &str)| {
        let answer = with_header(&node, key, header);
        assert_eq!(answer.status, 200, "{}", answer.json());
    };
    put("a", ("Surrogate-Key", "one two"));
    put("b", ("Cache-Tag", "two, three"));
    put("c", ("Cache-Tag", "four"));
    let answer = node.get(b"b");
    assert_eq!(answer.header("zerocache-tags"), Some("two,three"));
    assert_eq!(node.http("PURGE", "/v1/tags/two", b"").status, 200);
    assert!(!is_at(&node, "a") && !is_at(&node, "b") && is_at(&node, "c"));
    let answer = node.http("POST", "/v1/tags/purge", b"three\nfour\n");
    assert_eq!(answer.json()[1]["tag"], "four");
    assert!(!is_at(&node, "c"));
    put("d", ("Cache-Tag", "five"));
    for (method, path, status) in [
        ("POST", "/v1/purge", 400),
        ("POST", "/v1/purge?everything=no", 400),
        ("GET", "/v1/purge", 405),
        ("GET", "/v1/tags/five/purge", 405),
        ("POST", "/v1/tags/five/purge?hold=12", 400),
        ("POST", "/v1/tags/five/purge?sofd=true", 400),
        ("POST", "/v1/tags//purge", 400),
        ("POST", "/v1/tags/purge", 400),
    ] {
        assert_eq!(node.http(method, path, b"").status, status, "{method} {path}");
    }
    let long = "x".repeat(129);
    let answer = with_header(&node, "e", ("Cache-Tag", &long));
    assert_eq!(answer.status, 400);
    assert!(is_at(&node, "d"));
    assert_eq!(node.http("POST", "/v1/purge?everything=yes", b"").status, 200);
    assert!(!is_at(&node, "d"));
}

#[test]
fn soft_purge_leaves_what_may_be_stale() {
    let node = Setup::new("oslo").start();
    until_true("a node that is ready", || node.is_ready());
    node.put(b"stale", b"v", "ttl=600&stale-while=600&tags=t");
    node.put(b"fresh", b"v", "ttl=600&tags=t");
    assert_eq!(node.http("POST", "/v1/tags/t/purge?soft=true", b"").status, 200);
    assert!(!is_at(&node, "fresh") && !is_at(&node, "stale"));
    let stale = node.http("GET", &format!("{}?stale=true", entry(b"stale")), b"");
    assert_eq!(stale.status, 200);
    assert_eq!(stale.header("zerocache-stale"), Some("while"));
    assert_eq!(node.http("POST", "/v1/tags/t/purge", b"").status, 200);
    assert_eq!(node.http("GET", &format!("{}?stale=true", entry(b"stale")), b"").status, 404);
}

#[test]
fn frozen_node_and_restarted_node_serve_nothing_that_was_purged() {
    let files = tempfile::tempdir().expect("a folder");
    let snapshot = files.path().join("snapshot");
    let setup = |seed: &Node| {
        let setup = Setup::new("oslo").flag("--seed", seed.address());
        setup.flag("--drain", "100ms").flag("--snapshot", snapshot.display())
    };
    let first = Setup::new("oslo").start();
    until_true("a node that is ready", || first.is_ready());
    let mut second = setup(&first).start();
    until_true("a node that is ready", || second.is_ready());
    put(&first, "k", "t");
    until_true("k", || is_at(&second, "k"));
    second.freeze();
    assert_eq!(first.http("POST", "/v1/tags/t/purge?ack=local", b"").status, 200);
    second.resume();
    until_true("the purge at the node that was frozen", || !is_at(&second, "k"));
    // One that happens while a node is down.
    put(&first, "l", "t");
    until_true("l", || is_at(&second, "l"));
    second.shut_down();
    assert!(second.ended().success());
    assert_eq!(first.http("POST", "/v1/tags/t/purge?ack=local", b"").status, 200);
    let second = setup(&first).start();
    until_true("a node that is ready", || second.is_ready());
    assert!(!is_at(&second, "l") && !is_at(&second, "k"));
}

fn near(client: &ZerocacheClient, key: &str) -> bool {
    client.get(key).near().wait().expect("an answer").is_some()
}

#[test]
fn clients_purge_and_near_caches_of_others_hear_of_it() {
    let cluster = Cluster::start(&["oslo", "oslo"]);
    let age = Duration::from_secs(3_600);
    let [one, other] =
        [(), ()].map(|()| cluster.client_with("oslo", |builder| builder.near_age(age)));
    one.put("k", "v", 600).tags(["t"]).ack(Ack::All).wait().expect("a write");
    one.put("l", "v", 600).tags(["u"]).ack(Ack::All).wait().expect("a write");
    until_true("k and l near", || {
        let before = other.near_stats().hits;
        near(&other, "k") && near(&other, "l") && other.near_stats().hits >= before + 2
    });
    let cleared = other.near_stats().cleared;
    let written = one.invalidate_tag("t").ack(Ack::All).wait().expect("a purge");
    assert_eq!((written.status, written.replicas), (Status::Stored, 2));
    until_true("a near cache without k", || !near(&other, "k"));
    assert!(near(&other, "l"));
    assert_eq!(other.near_stats().cleared, cleared, "the others stay");
    let outcomes = one.invalidate_tags(["u", ""]).wait();
    assert!(outcomes[0].is_ok() && outcomes[1].is_err());
    assert!(!near(&one, "l"));
    until_true("a near cache without l", || !near(&other, "l"));
}

static COMPUTED: AtomicU64 = AtomicU64::new(0);

fn computed() -> u64 {
    COMPUTED.swap(0, Ordering::SeqCst)
}

#[zerocache(client, 600, skip(client))]
async fn price(client: &ZerocacheClient, product: u64) -> u64 {
    COMPUTED.fetch_add(1, Ordering::SeqCst);
    product
}

#[zerocache(client, 600, skip(client), tags = [format!("shelf:{shelf}")])]
async fn page(client: &ZerocacheClient, shelf: u64) -> u64 {
    COMPUTED.fetch_add(1, Ordering::SeqCst);
    shelf
}

#[test]
fn all_results_of_a_function_end_and_those_of_others_stay() {
    let cluster = Cluster::start(&["oslo"]);
    let client = cluster.client("oslo");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for n in 0..5 {
            price(&client, n).await;
            page(&client, n).await;
        }
        assert_eq!(computed(), 10);
        for n in 0..5 {
            price(&client, n).await;
            page(&client, n).await;
        }
        assert_eq!(computed(), 0);
        price(&client, 0).invalidate_all().await.expect("a purge");
        for n in 0..5 {
            page(&client, n).await;
        }
        assert_eq!(computed(), 0);
        for n in 0..5 {
            price(&client, n).await;
        }
        assert_eq!(computed(), 5);
        client.invalidate_tag("shelf:3").await.expect("a purge");
        for n in 0..5 {
            page(&client, n).await;
            price(&client, n).await;
        }
        assert_eq!(computed(), 1);
        client.invalidate_namespace(client.namespace()).await.expect("a purge");
        client.put("raw", "v", 600).await.expect("a write");
        page(&client, 0).await;
        price(&client, 0).await;
        assert_eq!(computed(), 2);
    });
}

#[test]
fn value_of_a_lease_from_before_a_purge_is_not_kept() {
    let cluster = Cluster::start(&["oslo"]);
    let client = cluster.client("oslo");
    let other = cluster.client("oslo");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let value = runtime.block_on(async {
        client
            .get_or_compute("k", 600, async || {
                other.invalidate_tag("t").await?;
                Ok::<_, zerocache_client::Error>("old".to_owned())
            })
            .tags(["t"])
            .lease(zerocache_client::memo::LeaseScope::Region)
            .await
    });
    assert_eq!(value.expect("a value"), "old");
    let kept = until("the end of the write", || {
        let stats = cluster[0].stat("leases_held");
        (stats == 0).then(|| is_at(&cluster[0], "k"))
    });
    assert!(!kept);
}

#[zerocache(client, 600, skip(client))]
async fn stock(client: &ZerocacheClient, product: u64) -> u64 {
    product
}

#[test]
fn tool_purges_tags_namespaces_and_everything() {
    let cluster = Cluster::start(&["oslo", "oslo"]);
    let operator = Operator::new(cluster[0].address());
    let at = cluster[1].address().to_string();
    let count = |prefix: &[&str]| {
        let args = [&["keys", "--node", &at], prefix].concat();
        operator.run(&args).text().lines().count()
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let shop = cluster.client_with("oslo", |builder| builder.namespace("shop"));
    let nameless = cluster.client("oslo");
    for client in [&shop, &nameless] {
        runtime.block_on(stock(client, 1));
    }
    for (key, query) in
        [("a", "tags=t"), ("b", "tags=it's"), ("c", "tags=soft&stale-while=600"), ("d", "tags=u")]
    {
        cluster[0].put(key.as_bytes(), b"v", &format!("ttl=600&ack=all&{query}"));
    }
    until_true("all entries", || count(&[]) == 6);

    // What ends much needs --yes; nothing happens without.
    for args in [&["purge", "--everything"][..], &["purge", "t", "u"], &["purge"]] {
        let refused = operator.run(args);
        assert_eq!((refused.exit, refused.out.len()), (2, 0), "{refused:?}");
    }
    for args in [&["purge", "t", "--namespace", ""][..], &["purge", "t", "--hold", "12s"]] {
        assert_eq!(operator.run(args).exit, 2, "{args:?}");
    }
    let too_long = "x".repeat(129);
    assert_eq!(operator.run(&["purge", &too_long]).exit, 2);
    assert_eq!(operator.run(&["purge", &too_long, "--node", &at]).exit, 2);
    assert_eq!(count(&[]), 6);

    let purged = operator.run(&["purge", "t", "it's", "--yes", "--ack", "all"]);
    let text = purged.text();
    let lines: Vec<_> = text.lines().map(|line| line.split(' ').collect::<Vec<_>>()).collect();
    assert_eq!((purged.exit, lines.len()), (0, 2), "{purged:?}");
    for (line, tag) in lines.iter().zip(["t", "it's"]) {
        assert_eq!((line[0], line[1], line[3]), ("purged", "2/2", tag), "{text}");
    }
    assert!(!is_at(&cluster[1], "a") && !is_at(&cluster[1], "b") && is_at(&cluster[1], "d"));
    // Repeated with its version it ends nothing that is newer.
    put(&cluster[1], "a", "t");
    let again = operator.run(&["purge", "t", "--replay", lines[0][2], "--node", &at]);
    assert_eq!(again.exit, 0, "{again:?}");
    assert!(is_at(&cluster[1], "a"));

    let soft = operator.run(&["purge", "soft", "--soft", "--json", "--node", &at]).json();
    let one = &soft["purges"][0];
    assert_eq!((&one["status"], &one["tag"]), (&"stored".into(), &"soft".into()), "{soft}");
    assert!(!is_at(&cluster[1], "c"));
    let stale = cluster[1].http("GET", &format!("{}?stale=true", entry(b"c")), b"");
    assert_eq!(stale.status, 200);

    let shops = || count(&["--prefix", "memo:shop"]);
    let (all, of_shop) = (count(&[]), shops());
    let purged = operator.run(&["purge", "--namespace", "", "--node", &at]);
    assert!(purged.exit == 0 && purged.text().ends_with(" namespace \"\"\n"), "{purged:?}");
    assert_eq!((count(&[]), shops(), of_shop), (all - 1, 1, 1));
    let json = operator.run(&["purge", "--namespace", "shop", "--ack", "all", "--json"]).json();
    let one = &json["purges"][0];
    assert_eq!((&one["replicas"], &one["namespace"]), (&2.into(), &"shop".into()), "{json}");
    assert_eq!((count(&[]), shops()), (all - 2, 0));

    let json = operator.run(&["purge", "--everything", "--yes", "--json", "--ack", "all"]).json();
    assert_eq!(json["purges"][0]["everything"], true, "{json}");
    assert_eq!(count(&[]), 0);
}

#[test]
fn pages_of_other_origins_purge_nothing() {
    let cluster = Cluster::start(&["london"]);
    put(&cluster[0], "k", "t");
    let paths = ["/v1/purge?everything=yes", "/v1/tags/t/purge", "/v1/tags/purge"];
    for path in paths {
        for header in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site")] {
            let answer = http::send(cluster[0].address(), "POST", path, &[header], b"t");
            let answer = answer.expect("an answer");
            assert_eq!((answer.status, answer.code().as_str()), (403, "cross_site"), "{path}");
        }
    }
    assert!(is_at(&cluster[0], "k"));
}
