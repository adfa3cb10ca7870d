//! Conditions of reads and writes, and partial reads: RFC 9110, sections 13 and 14.
//!
//! The only validator is the entity tag. Conditions on dates are ignored, as without a modification date.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderValue, header};
use zerocache_core::{
    condition::Condition,
    version::{Incarnation, Version},
};

use super::error::ApiError;

/// What the preconditions of a read require.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The value is sent.
    Passed,
    /// The caller has the value: 304.
    NotModified,
    /// The caller wants another value: 412.
    Failed,
}

impl Precondition {
    /// Evaluates the preconditions for the value with this entity tag, quotes included.
    pub fn evaluate(headers: &HeaderMap, etag: &[u8]) -> Self {
        if headers.contains_key(header::IF_MATCH)
            && !headers.get_all(header::IF_MATCH).iter().any(|list| names(list, etag, false))
        {
            return Self::Failed;
        }
        if headers.get_all(header::IF_NONE_MATCH).iter().any(|list| names(list, etag, true)) {
            return Self::NotModified;
        }
        Self::Passed
    }
}

/// A version that no value has.
const NEVER: Version = Version::new(0, Incarnation(0));

/// Returns the condition of a write. A node judges one entity tag, or `*`: a list of several is refused, and so is
/// a write unless the value is a certain one.
pub(super) fn of_write(headers: &HeaderMap) -> Result<Option<Condition>, ApiError> {
    let all = |name| headers.get_all(name).iter().map(|list| list.as_bytes().trim_ascii());
    let matches: Vec<_> = all(header::IF_MATCH).collect();
    let none_match: Vec<_> = all(header::IF_NONE_MATCH).collect();
    match (&matches[..], &none_match[..]) {
        ([], []) => Ok(None),
        ([], [b"*"]) => Ok(Some(Condition::Absent)),
        ([], _) => Err(ApiError::unsupported_condition("a write takes If-None-Match: * only")),
        ([b"*"], []) => Ok(Some(Condition::Present)),
        ([list], []) => match next_tag(list) {
            Some((_, _, after)) if !after.trim_ascii().is_empty() => {
                Err(ApiError::unsupported_condition("a write takes one entity tag in If-Match"))
            }
            // What is no entity tag of a value matches none.
            tag => Ok(Some(Condition::Version(tag.and_then(version).unwrap_or(NEVER)))),
        },
        _ => {
            Err(ApiError::unsupported_condition("a write takes one If-Match or one If-None-Match"))
        }
    }
}

/// Returns the version that a strong entity tag of ours names.
fn version((is_weak, tag, _): (bool, &[u8], &[u8])) -> Option<Version> {
    let text = tag.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    std::str::from_utf8(text).ok().filter(|_| !is_weak)?.parse().ok()
}

/// The bytes of a value that are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of them: no range was asked for, or one that is ignored.
    Whole,
    /// These: 206.
    Bytes(Range<usize>),
    /// None of those that were asked for exist: 416.
    Unsatisfiable,
}

impl Part {
    /// Returns the part of a value of `total` bytes that a GET asks for. Several ranges, other units and
    /// malformed ranges are ignored.
    pub fn asked(headers: &HeaderMap, etag: &[u8], total: usize) -> Self {
        let mut ranges = headers.get_all(header::RANGE).iter();
        let (Some(range), None) = (ranges.next(), ranges.next()) else { return Self::Whole };
        let mut conditions = headers.get_all(header::IF_RANGE).iter();
        if conditions.any(|condition| condition.as_bytes().trim_ascii() != etag) {
            return Self::Whole;
        }
        range.to_str().ok().and_then(|range| Self::parse(range, total)).unwrap_or(Self::Whole)
    }

    /// Returns the part that the text of a `Range` header names; none if it is ignored.
    fn parse(text: &str, total: usize) -> Option<Self> {
        let (unit, range) = text.split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let range = match (first, last) {
            ("", last) => {
                let bytes = number(last)?;
                if bytes > 0 && total == 0 {
                    // It is satisfiable, but has no first byte.
                    return None;
                }
                total.saturating_sub(bytes)..total
            }
            (first, "") => number(first)?..total,
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                first..last.saturating_add(1).min(total)
            }
        };
        Some(if range.start < range.end { Self::Bytes(range) } else { Self::Unsatisfiable })
    }
}

/// Parses a whole number without a sign. One that is too large is the largest.
fn number(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(usize::MAX))
}

/// Returns whether a list of entity tags, or `*`, names `etag`. A malformed list names what comes before.
fn names(list: &HeaderValue, etag: &[u8], is_weak_allowed: bool) -> bool {
    let mut rest = list.as_bytes().trim_ascii();
    if rest == b"*" {
        return true;
    }
    while let Some((weak, tag, after)) = next_tag(rest) {
        if tag == etag && (!weak || is_weak_allowed) {
            return true;
        }
        rest = after;
    }
    false
}

