//! Gateways and workers as processes of their own.

mod common;

use std::net::SocketAddr;

use common::origin::Origin;
use common::{WORKER_KEY, args, client, get, image, metric, node, secrets};
use images::service::Service;
use zerocache_tests::poll::until_async;

async fn service(node: SocketAddr, more: &[&str]) -> Service {
    Service::start(args(more), secrets(), client("london", node).await).await.expect("a service")
}

async fn wait_for_workers(http: &reqwest::Client, gateway: SocketAddr, count: u64) {
    let what = format!("the gateway sees {count} workers");
    until_async(&what, async || metric(http, gateway, "images_workers").await == count).await;
}

#[tokio::test]
async fn gateway_finds_workers_and_each_original_has_its_own() {
    let (origin, node, http) = (Origin::start().await, node("london", &[]), reqwest::Client::new());
    let first = service(node.address(), &["--role=worker", "--name=first"]).await;
    let second = service(node.address(), &["--role=worker", "--name=second"]).await;
    let gateway = service(node.address(), &["--role=gateway", "--name-worker"]).await;
    wait_for_workers(&http, gateway.address(), 2).await;
    let mut used = std::collections::HashSet::new();
    for number in 0..8 {
        let of =
            |params: &str| image(gateway.address(), &origin, &format!("/picture/{number}"), params);
        let small = get(&http, &of("&w=20"), &[]).await;
        let large = get(&http, &of("&w=40"), &[]).await;
        assert_eq!((small.status, large.status), (200, 200));
        assert_eq!(small.header("x-images-worker"), large.header("x-images-worker"));
        used.insert(small.header("x-images-worker").to_owned());
    }
    assert_eq!(used.len(), 2);
    // A worker that shuts down is passed over at once: no request fails.
    first.shutdown().await;
    for number in 20..28 {
        let url = image(gateway.address(), &origin, &format!("/picture/{number}"), "&w=20");
        assert_eq!(get(&http, &url, &[]).await.status, 200, "{number}");
    }
    wait_for_workers(&http, gateway.address(), 1).await;
    drop(second);
}

