//! Parsing of sizes, durations and counts in settings.

use std::time::Duration;

/// Parses a size in bytes: `1048576`, `512MiB`, `512M`, `2g`. All multiples are powers of 1024.
///
/// # Errors
/// A message that says what is allowed, when the text is something else or too large.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let error = || format!("\"{text}\" is not a size; use bytes, or a number with KiB, MiB, GiB");
    let (number, unit) = split_unit(text.trim());
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    number.checked_mul(factor).ok_or_else(error)
}

/// Parses a duration: seconds when it has no unit, else with `ms`, `s`, `m` or `h`.
///
/// # Errors
/// A message that says what is allowed, when the text is something else or too large.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || {
        format!("\"{text}\" is not a duration; use whole seconds, or a number with ms, s, m or h")
    };
    let (number, unit) = split_unit(text.trim());
    let factor_ms: u64 = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(error()),
    };
    let number: u64 = number.parse().map_err(|_| error())?;
    let ms = number.checked_mul(factor_ms).ok_or_else(error)?;
    Ok(Duration::from_millis(ms))
}

/// Parses a count, with `_` allowed between digits.
///
/// # Errors
/// A message that says what is allowed, when the text is something else or too large.
pub fn parse_count(text: &str) -> Result<usize, String> {
    let digits: String = text.trim().chars().filter(|c| *c != '_').collect();
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse() {
        Ok(count) if plain => Ok(count),
        _ => Err(format!("\"{text}\" is not a whole number")),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        assert_eq!(parse_size("1048576"), Ok(1 << 20));
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("2g"), Ok(2 << 30));
        assert_eq!(parse_size(" 3 KB "), Ok(3 << 10));
        for bad in ["", "12q", "-1", "+1", "1.5g", "MiB", "99999999999g", "1e3", "é"] {
            let message = parse_size(bad).expect_err(bad);
            assert!(message.contains("is not a size"), "{message}");
        }
    }

    #[test]
    fn durations_are_parsed() {
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1m"), Ok(Duration::from_secs(60)));
        for bad in ["", "-1", "2 weeks", "0.5", "s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_are_parsed() {
        assert_eq!(parse_count("1_000"), Ok(1_000));
        for bad in ["", "-1", "+1", "1k"] {
            assert!(parse_count(bad).is_err(), "{bad}");
        }
    }
}
