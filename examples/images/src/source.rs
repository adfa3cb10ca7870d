//! Sources: the URLs of originals, and which of them are fetched.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use url::{Host, Url};

use crate::addresses::{self, Network};
use crate::failure::Failure;

/// The longest URL of an original, in bytes.
pub const URL_BYTES_MAX: usize = 2_048;

/// Separates the hashes of URLs from other hashes; another text makes all stored images new ones.
const CONTEXT: &str = "zerocache images 2026-11-29 URL of an original";

/// The sources that the service fetches.
#[derive(Clone, Debug)]
pub struct SourceRules {
    /// The hosts; none for all.
    pub hosts: Vec<HostPattern>,
    /// Networks that are allowed although they are not public.
    pub networks: Vec<Network>,
    /// The ports.
    pub ports: Vec<Ports>,
}

impl Default for SourceRules {
    fn default() -> Self {
        let ports = vec![Ports(80..=80), Ports(443..=443)];
        Self { hosts: Vec::new(), networks: Vec::new(), ports }
    }
}

impl SourceRules {
    /// Accepts a URL, as far as that is possible before its name is resolved.
    ///
    /// # Errors
    /// [`Failure::SourceRefused`], [`Failure::PortRefused`] or [`Failure::AddressRefused`], or
    /// [`Failure::BadRequest`] for a scheme that is no HTTP.
    pub fn check(&self, url: &Url) -> Result<(), Failure> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::bad("url: only http and https are fetched"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Failure::bad("url: a name or password in it is not sent"));
        }
        let port = url.port_or_known_default().ok_or(Failure::SourceRefused)?;
        // The parser has made an address of every form of one: 2130706433, 0x7f.1, 127.1.
        let address = match url.host().ok_or(Failure::SourceRefused)? {
            Host::Domain(_) => None,
            Host::Ipv4(v4) => Some(IpAddr::from(v4)),
            Host::Ipv6(v6) => Some(IpAddr::from(v6)),
        };
        let host = url.host_str().unwrap_or_default().trim_end_matches('.');
        if !self.hosts.is_empty() && !self.hosts.iter().any(|pattern| pattern.matches(host)) {
            return Err(Failure::SourceRefused);
        }
        if address.is_some_and(|address| !self.allows(address)) {
            return Err(Failure::AddressRefused);
        }
        if !self.ports.iter().any(|ports| ports.0.contains(&port)) {
            return Err(Failure::PortRefused);
        }
        Ok(())
    }

    /// Whether the service may connect to an address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        addresses::is_allowed(address, &self.networks)
    }
}

/// A host (`images.example.org`), or all below one (`*.example.org`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    name: String,
    below: bool,
}

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        if !self.below {
            return host == self.name;
        }
        host.strip_suffix(&self.name)
            .is_some_and(|prefix| prefix.len() > 1 && prefix.ends_with('.'))
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let host = Host::parse(name)
            .map_err(|_| format!("{text:?} is not a host; write example.org or *.example.org"))?;
        Ok(Self { name: host.to_string(), below })
    }
}

/// Ports: one (`443`), or a range (`8000-8999`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(format!("{text:?} is not a port; write 443 or 8000-8999")),
        }
    }
}

/// The hash of an original's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceHash(pub [u8; 16]);

impl fmt::Display for SourceHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The URL of an original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    url: Url,
    hash: SourceHash,
}

impl Source {
    /// Reads a URL. What is after `#` does not count.
    ///
    /// # Errors
    /// [`Failure::BadRequest`] when it is none, or too long, before or after it is escaped.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let bounded = |text: &str| match text.len() {
            ..=URL_BYTES_MAX => Ok(()),
            _ => Err(Failure::bad(format!("url: at most {URL_BYTES_MAX} bytes are allowed"))),
        };
        bounded(text)?;
        let mut url =
            Url::parse(text).map_err(|_| Failure::bad("url: it is not an absolute URL"))?;
        url.set_fragment(None);
        bounded(url.as_str())?;
        let hash =
            blake3::Hasher::new_derive_key(CONTEXT).update(url.as_str().as_bytes()).finalize();
        let mut short = [0; 16];
        short.copy_from_slice(&hash.as_bytes()[..16]);
        Ok(Self { url, hash: SourceHash(short) })
    }

    /// The URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The hash of the URL.
    #[must_use]
    pub fn hash(&self) -> SourceHash {
        self.hash
    }

    /// The tag of the original and of all its variants.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("orig:{}", self.hash)
    }

    /// The tag of everything from the host, which is hashed: tags are short.
    #[must_use]
    pub fn host_tag(&self) -> String {
        host_tag(self.url.host_str().unwrap_or_default())
    }
}