#[tokio::test]
async fn workers_refuse_everyone_but_gateways() {
    let (origin, node, http) = (Origin::start().await, node("london", &[]), reqwest::Client::new());
    let worker = service(node.address(), &["--role=worker"]).await;
    let base = format!("http://{}", worker.address());
    let body = format!("{{\"url\":\"{}\",\"variant\":null}}", origin.url("/picture/1"));
    let ask = |key: Option<&str>, body: &str| {
        let mut request = http.post(format!("{base}/internal/image")).body(body.to_owned());
        if let Some(key) = key {
            request = request.header("x-images-key", key);
        }
        async { request.send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!(ask(None, &body).await, 403);
    assert_eq!(ask(Some("the key of somebody else"), &body).await, 403);
    assert_eq!(ask(Some(WORKER_KEY), &body).await, 200);
    assert_eq!(ask(Some(WORKER_KEY), "{}").await, 400);
    // A gateway that is taken over does not reach inside.
    assert_eq!(ask(Some(WORKER_KEY), "{\"url\":\"http://10.0.0.1/\",\"variant\":null}").await, 403);
    assert_eq!(ask(Some(WORKER_KEY), &"x".repeat(20 << 10)).await, 413);
    for path in ["/image?url=http://a/", "/original?url=http://a/", "/purge?host=a"] {
        assert_eq!(get(&http, &format!("{base}{path}"), &[]).await.status, 404, "{path}");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn gateway_without_a_worker_that_answers_says_so() {
    let (origin, node, http) = (Origin::start().await, node("london", &[]), reqwest::Client::new());
    let gateway = service(node.address(), &["--role=gateway", "--workers=127.0.0.1:1"]).await;
    wait_for_workers(&http, gateway.address(), 1).await;
    let got = get(&http, &image(gateway.address(), &origin, "/picture/1", "&w=20"), &[]).await;
    assert_eq!((got.status, &*got.error(), got.header("retry-after")), (503, "no_worker", "1"));
    assert!(metric(&http, gateway.address(), "images_worker_failures_total").await >= 1);
}

#[tokio::test]
async fn time_of_a_request_covers_all_its_workers() {
    let (origin, node, http) = (Origin::start().await, node("london", &[]), reqwest::Client::new());
    // Two workers that do not answer.
    let (first, second) = (Origin::start().await, Origin::start().await);
    let silent = |origin: &Origin| origin.address().to_string();
    let workers = format!("--workers={},{}", silent(&first), silent(&second));
    let args = ["--role=gateway", "--request-time=400ms", &workers];
    let gateway = service(node.address(), &args).await;
    wait_for_workers(&http, gateway.address(), 2).await;
    first.be_silent(true);
    second.be_silent(true);
    let url = image(gateway.address(), &origin, "/picture/1", "&w=20");
    for asked in 1..=2 {
        let got = get(&http, &url, &[]).await;
        assert_eq!((got.status, &*got.error()), (504, "timeout"));
        assert_eq!(first.requests() + second.requests(), asked, "one worker for each request");
    }
    // The next request asks another one, for a while.
    assert_eq!((first.requests(), second.requests()), (1, 1));
}

#[tokio::test]
async fn worker_answers_in_the_time_that_its_gateway_has() {
    let (origin, node, http) = (Origin::start().await, node("london", &[]), reqwest::Client::new());
    let worker = service(node.address(), &["--role=worker"]).await;
    let body = format!("{{\"url\":\"{}\",\"variant\":null}}", origin.url("/silent"));
    let request = http.post(format!("http://{}/internal/image", worker.address())).body(body);
    let request = request.header("x-images-key", WORKER_KEY).header("x-images-time-ms", "200");
    let got = common::got(request.send().await.expect("an answer")).await;
    assert_eq!((got.status, &*got.error()), (504, "timeout"));
}

#[tokio::test]
async fn workers_are_found_by_a_dns_name() {
    let (origin, node, http) = (Origin::start().await, node("london", &[]), reqwest::Client::new());
    let worker = service(node.address(), &["--role=worker"]).await;
    let dns = format!("--worker-dns=localhost:{}", worker.address().port());
    let gateway = service(node.address(), &["--role=gateway", &dns]).await;
    let url = image(gateway.address(), &origin, "/picture/1", "&w=20");
    until_async("an image", async || get(&http, &url, &[]).await.status == 200).await;
}

#[tokio::test]
async fn roles_without_a_common_key_do_not_start() {
    let node = node("london", &[]);
    for role in ["--role=gateway", "--role=worker"] {
        let secrets = images::settings::Secrets::default();
        let started =
            Service::start(args(&[role]), secrets, client("london", node.address()).await).await;
        assert!(started.err().expect("refused").to_string().contains("IMAGES_WORKER_KEY"));
    }
}

#[tokio::test]
async fn image_made_in_one_region_is_found_in_the_other_and_purged_there() {
    let (origin, http) = (Origin::start().await, reqwest::Client::new());
    let london = node("london", &[]);
    let sydney = node("sydney", &[london.address()]);
    let start = |region: &'static str, address| async move {
        let secrets = images::settings::Secrets { worker_key: None, ..secrets() };
        Service::start(args(&[]), secrets, client(region, address).await).await.expect("a service")
    };
    let here = start("london", london.address()).await;
    let there = start("sydney", sydney.address()).await;
    let of = |service: &Service| image(service.address(), &origin, "/picture/1", "&w=20");
    let first = get(&http, &of(&here), &[]).await;
    until_async("found in the other region", async || {
        let got = get(&http, &of(&there), &[]).await;
        assert_eq!(got.bytes, first.bytes);
        got.header("x-cache") == "hit"
    })
    .await;
    origin.change();
    let purged = common::purge(&http, here.address(), "host=127.0.0.1&ack=all").await;
    assert_eq!(purged.status, 200);
    until_async("no old image in the other region", async || {
        get(&http, &of(&there), &[]).await.bytes != first.bytes
    })
    .await;
}
