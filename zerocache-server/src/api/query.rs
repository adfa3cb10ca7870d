//! Query parameters.

use std::{borrow::Cow, fmt::Write};

use zerocache_core::{metadata::Metadata, ttl::Ttl, wire::Ack};

use super::{error::ApiError, key};

/// The parameters of a PUT.
pub(super) const PUT: [&str; 6] = ["ttl", "ack", "stale-while", "stale-if-error", "tags", ORIGIN];

/// The parameter that may be repeated.
const ORIGIN: &str = "origin";

/// The query parameters of a request, each but [`ORIGIN`] at most once.
pub(super) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    pub(super) fn parse(query: &'a str) -> Result<Self, ApiError> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if name != ORIGIN && pairs.iter().any(|(other, _)| *other == name) {
                return Err(ApiError::bad_query(format!("the parameter {name:?} is given twice")));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_ref())
    }

    /// Refuses unknown parameters, which are mistakes that would go unnoticed.
    pub(super) fn allow(&self, names: &[&str]) -> Result<(), ApiError> {
        match self.pairs.iter().find(|(name, _)| !names.contains(&name.as_ref())) {
            Some((name, _)) => Err(ApiError::bad_query(format!("unknown parameter {name:?}"))),
            None => Ok(()),
        }
    }

    pub(super) fn ttl(&self) -> Result<Ttl, ApiError> {
        let Some(text) = self.get("ttl") else { return Ok(Ttl::HTTP_DEFAULT) };
        seconds(text).and_then(|seconds| Ttl::from_secs(seconds).ok()).ok_or_else(|| {
            ApiError::bad_ttl(format!(
                "ttl={text:?} is not a whole number of seconds from 1 to 99999999"
            ))
        })
    }

    /// Returns the lifetime of an entry, including its stale times.
    pub(super) fn lifetime(&self, metadata: &Metadata) -> Result<Ttl, ApiError> {
        metadata.life(self.ttl()?).map_err(|_| {
            ApiError::bad_ttl("ttl plus the longer stale time exceeds 99999999 seconds")
        })
    }

    /// Returns the metadata of a PUT.
    pub(super) fn metadata(&self) -> Result<Metadata, ApiError> {
        let mut metadata = Metadata::default();
        metadata.stale_while_ms = self.stale_ms("stale-while")?;
        metadata.stale_if_error_ms = self.stale_ms("stale-if-error")?;
        let tags = self.get("tags").filter(|tags| !tags.is_empty());
        for tag in tags.iter().flat_map(|tags| tags.split(',')) {
            let added = metadata.add_tag(decoded(tag)?);
            added.map_err(|error| ApiError::bad_query(format!("tags: {error}")))?;
        }
        for (_, url) in self.pairs.iter().filter(|(name, _)| name == ORIGIN) {
            let added = metadata.add_origin(url);
            added.map_err(|error| ApiError::bad_query(format!("{ORIGIN}: {error}")))?;
        }
        Ok(metadata)
    }

    /// Returns how long an entry is kept after its fresh time, in milliseconds.
    fn stale_ms(&self, name: &str) -> Result<u64, ApiError> {
        let Some(text) = self.get(name) else { return Ok(0) };
        let seconds = seconds(text).filter(|seconds| *seconds <= Ttl::MAX.as_millis() / 1_000);
        seconds.map(|seconds| seconds * 1_000).ok_or_else(|| {
            ApiError::bad_ttl(format!(
                "{name}={text:?} is not a whole number of seconds from 0 to 99999999"
            ))
        })
    }

    /// Returns whether a parameter is `true`; the default is `false`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                let message = format!("{name}={other:?} is neither \"true\" nor \"false\"");
                Err(ApiError::bad_query(message))
            }
        }
    }

    /// Returns the nodes that a delete or a purge waits for.
    pub(super) fn write_ack(&self) -> Result<WriteAck, ApiError> {
        match self.get("ack") {
            Some("nodes") => Ok(WriteAck::EachNode),
            _ => self.ack_of(", \"nodes\"").map(WriteAck::OfNode),
        }
    }

    /// Returns the nodes that a write waits for.
    pub(super) fn ack(&self) -> Result<Ack, ApiError> {
        self.ack_of("")
    }

    /// The same; `others` names what else is allowed.
    fn ack_of(&self, others: &str) -> Result<Ack, ApiError> {
        match self.get("ack") {
            None | Some("local") => Ok(Ack::Local),
            Some("region") => Ok(Ack::Region),
            Some("all") => Ok(Ack::All),
            Some(other) => {
                let message =
                    format!("ack={other:?} is none of \"local\", \"region\", \"all\"{others}");
                Err(ApiError::bad_query(message))
            }
        }
    }
}

/// The nodes that a delete or a purge waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteAck {
    /// Those that the node waits for itself.
    OfNode(Ack),
    /// Each known node.
    EachNode,
}

impl WriteAck {
    /// What the node is to wait for.
    pub(super) const fn of_node(self) -> Ack {
        match self {
            Self::OfNode(ack) => ack,
            Self::EachNode => Ack::Local,
        }
    }
}

