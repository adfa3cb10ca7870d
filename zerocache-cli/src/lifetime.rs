//! Durations of days, for what is valid for months.

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 24 * HOUR_S;

/// The longest validity: ten years, with their leap days.
const LONGEST_S: u64 = 3_653 * DAY_S;

/// Parses how long something is to be valid, such as `90d` or `12h`, into seconds.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("{text:?} is no validity; use a number with d, h, m or s, such as 90d, up to 3653d")
    };
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(unit_at);
    let unit_s = match unit {
        "d" => DAY_S,
        "h" => HOUR_S,
        "m" => 60,
        "s" => 1,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_s));
    seconds.filter(|seconds| (1..=LONGEST_S).contains(seconds)).ok_or_else(wrong)
}

/// Returns a time span roughly: `89 days`, `5 hours`, `1 minute`.
pub(crate) fn rough(seconds: u64) -> String {
    let (number, unit) = match seconds {
        DAY_S.. => (seconds / DAY_S, "day"),
        HOUR_S.. => (seconds / HOUR_S, "hour"),
        _ => (seconds / 60, "minute"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validities_are_parsed() {
        assert_eq!(parse("90d"), Ok(90 * DAY_S));
        assert_eq!(parse("12h"), Ok(12 * HOUR_S));
        assert_eq!(parse("5m"), Ok(300));
        assert_eq!(parse("2s"), Ok(2));
        for bad in ["", "90", "0d", "d", "-1d", "1.5d", "90 d", "3654d", "99999999999999999999d"] {
            assert!(parse(bad).expect_err(bad).contains("90d"));
        }
    }

    #[test]
    fn time_spans_are_rounded_down() {
        assert_eq!(rough(2 * DAY_S - 1), "1 day");
        assert_eq!(rough(2 * HOUR_S), "2 hours");
        assert_eq!(rough(59), "0 minutes");
    }
}
