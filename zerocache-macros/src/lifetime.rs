//! Reading of a lifetime that is written out in the attribute.

/// The longest lifetime, in seconds; the shortest is one.
pub(crate) const TTL_SECONDS_MAX: u64 = 99_999_999;

/// Checks a lifetime in seconds.
pub(crate) fn check(seconds: u64) -> Result<u64, String> {
    if (1..=TTL_SECONDS_MAX).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!("a lifetime of {seconds} s is out of range: 1 to {TTL_SECONDS_MAX} seconds"))
    }
}

/// Reads `"90"`, `"90s"`, `"5m"`, `"1h30m"`, `"7d"` as seconds.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let bad = || {
        format!("cannot read {text:?} as a lifetime: write \"90s\", \"5m\", \"1h30m\" or \"7d\"")
    };
    let mut total: u64 = 0;
    let mut digits = String::new();
    let mut previous = u64::MAX;
    for letter in text.trim().chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let unit = match letter {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(bad()),
        };
        // From large to small, each unit once: "5m5m" is more likely a slip than ten minutes.
        if unit >= previous {
            return Err(bad());
        }
        previous = unit;
        let count: u64 = digits.parse().map_err(|_| bad())?;
        digits.clear();
        let seconds = count.checked_mul(unit).ok_or_else(bad)?;
        total = total.checked_add(seconds).ok_or_else(bad)?;
    }
    if !digits.is_empty() {
        if previous != u64::MAX {
            return Err(bad());
        }
        total = digits.parse().map_err(|_| bad())?;
    } else if previous == u64::MAX {
        return Err(bad());
    }
    check(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit_and_their_sums() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5_400), ("7d", 604_800), (" 1s ", 1)]
        {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_lifetime() {
        for text in ["", "m", "5x", "5ms", "1.5h", "-1s", "30m1h", "5m5m", "1m30", "0", "0s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("99999999").is_ok());
        assert!(parse("100000000").is_err());
        assert!(parse("99999999999999999999d").is_err());
    }
}