/// Returns the tags of an entry in the form of the query parameter; none if it has no tags.
pub(super) fn tags_as_text(metadata: &Metadata) -> Option<String> {
    let mut text = String::new();
    for tag in metadata.tags() {
        if !text.is_empty() {
            text.push(',');
        }
        for byte in tag.bytes() {
            if byte.is_ascii_graphic() && !matches!(byte, b',' | b'%') {
                text.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _written = write!(text, "%{byte:02X}");
            }
        }
    }
    (!text.is_empty()).then_some(text)
}

fn decoded(text: &str) -> Result<Cow<'_, str>, ApiError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = key::percent_decode(text);
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.map(Cow::Owned)
        .ok_or_else(|| ApiError::bad_query("a parameter has invalid percent-encoding"))
}

/// Parses a whole number without a sign.
fn seconds(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use zerocache_core::metadata::TAGS_MAX;

    use super::*;

    fn ttl(query: &str) -> Option<u64> {
        Query::parse(query).ok()?.ttl().ok().map(Ttl::as_millis)
    }

    #[test]
    fn ttl_is_a_whole_number_of_seconds_in_range() {
        assert_eq!(ttl(""), Some(3_600_000));
        assert_eq!(ttl("ttl=1"), Some(1_000));
        assert_eq!(ttl("ttl=99999999"), Some(99_999_999_000));
        for bad in
            ["0", "100000000", "-1", "1.5", "", "abc", "+5", " 5", "99999999999999999999999", "%zz"]
        {
            assert_eq!(ttl(&format!("ttl={bad}")), None, "{bad}");
        }
        assert!(Query::parse("ttl=1&ttl=2").is_err());
        assert!(Query::parse("tll=1").is_ok_and(|query| query.allow(&["ttl"]).is_err()));
    }

    #[test]
    fn metadata_parameters_are_validated() {
        let metadata = |query: &str| Query::parse(query).ok()?.metadata().ok();
        let full = metadata("stale-while=60&stale-if-error=3600&tags=users,tenant:7%2CA%252CB");
        let full = full.expect("allowed");
        assert_eq!((full.stale_while_ms, full.stale_if_error_ms), (60_000, 3_600_000));
        assert_eq!(full.tags(), ["users", "tenant:7", "A,B"]);
        assert_eq!(tags_as_text(&full).as_deref(), Some("users,tenant:7,A%2CB"));
        let odd = metadata("tags=%25C3%25BC%2525+").expect("allowed");
        assert_eq!(tags_as_text(&odd).as_deref(), Some("%C3%BC%25+"));
        assert_eq!(tags_as_text(&Metadata::default()), None);
        assert_eq!(metadata("ttl=1"), Some(Metadata::default()));
        assert!(metadata("stale-while=99999999").is_some());
        for bad in ["stale-while=100000000", "stale-if-error=-1", "stale-while=1.5", "stale-while="]
        {
            assert_eq!(metadata(bad), None, "{bad}");
        }
        assert!(metadata(&format!("tags={}", "x".repeat(128))).is_some());
        assert_eq!(metadata(&format!("tags={}", "x".repeat(129))), None);
        assert_eq!(metadata("tags=%25zz"), None);
        assert_eq!(metadata("tags="), Some(Metadata::default()));
        for bad in ["tags=a,,b", "tags=,a", "tags=a,"] {
            assert_eq!(metadata(bad), None, "{bad}");
        }
        let origins = metadata("origin=s3://a/1&origin=http://b.example/%3Fx%3D1&origin=s3://a/1");
        assert_eq!(origins.expect("allowed").origins(), ["s3://a/1", "http://b.example/?x=1"]);
        for bad in [
            "origin=",
            "origin=/a",
            "origin=a://1&origin=a://2&origin=a://3&origin=a://4&origin=a://5",
        ] {
            assert_eq!(metadata(bad), None, "{bad}");
        }
        let many: Vec<_> = (0..=TAGS_MAX).map(|n| n.to_string()).collect();
        assert!(metadata(&format!("tags={}", many[1..].join(","))).is_some());
        assert_eq!(metadata(&format!("tags={}", many.join(","))), None);
    }

    #[test]
    fn lifetime_including_stale_times_is_bounded() {
        let lifetime = |query: &str| {
            let query = Query::parse(query).ok()?;
            query.lifetime(&query.metadata().ok()?).ok().map(Ttl::as_millis)
        };
        assert_eq!(lifetime("ttl=10&stale-while=5&stale-if-error=20"), Some(30_000));
        assert_eq!(lifetime("ttl=1&stale-while=99999998"), Some(Ttl::MAX.as_millis()));
        assert_eq!(lifetime("ttl=2&stale-while=99999998"), None);
        assert_eq!(lifetime("ttl=99999999&stale-if-error=1"), None);
    }

    #[test]
    fn flag_is_true_or_false() {
        let flag = |query: &str| Query::parse(query).ok()?.flag("stale").ok();
        assert_eq!(flag(""), Some(false));
        assert_eq!(flag("stale=false"), Some(false));
        assert_eq!(flag("stale=true"), Some(true));
        assert_eq!(flag("stale=1"), None);
        assert_eq!(flag("stale"), None);
    }
}
