//! One process with both roles, over HTTP.

mod common;

use common::origin::Origin;
use common::{Setup, get, image, purge, secrets};
use images::clock::now;
use images::purge::HOLD;
use images::settings::Secrets;
use images::signature::Keys;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use zerocache_tests::poll::until_async;

#[tokio::test]
async fn image_is_made_once_and_then_found() {
    let setup = Setup::new(&[]).await;
    let url = setup.image("/picture/1", "&w=40&h=40&fit=cover");
    let first = setup.get(&url).await;
    assert_eq!((first.status, first.size(), first.header("x-cache")), (200, (40, 40), "miss"));
    assert_eq!(first.header("content-type"), "image/jpeg");
    let second = setup.get(&url).await;
    assert_eq!((second.header("x-cache"), &second.bytes), ("hit", &first.bytes));
    // Another size of the same original.
    assert_eq!(setup.get(&setup.image("/picture/1", "&w=20")).await.size(), (20, 15));
    assert_eq!(setup.origin.requests(), 1, "the original was fetched once");
    assert_eq!(setup.metric("images_conversions_started_total").await, 2);
}

#[tokio::test]
async fn fifty_first_requests_are_one_conversion() {
    let setup = Setup::new(&[]).await;
    let url = setup.image("/slow", "&w=40");
    let picture = setup.image("/picture/2", "&w=40");
    for (url, expected) in [(picture, 200), (url, 404)] {
        let before = setup.origin.requests();
        let requests: Vec<_> = (0..50)
            .map(|_| {
                let (http, url) = (setup.http.clone(), url.clone());
                tokio::spawn(async move { get(&http, &url, &[]).await.status })
            })
            .collect();
        for request in requests {
            assert_eq!(request.await.expect("no panic"), expected);
        }
        assert_eq!(setup.origin.requests() - before, 1, "{url}");
    }
    assert_eq!(setup.metric("images_conversions_started_total").await, 1);
}

#[tokio::test]
async fn answer_says_what_browsers_and_caches_need() {
    let setup = Setup::new(&[]).await;
    let got = setup.get(&setup.image("/picture/3", "&w=40")).await;
    let etag = got.header("etag").to_owned();
    assert_eq!((got.header("cache-control"), got.header("vary")), ("no-cache", "Accept"));
    assert!(
        got.header("surrogate-key").contains("orig:")
            && got.header("surrogate-key").contains("host:127.0.0.1")
    );
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    assert_eq!(got.header("content-security-policy"), "default-src 'none'; sandbox");
    assert!(got.header("content-disposition").starts_with("inline; filename="));
    let known =
        get(&setup.http, &setup.image("/picture/3", "&w=40"), &[("if-none-match", &etag)]).await;
    assert_eq!((known.status, known.bytes.len(), known.header("etag")), (304, 0, &*etag));
    let explicit = setup.get(&setup.image("/picture/3", "&w=40&format=jpeg")).await;
    assert_eq!(explicit.header("vary"), "");
    let head = setup.http.head(setup.image("/picture/3", "&w=40")).send().await.expect("an answer");
    assert_eq!(head.headers()["content-length"], got.bytes.len().to_string());
}

#[tokio::test]
async fn browsers_keep_images_as_long_as_the_header_says() {
    let setup =
        Setup::new(&["--max-age=60", "--stale-while=30", "--name-worker", "--name=w"]).await;
    let got = setup.get(&setup.image("/picture/3", "&w=40")).await;
    let expected = "public, max-age=60, stale-while-revalidate=30, stale-if-error=30";
    assert_eq!((got.header("cache-control"), got.header("x-images-worker")), (expected, "w"));
}

