//! What a client is told of its near cache.

use std::time::Duration;

/// The bound in bytes of who is told nothing else.
const BYTES_DEFAULT: u64 = 64 << 20;

/// The age bound of who is told nothing else.
const AGE_DEFAULT: Duration = Duration::from_secs(5);

/// Bound and age of a client's near cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NearSettings {
    /// 0 switches it off.
    pub(crate) bytes_max: u64,
    pub(crate) age_max: Duration,
}

impl Default for NearSettings {
    fn default() -> Self {
        Self { bytes_max: BYTES_DEFAULT, age_max: AGE_DEFAULT }
    }
}

/// A number of bytes: digits, and `KiB`, `MiB` or `GiB` if wanted.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(mistake(text, "bytes, such as 64MiB")),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.ok_or_else(|| mistake(text, "bytes, such as 64MiB"))
}

/// A duration: digits, and `ms`, `s`, `m` or `h`; seconds without a unit.
pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let factor_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(mistake(text, "a duration, such as 5s")),
    };
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor_ms));
    ms.map(Duration::from_millis).ok_or_else(|| mistake(text, "a duration, such as 5s"))
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn mistake(text: &str, wanted: &str) -> String {
    format!("{text:?} is not {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("64MiB", Some(64 << 20)),
            ("7B", Some(7)),
            ("MiB", None),
            ("1KB", None),
        ] {
            assert_eq!(parse_bytes(text).ok(), bytes, "{text}");
        }
        assert!(parse_bytes("18446744073709551615GiB").is_err());
        for (text, ms) in
            [("5", Some(5_000)), ("5s", Some(5_000)), ("250ms", Some(250)), ("2m", Some(120_000))]
        {
            assert_eq!(parse_age(text).ok(), ms.map(Duration::from_millis), "{text}");
        }
        assert!(parse_age("soon").is_err() && parse_age("").is_err() && parse_age("-1s").is_err());
    }
}
