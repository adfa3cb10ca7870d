//! Parsers of settings, with bounds: a value that is too large is refused at the start, not computed with.

use std::time::Duration;

use zerocache_net::units::{parse_count, parse_duration, parse_size};

/// The most bytes of anything: more than a machine has.
const BYTES_MAX: u64 = 1 << 40;

/// The longest time.
const TIME_MAX: Duration = Duration::from_secs(365 * 86_400);

/// The most of what is counted: requests, connections, fetches, conversions.
const COUNT_MAX: usize = 1_000_000;

/// Parses a size in bytes, from 0 to 1 TiB: `512KiB`, `25MiB`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    if bytes <= BYTES_MAX {
        Ok(bytes)
    } else {
        Err(format!("\"{text}\": at most 1 TiB is allowed"))
    }
}

/// Parses a time, from 0 to 365 days: `250ms`, `10` (seconds), `5m`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    let message = || format!("\"{text}\": at most 365 days (8760h) are allowed");
    if time <= TIME_MAX { Ok(time) } else { Err(message()) }
}

/// Parses a time from 1 ms to 365 days.
pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if time > Duration::ZERO {
        Ok(time)
    } else {
        Err(format!("\"{text}\": at least 1ms is allowed"))
    }
}

/// Parses a count, from 0 to 1,000,000.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    let count = parse_count(text)?;
    let message = || format!("\"{text}\": at most 1000000 is allowed");
    if count <= COUNT_MAX { Ok(count) } else { Err(message()) }
}

/// Parses a count from 1 to 1,000,000.
pub(crate) fn some(text: &str) -> Result<usize, String> {
    let count = count(text)?;
    if count > 0 { Ok(count) } else { Err(format!("\"{text}\": at least 1 is allowed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_bounded() {
        assert_eq!((size("1TiB"), size("64")), (Ok(1 << 40), Ok(64)));
        assert_eq!(
            (time("8760h"), count("0"), some("1000000")),
            (Ok(TIME_MAX), Ok(0), Ok(1_000_000))
        );
        for wrong in ["2TiB", "99999999999999999999", "-1", "a", ""] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["8761h", "99999999999999999h", "1d", ""] {
            assert!(time(wrong).is_err() && some_time(wrong).is_err(), "{wrong}");
        }
        assert!(time("0").is_ok() && some_time("0").is_err() && some_time("1ms").is_ok());
        assert!(count("1000001").is_err() && some("0").is_err() && some("-1").is_err());
    }
}