#[tokio::test]
async fn errors_are_json_with_fitting_statuses_and_name_nothing_behind() {
    let setup =
        Setup::new(&["--fetch-total=400ms", "--fetch-first-byte=200ms", "--source-bytes=64KiB"])
            .await;
    let table = [
        (setup.image("/missing", "&w=40"), 404, "origin_not_found"),
        (setup.image("/html", "&w=40"), 415, "not_an_image"),
        (setup.image("/damaged", "&w=40"), 422, "undecodable"),
        (setup.image("/endless", "&w=40"), 413, "source_too_large"),
        (setup.image("/error", "&w=40"), 502, "origin_failed"),
        (setup.image("/silent", "&w=40"), 504, "origin_timeout"),
        (setup.image("/redirect-to?http://10.0.0.1/", "&w=40"), 403, "address_refused"),
        (setup.image("/picture/1", "&w=wide"), 400, "bad_request"),
        (setup.image("/picture/1", "&w=40&w=50"), 400, "bad_request"),
        (format!("http://{}/image?w=40", setup.service.address()), 400, "bad_request"),
        (
            format!("http://{}/image?url=file:///etc/passwd", setup.service.address()),
            400,
            "bad_request",
        ),
        (
            format!("http://{}/image?url=http://example.org:0/a", setup.service.address()),
            403,
            "port_refused",
        ),
        (
            format!("http://{}/image?url=http://192.168.0.1/a", setup.service.address()),
            403,
            "address_refused",
        ),
    ];
    for (url, status, code) in table {
        let got = setup.get(&url).await;
        assert_eq!((got.status, &*got.error()), (status, code), "{url}");
        assert_eq!(got.header("content-type"), "application/json");
        let text = String::from_utf8(got.bytes).expect("a text");
        assert!(
            !text.contains("127.0.0.1") && !text.contains("10.0.0.1") && text.len() < 300,
            "{text}"
        );
    }
}

#[tokio::test]
async fn lasting_failure_is_stored_for_a_while() {
    let setup = Setup::new(&[]).await;
    for _ in 0..3 {
        assert_eq!(setup.get(&setup.image("/html", "&w=40")).await.status, 415);
    }
    assert_eq!(setup.origin.requests(), 1);
    for _ in 0..2 {
        assert_eq!(setup.get(&setup.image("/error", "&w=40")).await.status, 502);
    }
    assert_eq!(setup.origin.requests(), 3, "what may pass is tried again");
}

#[tokio::test]
async fn purge_drops_all_variants_and_the_original() {
    let setup = Setup::new(&[]).await;
    let urls: Vec<_> =
        ["&w=20", "&w=40", "&w=60"].map(|size| setup.image("/picture/5", size)).into();
    let mut before = Vec::new();
    for url in &urls {
        before.push(setup.get(url).await.bytes);
    }
    let other = setup.get(&setup.image("/picture/6", "&w=20")).await.bytes;
    setup.origin.change();
    assert_eq!(setup.get(&urls[0]).await.bytes, before[0]);
    let original: String =
        url::form_urlencoded::byte_serialize(setup.origin.url("/picture/5").as_bytes()).collect();
    let purged = purge(&setup.http, setup.service.address(), &format!("url={original}")).await;
    assert_eq!(purged.status, 200);
    for (url, before) in urls.iter().zip(&before) {
        let after = setup.get(url).await;
        assert_eq!(after.header("x-cache"), "miss");
        assert_ne!(after.bytes, *before, "{url} is old");
    }
    assert_eq!(
        setup.get(&setup.image("/picture/6", "&w=20")).await.bytes,
        other,
        "the others stay"
    );
    assert_eq!(
        purge(&setup.http, setup.service.address(), "host=127.0.0.1&ack=local").await.status,
        200
    );
    assert_ne!(setup.get(&setup.image("/picture/6", "&w=20")).await.bytes, other);
}

#[tokio::test]
async fn old_image_is_served_while_a_new_one_is_made() {
    let setup = Setup::new(&["--fetch-first-byte=1s", "--stale-if-error=0"]).await;
    let url = setup.image("/picture/5", "&w=20");
    let old = setup.get(&url).await;
    setup.origin.change();
    setup.origin.be_silent(true);
    let purged = purge(&setup.http, setup.service.address(), "host=127.0.0.1&soft=1").await;
    assert_eq!(purged.status, 200);
    // To the request that renews it, too, although the origin does not answer.
    let served = setup.get(&url).await;
    assert_eq!((served.status, &served.bytes), (200, &old.bytes));
    setup.origin.be_silent(false);
    until_async("a new image", async || {
        let got = setup.get(&url).await;
        assert_eq!(got.status, 200);
        got.bytes != old.bytes
    })
    .await;
}

