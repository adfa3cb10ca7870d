//! Origins that lie, drip, never end and send elsewhere: each costs its own request, within its bounds.

mod common;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use common::origin::{Origin, picture};
use images::clock::now;
use images::convert::Kind;
use images::failure::Failure;
use images::fetch::{FetchLimits, Fetcher};
use images::source::{Source, SourceRules};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// No test waits for longer than this for one fetch.
const FETCH_MAX: Duration = Duration::from_millis(1_900);

const LIMITS: FetchLimits = FetchLimits {
    connect: Duration::from_millis(300),
    first_byte: Duration::from_millis(300),
    total: Duration::from_millis(1_500),
    bytes: 256 << 10,
    rate: 16 << 10,
    rate_interval: Duration::from_millis(200),
};

fn fetcher(networks: &[&str]) -> Fetcher {
    with_authority(networks, b"")
}

fn with_authority(networks: &[&str], authority: &[u8]) -> Fetcher {
    let networks = networks.iter().map(|text| text.parse().expect("a network")).collect();
    let ports = vec!["1-65535".parse().expect("ports")];
    let rules = SourceRules { networks, ports, hosts: Vec::new() };
    Fetcher::new(rules, LIMITS, authority).expect("a fetcher")
}

async fn fetch(fetcher: &Fetcher, url: &str) -> Result<(Kind, usize), Failure> {
    let begin = now();
    let fetched = fetcher.fetch(&Source::parse(url).expect("a source")).await;
    let took = now() - begin;
    assert!(took < FETCH_MAX, "{url} took {took:?}");
    fetched.map(|(kind, bytes)| (kind, bytes.len()))
}

#[tokio::test]
async fn original_is_fetched_and_its_type_is_that_of_its_bytes() {
    let origin = Origin::start().await;
    let fetcher = fetcher(&["127.0.0.0/8"]);
    let length = picture(0).len();
    for path in
        ["/picture/0", "/chunked", "/wrong-type", "/redirect/1", "/redirect/3", "/endless-head-no"]
    {
        let fetched = fetch(&fetcher, &origin.url(path)).await;
        match path {
            "/endless-head-no" => assert_eq!(fetched, Err(Failure::OriginNotFound)),
            _ => assert_eq!(fetched, Ok((Kind::Jpeg, length)), "{path}"),
        }
    }
}

#[tokio::test]
async fn origin_that_lies_or_is_slow_fails_within_its_bounds() {
    let origin = Origin::start().await;
    let fetcher = fetcher(&["127.0.0.0/8"]);
    let table = [
        ("/length-too-long", Failure::OriginFailed),
        ("/length-huge", Failure::TooLarge),
        ("/endless", Failure::TooLarge),
        ("/drip", Failure::OriginTimeout),
        ("/drip-head", Failure::OriginTimeout),
        ("/endless-head", Failure::OriginFailed),
        ("/silent", Failure::OriginTimeout),
        ("/closed", Failure::OriginFailed),
        ("/not-http", Failure::OriginFailed),
        ("/html", Failure::NotAnImage),
        ("/svg", Failure::NotAnImage),
        ("/empty", Failure::NotAnImage),
        ("/gzip", Failure::OriginFailed),
        ("/missing", Failure::OriginNotFound),
        ("/gone", Failure::OriginNotFound),
        ("/error", Failure::OriginFailed),
        ("/unauthorized", Failure::OriginFailed),
        ("/redirect/4", Failure::OriginFailed),
        ("/redirect-loop", Failure::OriginFailed),
        ("/redirect-nowhere", Failure::OriginFailed),
        ("/redirect-to?file:///etc/passwd", Failure::OriginFailed),
        ("/redirect-to?gopher://127.0.0.1/", Failure::OriginFailed),
    ];
    let fetches = table.iter().map(|(path, _)| {
        let (fetcher, url) = (fetcher.clone(), origin.url(path));
        tokio::spawn(async move { fetch(&fetcher, &url).await })
    });
    let fetches: Vec<_> = fetches.collect();
    for ((path, expected), fetched) in table.into_iter().zip(fetches) {
        assert_eq!(fetched.await.expect("no panic"), Err(expected), "{path}");
    }
}