/// Returns the first entity tag of a list, whether it is weak, and what follows it.
fn next_tag(mut list: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    while let [b' ' | b'\t' | b',', rest @ ..] = list {
        list = rest;
    }
    let strong = list.strip_prefix(b"W/");
    let (weak, list) = (strong.is_some(), strong.unwrap_or(list));
    let inner = list.strip_prefix(b"\"")?;
    let end = inner.iter().position(|byte| *byte == b'"')? + 2;
    let (tag, after) = list.split_at(end);
    matches!(after.trim_ascii_start(), [] | [b',', ..]).then_some((weak, tag, after))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    const ETAG: &[u8] = b"\"1.a\"";

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::try_from(*value).expect("a value"));
        }
        headers
    }

    fn evaluated(lines: &[(HeaderName, &str)]) -> Precondition {
        Precondition::evaluate(&headers(lines), ETAG)
    }

    #[test]
    fn none_match_is_weak_and_takes_lists() {
        for list in
            ["\"1.a\"", "W/\"1.a\"", "*", " \"x\" , \"1.a\"", ",,\"a,b\",\"1.a\",", "\"\",\"1.a\""]
        {
            let line = (header::IF_NONE_MATCH, list);
            assert_eq!(evaluated(&[line]), Precondition::NotModified, "{list}");
        }
        for list in
            ["\"1.b\"", "1.a", "", "\"1.a", "w/\"1.a\"", "\"x\" \"1.a\"", "\"x,\"1.a\"", "*, \"x\""]
        {
            let line = (header::IF_NONE_MATCH, list);
            assert_eq!(evaluated(&[line]), Precondition::Passed, "{list}");
        }
        let two = [(header::IF_NONE_MATCH, "\"x\""), (header::IF_NONE_MATCH, "\"1.a\"")];
        assert_eq!(evaluated(&two), Precondition::NotModified);
    }

    #[test]
    fn match_is_strong_and_comes_first() {
        for (list, expected) in [
            ("\"1.a\"", Precondition::Passed),
            ("*", Precondition::Passed),
            ("\"x\", \"1.a\"", Precondition::Passed),
            ("W/\"1.a\"", Precondition::Failed),
            ("\"x\"", Precondition::Failed),
            ("", Precondition::Failed),
        ] {
            assert_eq!(evaluated(&[(header::IF_MATCH, list)]), expected, "{list}");
        }
        let both = [(header::IF_MATCH, "\"x\""), (header::IF_NONE_MATCH, "\"1.a\"")];
        assert_eq!(evaluated(&both), Precondition::Failed);
        assert_eq!(evaluated(&[]), Precondition::Passed);
    }

    #[test]
    fn write_depends_on_one_entity_tag() {
        let version = Version::new(0x01a1_faf0_70c2_0000, Incarnation(9));
        let tag = format!("\"{version}\"");
        let weak = format!("W/{tag}");
        let condition = |lines: &[(HeaderName, &str)]| of_write(&headers(lines)).ok();
        let (yes, no) = (header::IF_MATCH, header::IF_NONE_MATCH);
        assert_eq!(condition(&[]), Some(None));
        for (name, list, expected) in [
            (&no, "*", Condition::Absent),
            (&yes, " * ", Condition::Present),
            (&yes, &tag, Condition::Version(version)),
            (&yes, &weak, Condition::Version(NEVER)),
            (&yes, "\"x\"", Condition::Version(NEVER)),
            (&yes, "", Condition::Version(NEVER)),
        ] {
            assert_eq!(condition(&[(name.clone(), list)]), Some(Some(expected)), "{list}");
        }
        let two = format!("{tag}, \"x\"");
        assert_eq!(condition(&[(yes.clone(), &two)]), None);
        assert_eq!(condition(&[(no.clone(), &tag)]), None);
        assert_eq!(condition(&[(yes.clone(), &tag), (yes.clone(), &tag)]), None);
        assert_eq!(condition(&[(yes, &tag), (no, "*")]), None);
    }

    fn part(text: &str, total: usize) -> Part {
        Part::asked(&headers(&[(header::RANGE, text)]), ETAG, total)
    }

    #[test]
    fn single_range_is_cut_to_the_value() {
        for (text, range) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-9", 0..10),
            ("bytes=0-99999999999999999999", 0..10),
            ("Bytes=3-4", 3..5),
            ("bytes= 3-4 ", 3..5),
            ("bytes=9-", 9..10),
            ("bytes=-3", 7..10),
            ("bytes=-30", 0..10),
        ] {
            assert_eq!(part(text, 10), Part::Bytes(range), "{text}");
        }
        for text in ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999-", "bytes=-0"] {
            assert_eq!(part(text, 10), Part::Unsatisfiable, "{text}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Unsatisfiable);
        assert_eq!(part("bytes=-5", 0), Part::Whole);
    }

    #[test]
    fn other_ranges_are_ignored() {
        for text in [
            "bytes=0-1,3-4",
            "bytes=4-3",
            "bytes=-",
            "bytes=+1-2",
            "bytes=1",
            "bytes",
            "bytes=a-b",
            "bytes=1--2",
            "bytes =1-2",
            "lines=1-2",
            "",
        ] {
            assert_eq!(part(text, 10), Part::Whole, "{text}");
        }
        let two = headers(&[(header::RANGE, "bytes=1-2"), (header::RANGE, "bytes=1-2")]);
        assert_eq!(Part::asked(&two, ETAG, 10), Part::Whole);
    }

    #[test]
    fn range_may_depend_on_the_entity_tag() {
        let asked = |condition: &str| {
            let lines = [(header::RANGE, "bytes=1-2"), (header::IF_RANGE, condition)];
            Part::asked(&headers(&lines), ETAG, 10)
        };
        assert_eq!(asked("\"1.a\""), Part::Bytes(1..3));
        for other in ["\"1.b\"", "W/\"1.a\"", "Sat, 29 Oct 2022 19:43:31 GMT", "*"] {
            assert_eq!(asked(other), Part::Whole, "{other}");
        }
    }
}