#[tokio::test]
async fn image_made_right_after_a_purge_is_not_kept() {
    let setup = Setup::new(&[]).await;
    let url = setup.image("/picture/5", "&w=20");
    assert_eq!(setup.get(&url).await.header("x-cache"), "miss");
    let begin = now();
    purge(&setup.http, setup.service.address(), "host=127.0.0.1").await;
    // As if made by a worker that has not heard of the purge.
    assert_eq!(setup.get(&url).await.header("x-cache"), "miss");
    let second = setup.get(&url).await;
    if now() - begin < HOLD {
        assert_eq!(second.header("x-cache"), "miss");
    }
    until_async("the image is kept again", async || {
        setup.get(&url).await.header("x-cache") == "hit"
    })
    .await;
}

#[tokio::test]
async fn purge_needs_its_key_and_says_what_is_wrong() {
    let setup = Setup::new(&[]).await;
    let address = setup.service.address();
    let without =
        setup.http.post(format!("http://{address}/purge?host=a")).send().await.expect("an answer");
    assert_eq!(without.status(), 403);
    for query in [
        "",
        "url=a",
        "ack=all",
        "host=",
        "url=http://a/&host=a",
        "host=a&ack=some",
        "host=a&x=1",
        "host=a%20b",
    ] {
        assert_eq!(purge(&setup.http, address, query).await.status, 400, "{query}");
    }
    let closed = Setup::with_secrets(&[], Secrets::default()).await;
    assert_eq!(purge(&closed.http, closed.service.address(), "host=a").await.status, 403);
}

#[tokio::test]
async fn signed_service_serves_signed_urls_alone() {
    let signing_keys = Some("the secret of signed URLs".to_owned());
    let keys = Keys::parse("the secret of signed URLs").expect("keys");
    let secrets = Secrets { worker_key: None, signing_keys, ..secrets() };
    let setup = Setup::with_secrets(&["--steps=exact"], secrets).await;
    let url = setup.image("/picture/1", "&w=33");
    assert_eq!(setup.get(&url).await.error(), "bad_signature");
    let base = format!("http://{}", setup.service.address());
    let target = url.strip_prefix(&base).expect("a path");
    let signed = format!("{base}{}", keys.sign(target).expect("signed"));
    assert_eq!(setup.get(&signed).await.size(), (33, 25));
    assert_eq!(setup.get(&format!("{signed}&w=50")).await.status, 403);
    assert_eq!(setup.origin.requests(), 1);
}

#[tokio::test]
async fn exact_sizes_need_signed_urls() {
    let node = common::node("london", &[]);
    let cache = common::client("london", node.address()).await;
    let started = images::service::Service::start(
        common::args(&["--steps=exact"]),
        Secrets::default(),
        cache,
    )
    .await;
    assert!(started.err().expect("refused").to_string().contains("signed URLs"));
}

#[tokio::test]
async fn original_is_passed_on_in_parts() {
    let setup = Setup::new(&[]).await;
    let url = setup.image("/wrong-type", "").replace("/image?", "/original?");
    let whole = setup.get(&url).await;
    assert_eq!((whole.status, whole.header("content-type")), (200, "image/jpeg"));
    assert_eq!(whole.bytes, common::origin::picture(0));
    let part = get(&setup.http, &url, &[("range", "bytes=2-5")]).await;
    assert_eq!((part.status, &*part.bytes), (206, &whole.bytes[2..=5]));
    assert_eq!(part.header("content-range"), format!("bytes 2-5/{}", whole.bytes.len()));
    let if_range = async |tag: &str| {
        get(&setup.http, &url, &[("range", "bytes=2-5"), ("if-range", tag)]).await.status
    };
    assert_eq!(if_range(whole.header("etag")).await, 206);
    assert_eq!(if_range("\"of another image\"").await, 200, "a part of another image is no use");
    let outside = get(&setup.http, &url, &[("range", "bytes=999999-")]).await;
    assert_eq!((outside.status, outside.bytes.len()), (416, 0));
    let svg = setup.image("/svg", "").replace("/image?", "/original?");
    assert_eq!(setup.get(&svg).await.error(), "not_an_image");
    // What looks like a range does not hold for variants.
    let variant =
        get(&setup.http, &setup.image("/picture/1", "&w=20"), &[("range", "bytes=0-1")]).await;
    assert_eq!(variant.status, 200);
}

