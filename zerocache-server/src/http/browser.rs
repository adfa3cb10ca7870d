//! Refuses the requests of web pages that reached the node under a name of their own, or may not change anything.
//!
//! A page of `evil.example` may let that name point to a node that the browser reaches, and then counts
//! as the same origin (DNS rebinding). Browsers say that a page sent a request, and under which host name;
//! names that nobody can register are safe, others must be allowed. Programs send neither header.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request};

/// Browsers add it to every request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns whether a browser sent the request under a host name that may belong to somebody else.
pub(super) fn is_misled<B>(request: &Request<B>, allowed: &[Box<str>]) -> bool {
    let headers = request.headers();
    if !headers.contains_key(ORIGIN) && !headers.contains_key(&SEC_FETCH_SITE) {
        return false;
    }
    let stated = headers.get(HOST).and_then(|host| HeaderValue::to_str(host).ok());
    let in_target = request.uri().authority().map(|authority| authority.as_str());
    let is_safe = |authority| host_of(authority).is_some_and(|host| is_own_name(host, allowed));
    !stated.is_some_and(is_safe) || !in_target.is_none_or(is_safe)
}

/// Returns the host of `HOST[:PORT]`, with the brackets of an IPv6 address.
fn host_of(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rfind([':', ']']) {
        Some(colon) if authority[colon..].starts_with(':') => authority.split_at(colon),
        _ => (authority, ""),
    };
    let digits = port.strip_prefix(':').unwrap_or_default();
    digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(host)
}

/// Returns whether nobody else can own `host`, or it is among `allowed`.
fn is_own_name(host: &str, allowed: &[Box<str>]) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    host.parse::<Ipv4Addr>().is_ok()
        || (!host.is_empty() && host.bytes().all(is_label))
        || allowed.iter().any(|name| name.eq_ignore_ascii_case(host))
}

/// Returns whether a page of another origin sent the request.
pub(crate) fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text(SEC_FETCH_SITE) {
        return !matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(ORIGIN) else { return false };
    let authority = origin.split_once("://").map(|(_, authority)| authority);
    authority.is_none() || authority != text(HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(host: &str, allowed: &[&str]) -> bool {
        let allowed: Vec<Box<str>> = allowed.iter().map(|name| (*name).into()).collect();
        let request = |name| Request::get("/").header(HOST, host).header(name, "x").body(());
        let [by_origin, by_site] = ["Origin", "Sec-Fetch-Site"].map(|name| {
            let request = request(name).expect("a request");
            is_misled(&request, &allowed)
        });
        assert_eq!(by_origin, by_site, "{host}");
        let program = Request::get("/").header(HOST, host).body(()).expect("a request");
        assert!(!is_misled(&program, &allowed), "{host}");
        by_origin
    }

    #[test]
    fn names_that_nobody_can_register_are_safe() {
        for host in [
            "localhost",
            "LOCALHOST:6789",
            "127.0.0.1",
            "10.0.0.7:6789",
            "[::1]",
            "[fe80::1]:6789",
            "zerocache",
            "zerocache:6789",
            "node-1_a",
        ] {
            assert!(!is_refused(host, &[]), "{host}");
        }
    }

    #[test]
    fn other_names_must_be_allowed() {
        for host in [
            "evil.example",
            "evil.example:6789",
            "localhost.evil.example",
            "evil.localhost",
            "localhost.",
            "127.0.0.1.evil.example",
            "127.0.0.1.",
            "[::1].evil.example",
            "[evil.example]",
            "::1",
            "",
            ":6789",
            "localhost:80x",
            "user@localhost",
            "cache.shop.example",
            "xcache.shop.example",
        ] {
            assert!(is_refused(host, &["shop.example"]), "{host}");
        }
        assert!(!is_refused("Cache.Shop.example:6789", &["a", "cache.shop.EXAMPLE"]));
    }

    #[test]
    fn name_in_the_target_counts_as_well() {
        let request = |target: &str, host: Option<&str>| {
            let mut builder = Request::get(target).header(ORIGIN, "null");
            if let Some(host) = host {
                builder = builder.header(HOST, host);
            }
            is_misled(&builder.body(()).expect("a request"), &[])
        };
        assert!(request("http://evil.example/", Some("localhost")));
        assert!(!request("http://127.0.0.1:1/", Some("127.0.0.1:1")));
        assert!(request("/", None));
    }

    #[test]
    fn pages_of_other_origins_are_recognised() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter();
            let pairs = pairs.map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            pairs.collect::<HeaderMap>()
        };
        let host = ("host", "node:6789");
        assert!(!is_cross_site(&headers(&[host])));
        assert!(!is_cross_site(&headers(&[host, ("sec-fetch-site", "same-origin")])));
        assert!(!is_cross_site(&headers(&[host, ("sec-fetch-site", "none")])));
        assert!(!is_cross_site(&headers(&[host, ("origin", "https://node:6789")])));
        for site in ["cross-site", "same-site"] {
            assert!(is_cross_site(&headers(&[host, ("sec-fetch-site", site)])), "{site}");
        }
        for origin in ["null", "http://node", "http://evil.example"] {
            assert!(is_cross_site(&headers(&[host, ("origin", origin)])), "{origin}");
        }
    }
}
