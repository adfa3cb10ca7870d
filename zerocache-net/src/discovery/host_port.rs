//! `HOST:PORT` in configuration.

use std::{fmt, net::SocketAddr, str::FromStr};

use thiserror::Error;

/// A host name or IP address with a port.
///
/// Written `HOST:PORT`; an IPv6 address in brackets, `[::1]:6789`. A name is 1 to 253 bytes of
/// letters, digits, `-`, `_` and `.`; the port is 1 to 65535.
///
/// ```
/// use std::net::SocketAddr;
/// use zerocache_net::discovery::HostPort;
///
/// let name = HostPort::try_from("cache.internal:6789")?;
/// assert_eq!((name.host(), name.port()), ("cache.internal", 6789));
/// let address = HostPort::try_from(SocketAddr::from(([127, 0, 0, 2], 6789)))?;
/// assert_eq!(address, "127.0.0.2:6789".parse()?);
/// # Ok::<_, zerocache_net::discovery::HostPortError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// A text that is not `HOST:PORT`.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{given:?}: {why}; expected HOST:PORT, such as cache.internal:6789 or [::1]:6789")]
pub struct HostPortError {
    given: String,
    why: &'static str,
}

impl HostPort {
    /// Returns the name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |why| HostPortError { given: text.chars().take(300).collect(), why };
        let (host, port) = text.rsplit_once(':').ok_or(wrong("has no port"))?;
        let port = match port.parse() {
            Ok(0) => return Err(wrong("port 0 cannot be dialled")),
            // `parse` takes a leading plus sign.
            Ok(number) if port.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => return Err(wrong("the port is not a number from 1 to 65535")),
        };
        if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return match inner.parse::<std::net::Ipv6Addr>() {
                Ok(_) => Ok(Self { host: inner.to_owned(), port }),
                Err(_) => Err(wrong("the brackets hold no IPv6 address")),
            };
        }
        if host.contains(':') {
            return Err(wrong("an IPv6 address stands in brackets"));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(fits) {
            return Err(wrong("the host is not a name of 1 to 253 letters, digits, - _ and ."));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl TryFrom<&str> for HostPort {
    type Error = HostPortError;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Any address but one with port 0, or with an IPv6 scope, which has no place in configuration.
impl TryFrom<SocketAddr> for HostPort {
    type Error = HostPortError;

    fn try_from(address: SocketAddr) -> Result<Self, Self::Error> {
        address.to_string().parse()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_parsed() {
        for text in ["localhost:1", "a-b.c_d.svc.cluster.local.:6789", "127.0.0.2:65535", "[::1]:9"]
        {
            let name: HostPort = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
        }
        let name: HostPort = "[::1]:9".parse().unwrap();
        assert_eq!((name.host(), name.port()), ("::1", 9));
    }

    #[test]
    fn socket_addresses_that_can_be_dialled_are_accepted() {
        for text in ["127.0.0.2:6789", "[::1]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(HostPort::try_from(address).unwrap().to_string(), text);
            assert_eq!(HostPort::try_from(text), HostPort::try_from(address));
        }
        for text in ["127.0.0.2:0", "[fe80::1%2]:9"] {
            assert!(HostPort::try_from(text.parse::<SocketAddr>().unwrap()).is_err(), "{text}");
        }
    }

    #[test]
    fn error_says_what_is_wrong() {
        for (text, why) in [
            ("host", "no port"),
            ("host:", "not a number"),
            ("host:+1", "not a number"),
            ("host:65536", "not a number"),
            ("host:0", "port 0"),
            ("::1:80", "in brackets"),
            ("[::1:80", "in brackets"),
            ("[x]:80", "no IPv6"),
            (":80", "not a name"),
            ("a b:80", "not a name"),
            ("http://a:80", "in brackets"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(error.contains("expected HOST:PORT"));
        }
        assert!(format!("{}:80", "a".repeat(254)).parse::<HostPort>().is_err());
    }
}
