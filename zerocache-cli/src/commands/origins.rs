//! The other places that an entry's writer named: whether they still have the value.
//!
//! They are asked by HEAD, with the certificate authorities that the system trusts, and without anything of this
//! cluster's. That the length is the same is all that can be said: entity tags of two servers have nothing in common.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

/// The most redirections that are followed.
const REDIRECTS_MAX: usize = 3;

/// The most places that are asked at a time.
const AT_A_TIME: usize = 8;

/// Asks places, each with the length of the value that is stored, and describes them in their order.
pub(super) async fn verify(places: Vec<(String, Option<u64>)>, timeout: Duration) -> Vec<Json> {
    let mut described = vec![Json::Null; places.len()];
    let (mut asked, mut places) = (JoinSet::new(), places.into_iter().enumerate());
    loop {
        while asked.len() < AT_A_TIME
            && let Some((at, (url, length))) = places.next()
        {
            asked.spawn(async move { (at, describe(&url, length, timeout).await) });
        }
        match asked.join_next().await {
            Some(Ok((at, place))) => described[at] = place,
            // A panic, which is none of the places' doing.
            Some(Err(_)) => {}
            None => return described,
        }
    }
}

/// Returns whether there is nothing to say of a place.
pub(super) fn is_good(place: &Json) -> bool {
    matches!(place["verdict"].as_str(), Some("same" | "there"))
}

async fn describe(url: &str, length: Option<u64>, timeout: Duration) -> Json {
    let answer = match tokio::time::timeout(timeout, head(url)).await {
        Ok(answer) => answer,
        Err(_) => Err("no answer in time".to_owned()),
    };
    let (status, headers) = match answer {
        Ok(answer) => answer,
        Err(reason) => return json!({ "url": url, "verdict": "unreachable", "reason": reason }),
    };
    let bytes = headers.get(CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok());
    json!({
        "url": url,
        "status": status.as_u16(),
        "bytes": bytes,
        "verdict": verdict(status, bytes, length),
    })
}

/// The verdict on a place that answered.
fn verdict(status: StatusCode, bytes: Option<u64>, length: Option<u64>) -> &'static str {
    match (status, bytes) {
        (StatusCode::NOT_FOUND | StatusCode::GONE, _) => "gone",
        (status, _) if !status.is_success() => "refused",
        (_, Some(_)) if length.is_some() && bytes == length => "same",
        (_, Some(_)) if length.is_some() => "other",
        (_, _) => "there",
    }
}

/// Asks a place, and those to which it redirects.
async fn head(url: &str) -> Result<(StatusCode, HeaderMap), String> {
    let mut uri: Uri = url.parse().map_err(|_| "no URL".to_owned())?;
    for _ in 0..=REDIRECTS_MAX {
        let (parts, _) = head_once(&uri).await?.into_parts();
        let to = parts.headers.get(LOCATION).filter(|_| parts.status.is_redirection());
        let Some(to) = to.and_then(|to| to.to_str().ok()) else {
            return Ok((parts.status, parts.headers));
        };
        uri = redirected(&uri, to).ok_or_else(|| format!("redirected to {to:?}"))?;
    }
    Err("redirected too often".to_owned())
}

/// The URL of a redirection, which may be a path.
fn redirected(from: &Uri, to: &str) -> Option<Uri> {
    if to.starts_with('/') && !to.starts_with("//") {
        let authority = from.authority()?.as_str();
        return Uri::builder()
            .scheme(from.scheme_str()?)
            .authority(authority)
            .path_and_query(to)
            .build()
            .ok();
    }
    to.parse::<Uri>().ok().filter(|uri| uri.authority().is_some())
}

async fn head_once(uri: &Uri) -> Result<Response<Incoming>, String> {
    let authority = uri.authority().ok_or("no host")?;
    let is_encrypted = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("neither http nor https".to_owned()),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .method(Method::HEAD)
        .uri(path)
        .header(HOST, authority.as_str().rsplit('@').next().unwrap_or_default())
        .header(USER_AGENT, concat!("zerocache/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT_ENCODING, "identity")
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    if !is_encrypted {
        return send(stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(trusting_system()?));
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    send(stream, request).await
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, String> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    // It ends with this function.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    sender.send_request(request).await.map_err(|error| error.to_string())
}

/// The authorities that the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others.
fn trusting_system() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err("the system trusts no certificate authority".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers each connection with the next of these, and its address.
    fn server(answers: Vec<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("is bound").to_string();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut request = [0; 1024];
                let read = stream.read(&mut request).expect("a request");
                assert!(request[..read].starts_with(b"HEAD /"), "{:?}", &request[..read]);
                stream.write_all(answer.as_bytes()).expect("is read");
            }
        });
        address
    }

    fn asked(url: String, length: u64) -> Json {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let place = verify(vec![(url, Some(length))], Duration::from_secs(5));
        runtime.expect("a runtime").block_on(place).remove(0)
    }

    fn answer(status: &str, header: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{header}\r\nconnection: close\r\n\r\n")
    }

    #[test]
    fn a_place_has_the_value_another_one_or_none() {
        for (status, header, verdict) in [
            ("200 OK", "content-length: 7", "same"),
            ("200 OK", "content-length: 8", "other"),
            ("200 OK", "x: y", "there"),
            ("404 Not Found", "content-length: 0", "gone"),
            ("403 Forbidden", "content-length: 0", "refused"),
        ] {
            let url = format!("http://{}/logo.png", server(vec![answer(status, header)]));
            let place = asked(url, 7);
            assert_eq!(place["verdict"], verdict, "{place}");
        }
    }

    #[test]
    fn redirections_are_followed_and_bounded() {
        let moved = |to: &str| answer("302 Found", &format!("location: {to}"));
        let url = |answers| format!("http://{}/a?b", server(answers));
        let good = answer("200 OK", "content-length: 7");
        assert_eq!(asked(url(vec![moved("/c"), good]), 7)["verdict"], "same");
        let often = asked(url(vec![moved("/c"); 4]), 7);
        assert_eq!(often["reason"], "redirected too often");
        let elsewhere = asked(url(vec![moved("file:///etc/passwd")]), 7);
        assert_eq!(elsewhere["verdict"], "unreachable", "{elsewhere}");
    }

    #[test]
    fn what_cannot_be_asked_says_why() {
        let place = asked("ftp://127.0.0.1/x".to_owned(), 7);
        assert_eq!(place["reason"], "neither http nor https");
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("is bound");
        drop(listener);
        let place = asked(format!("http://{address}/"), 7);
        assert_eq!(place["verdict"], "unreachable", "{place}");
        assert!(!is_good(&place));
    }
}