/// The tag of everything from a host.
#[must_use]
pub fn host_tag(host: &str) -> String {
    // 128 bytes are allowed in a tag, 253 in a name.
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.len() <= 100 {
        format!("host:{host}")
    } else {
        format!("host:{}", blake3::hash(host.as_bytes()).to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &SourceRules, text: &str) -> Result<(), Failure> {
        rules.check(Source::parse(text)?.url())
    }

    #[test]
    fn every_form_of_an_address_inside_is_refused() {
        let rules = SourceRules::default();
        let inside = [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://017700000001/",
            "http://127.0.1/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::]/",
            "http://0/",
            "http://0.0.0.0/",
            "http://10.0.0.1/",
            "http://192.168.0.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://[64:ff9b::127.0.0.1]/",
            "http://[2002:7f00:1::]/",
            "http://１２７.0.0.1/",
            "http://%31%32%37.0.0.1/",
            "http:\\\\127.0.0.1/",
            "http:127.0.0.1",
            "http://127.0.0.1./",
            "http://127。0。0。1/",
        ];
        for text in inside {
            assert_eq!(check(&rules, text), Err(Failure::AddressRefused), "{text}");
        }
    }

    #[test]
    fn urls_that_are_not_plain_http_are_bad_requests() {
        let rules = SourceRules::default();
        let wrong = [
            "",
            "a.jpg",
            "//example.org/a.jpg",
            "file:///etc/passwd",
            "ftp://example.org/a.jpg",
            "data:image/png;base64,AAAA",
            "gopher://example.org/",
            "http://",
            "javascript:alert(1)",
            "http://user@example.org/",
            "http://user:password@example.org/",
            "http://[::1%25eth0]/",
        ];
        for text in wrong {
            assert!(matches!(check(&rules, text), Err(Failure::BadRequest(_))), "{text}");
        }
        let long = format!("http://example.org/{}", "a".repeat(URL_BYTES_MAX));
        assert!(matches!(check(&rules, &long), Err(Failure::BadRequest(_))));
        let long_when_escaped = format!("http://example.org/{}", "é".repeat(URL_BYTES_MAX / 4));
        assert!(matches!(check(&rules, &long_when_escaped), Err(Failure::BadRequest(_))));
    }

    #[test]
    fn ports_and_hosts_can_be_limited() {
        let mut rules = SourceRules::default();
        assert_eq!(check(&rules, "https://example.org/a.jpg"), Ok(()));
        assert_eq!(check(&rules, "https://example.org:8443/a.jpg"), Err(Failure::PortRefused));
        rules.ports.push("8000-8999".parse().expect("ports"));
        assert_eq!(check(&rules, "https://example.org:8443/a.jpg"), Ok(()));
        rules.hosts =
            vec!["example.org".parse().expect("a host"), "*.Example.NET".parse().expect("a host")];
        for host in
            ["example.org", "EXAMPLE.org", "example.org.", "a.example.net", "a.b.example.net"]
        {
            assert_eq!(check(&rules, &format!("http://{host}/")), Ok(()), "{host}");
        }
        for host in
            ["a.example.org", "example.net", "notexample.net", "example.org.evil.com", "1.1.1.1"]
        {
            assert_eq!(
                check(&rules, &format!("http://{host}/")),
                Err(Failure::SourceRefused),
                "{host}"
            );
        }
        assert!("9-1".parse::<Ports>().is_err() && "70000".parse::<Ports>().is_err());
        assert!("a b".parse::<HostPattern>().is_err() && "".parse::<HostPattern>().is_err());
    }

    #[test]
    fn equal_urls_have_equal_hashes() {
        let hash = |text| Source::parse(text).expect("a source").hash();
        assert_eq!(hash("http://Example.org/a#x"), hash("http://example.org:80/a"));
        assert_ne!(hash("http://example.org/a"), hash("http://example.org/b"));
        let source = Source::parse("http://Example.org/a").expect("a source");
        assert_eq!(source.host_tag(), "host:example.org");
        assert_eq!(source.tag().len(), "orig:".len() + 32);
        assert!(host_tag(&"a".repeat(250)).len() <= 128);
    }
}