#[tokio::test]
async fn format_follows_accept() {
    let setup = Setup::new(&[]).await;
    let url = setup.image("/picture/1", "&w=40&format=png");
    assert_eq!(setup.get(&url).await.header("content-type"), "image/png");
    // A JPEG stays one: WebP without loss would be many times larger.
    let accept = [("accept", "image/avif,image/webp,*/*;q=0.8")];
    let photograph = get(&setup.http, &setup.image("/picture/1", "&w=40"), &accept).await;
    assert_eq!(photograph.header("content-type"), "image/jpeg");
    let explicit = setup.get(&setup.image("/picture/1", "&w=40&format=webp")).await;
    assert_eq!(explicit.header("content-type"), "image/webp");
}

#[tokio::test]
async fn presets_and_paths_name_variants() {
    let setup = Setup::new(&["--presets=face:w=40&h=40&fit=cover", "--only-presets"]).await;
    assert_eq!(setup.get(&setup.image("/picture/1", "&preset=face")).await.size(), (40, 40));
    assert_eq!(setup.get(&setup.image("/picture/1", "&w=40")).await.error(), "bad_request");
    let open = Setup::new(&[]).await;
    let base = format!("http://{}/thumb", open.service.address());
    let path = format!("{base}/40x40/{}?fit=cover", open.origin.url("/picture/1"));
    assert_eq!(open.get(&path).await.size(), (40, 40));
    assert_eq!(open.get(&format!("{base}/40/{}", open.origin.url("/picture/1"))).await.status, 400);
}

#[tokio::test]
async fn fallback_image_replaces_an_original_that_cannot_be_had() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("fallback.jpg");
    std::fs::write(&file, common::origin::picture(77)).expect("written");
    let setup = Setup::new(&[&format!("--fallback-image={}", file.display())]).await;
    let missing = setup.get(&setup.image("/missing", "&w=40")).await;
    assert_eq!((missing.status, missing.header("content-type")), (404, "image/jpeg"));
    assert_eq!(
        (missing.header("x-images-error"), missing.bytes.clone()),
        ("origin_not_found", common::origin::picture(77))
    );
    assert_eq!(setup.get(&setup.image("/picture/1", "&w=x")).await.error(), "bad_request");
}

