//! Time spans of days, for what is valid for months.

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 24 * HOUR_S;

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
    fn time_spans_are_rounded_down() {
        assert_eq!(rough(2 * DAY_S - 1), "1 day");
        assert_eq!(rough(2 * HOUR_S), "2 hours");
        assert_eq!(rough(59), "0 minutes");
    }
}