#[tokio::test]
async fn redirect_to_an_address_inside_is_refused() {
    let origin = Origin::start().await;
    let inside = Origin::start_at([127, 0, 0, 2].into()).await;
    // Only the first origin's address is allowed.
    let fetcher = fetcher(&["127.0.0.1/32"]);
    let port = inside.address().port();
    let targets = [
        format!("http://127.0.0.2:{port}/picture/0"),
        format!("//127.0.0.2:{port}/picture/0"),
        format!("http://2130706434:{port}/picture/0"),
        format!("http://[::ffff:127.0.0.2]:{port}/picture/0"),
        "http://[::1]/picture/0".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://10.0.0.1/".to_owned(),
    ];
    for target in targets {
        let url = origin.url(&format!("/redirect-to?{target}"));
        assert_eq!(fetch(&fetcher, &url).await, Err(Failure::AddressRefused), "{target}");
    }
    assert_eq!(inside.requests(), 0, "something connected to an address that is not allowed");
}

#[tokio::test]
async fn name_that_resolves_to_an_address_inside_is_refused() {
    let origin = Origin::start().await;
    let port = origin.address().port();
    let names = HashMap::from([
        ("inside.example.org".to_owned(), vec![IpAddr::from([127, 0, 0, 1])]),
        ("mapped.example.org".to_owned(), vec!["::ffff:127.0.0.1".parse().expect("an address")]),
        ("nowhere.example.org".to_owned(), Vec::new()),
    ]);
    let strict = fetcher(&[]).with_names(names.clone());
    for name in ["localhost", "inside.example.org", "mapped.example.org", "nowhere.example.org"] {
        let fetched = fetch(&strict, &format!("http://{name}:{port}/picture/0")).await;
        assert_eq!(fetched, Err(Failure::AddressRefused), "{name}");
    }
    assert_eq!(origin.requests(), 0);
    let open = fetcher(&["127.0.0.0/8"]).with_names(names);
    assert!(fetch(&open, &format!("http://inside.example.org:{port}/picture/0")).await.is_ok());
}

#[tokio::test]
async fn of_the_addresses_of_a_name_only_allowed_ones_are_tried() {
    let origin = Origin::start_at([127, 0, 0, 3].into()).await;
    let other =
        Origin::start_on(SocketAddr::new([127, 0, 0, 4].into(), origin.address().port())).await;
    let both = vec![IpAddr::from([127, 0, 0, 4]), IpAddr::from([127, 0, 0, 3])];
    let fetcher =
        fetcher(&["127.0.0.3"]).with_names(HashMap::from([("both.example.org".to_owned(), both)]));
    let url = format!("http://both.example.org:{}/picture/0", origin.address().port());
    assert!(fetch(&fetcher, &url).await.is_ok());
    assert_eq!((origin.requests(), other.requests()), (1, 0));
}

#[tokio::test]
async fn certificate_of_an_origin_is_verified() {
    let made = rcgen::generate_simple_self_signed(["secure.example.org".to_owned()])
        .expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .expect("a key");
    let address = serve_tls(made.cert.der().clone(), key).await;
    let names = ["secure.example.org", "other.example.org"]
        .map(|name| (name.to_owned(), vec![IpAddr::from([127, 0, 0, 1])]));
    let names = HashMap::from(names);
    let url = format!("https://secure.example.org:{}/", address.port());
    let other = format!("https://other.example.org:{}/", address.port());
    let unknown = fetcher(&["127.0.0.0/8"]).with_names(names.clone());
    assert_eq!(fetch(&unknown, &url).await, Err(Failure::OriginFailed));
    let known = with_authority(&["127.0.0.0/8"], made.cert.pem().as_bytes()).with_names(names);
    assert_eq!(fetch(&known, &url).await, Ok((Kind::Jpeg, picture(0).len())));
    assert_eq!(fetch(&known, &other).await, Err(Failure::OriginFailed));
}

/// Answers each request with a picture, over TLS, as long as the runtime lives.
async fn serve_tls(
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _head = stream.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", picture(0).len());
            let _gone = stream.write_all(&[head.as_bytes(), &picture(0)].concat()).await;
            let _gone = stream.shutdown().await;
        }
    });
    address
}

#[tokio::test]
async fn origin_gets_no_secrets_of_the_service() {
    let origin = Origin::start().await;
    fetch(&fetcher(&["127.0.0.0/8"]), &origin.url("/picture/0")).await.expect("fetched");
    let head = origin.last_head().to_ascii_lowercase();
    for secret in ["cookie", "authorization", "referer", "x-images-key"] {
        assert!(!head.contains(secret), "{head}");
    }
    assert!(
        head.starts_with("get /picture/0 http/1.1\r\n") && head.contains("\r\nhost: 127.0.0.1:"),
        "{head}"
    );
}