#[tokio::test]
async fn full_queue_gets_503_and_an_old_image_where_there_is_one() {
    let setup = Setup::new(&["--fetches=1", "--requests=300", "--stale-while=0"]).await;
    let old = setup.get(&setup.image("/picture/9", "&w=20")).await;
    assert_eq!(
        purge(&setup.http, setup.service.address(), "host=127.0.0.1&soft=1").await.status,
        200
    );
    // One fetch runs and four wait; each waits for an origin that does not answer.
    let blocked: Vec<_> = (0..5)
        .map(|n| {
            let (http, url) = (setup.http.clone(), setup.image("/silent", &format!("%3F{n}")));
            tokio::spawn(async move { http.get(url).send().await.map(drop) })
        })
        .collect();
    until_async("four fetches wait", async || setup.metric("images_fetches_waiting").await == 4)
        .await;
    let refused = setup.get(&setup.image("/picture/10", "&w=20")).await;
    assert_eq!(
        (refused.status, &*refused.error(), refused.header("retry-after")),
        (503, "busy", "1")
    );
    let stale = setup.get(&setup.image("/picture/9", "&w=20")).await;
    assert_eq!((stale.status, stale.bytes), (200, old.bytes));
    blocked.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn slow_host_leaves_places_to_others() {
    let setup = Setup::new(&["--fetches=4"]).await;
    let other = Origin::start_at([127, 0, 0, 2].into()).await;
    // One fetch runs and four wait, although three more places are free.
    let blocked: Vec<_> = (0..5)
        .map(|n| {
            let (http, url) = (setup.http.clone(), setup.image("/silent", &format!("%3F{n}")));
            tokio::spawn(async move { http.get(url).send().await.map(drop) })
        })
        .collect();
    until_async("four fetches wait", async || setup.metric("images_fetches_waiting").await == 4)
        .await;
    assert_eq!(setup.metric("images_fetches_running").await, 1);
    assert_eq!(setup.get(&setup.image("/picture/1", "&w=20")).await.error(), "busy");
    for number in 0..3 {
        let path = format!("/picture/{number}");
        let url = image(setup.service.address(), &other, &path, "&w=20");
        assert_eq!(setup.get(&url).await.status, 200);
    }
    blocked.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn answer_that_is_not_read_keeps_its_place() {
    let setup = Setup::new(&["--requests=1"]).await;
    let url = setup.image("/large", "").replace("/image?", "/original?");
    let target = url.strip_prefix("http://").and_then(|url| url.split_once('/')).expect("a path").1;
    let mut slow = TcpStream::connect(setup.service.address()).await.expect("connected");
    let head = format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.write_all(head.as_bytes()).await.expect("written");
    slow.read_u8().await.expect("the answer begins");
    let picture = setup.image("/picture/1", "&w=20");
    assert_eq!(setup.get(&picture).await.error(), "busy");
    drop(slow);
    until_async("the place is free", async || setup.get(&picture).await.status == 200).await;
}

#[tokio::test]
async fn work_whose_caller_went_away_keeps_its_place() {
    let setup = Setup::new(&["--requests=1", "--fetch-first-byte=1s"]).await;
    let (http, url) = (setup.http.clone(), setup.image("/silent", "&w=20"));
    let caller = tokio::spawn(async move { http.get(url).send().await.map(drop) });
    until_async("the fetch runs", async || setup.metric("images_fetches_running").await == 1).await;
    caller.abort();
    let picture = setup.image("/picture/1", "&w=20");
    let refused = setup.get(&picture).await.status;
    // The fetch may be over on a slow machine.
    assert!(refused == 503 || setup.metric("images_fetches_running").await == 0);
    until_async("the place is free", async || setup.get(&picture).await.status == 200).await;
}

#[tokio::test]
async fn service_works_without_any_node() {
    let Setup { origin, node, service, http } = Setup::new(&[]).await;
    let of =
        |number: usize| image(service.address(), &origin, &format!("/picture/{number}"), "&w=20");
    assert_eq!(get(&http, &of(1), &[]).await.status, 200);
    tokio::task::spawn_blocking(|| node.kill()).await.expect("killed");
    for number in 1..4 {
        assert_eq!(get(&http, &of(number), &[]).await.status, 200, "{number}");
    }
}

#[tokio::test]
async fn process_says_how_it_is() {
    let setup = Setup::new(&["--gallery"]).await;
    let base = format!("http://{}", setup.service.address());
    assert_eq!(setup.get(&format!("{base}/healthz")).await.bytes, b"ok\n");
    let ready = setup.get(&format!("{base}/readyz")).await;
    let body: serde_json::Value = serde_json::from_slice(&ready.bytes).expect("JSON");
    assert_eq!((ready.status, &body["workers"], &body["cache_nodes"]), (200, &1.into(), &1.into()));
    setup.get(&setup.image("/picture/1", "&w=20")).await;
    let metrics = setup.get(&format!("{base}/metrics")).await;
    let text = String::from_utf8(metrics.bytes.clone()).expect("a text");
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        "images_requests_total{outcome=\"miss\"} 1",
        "images_conversions_started_total 1",
        "images_cache_nodes 1",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert_eq!(
        setup.get(&format!("{base}/")).await.header("content-type"),
        "text/html; charset=utf-8"
    );
    let lost = setup.get(&format!("{base}/images")).await;
    assert_eq!((lost.status, &*lost.error()), (404, "no_such_path"));
    assert_eq!(
        setup.http.post(format!("{base}/internal/image")).send().await.expect("an answer").status(),
        404
    );
}
