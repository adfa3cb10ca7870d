//! Parsing of literal times in the attribute.

/// The longest lifetime, in seconds; the shortest is one.
pub(crate) const TTL_SECONDS_MAX: u64 = 99_999_999;

/// Units from large to small, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The allowed times of an argument, both ends included.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    /// The description of the time in messages: "a lifetime".
    pub(crate) what: &'static str,
    pub(crate) min_ms: u64,
    pub(crate) max_ms: u64,
}

/// Lifetimes of stored values.
pub(crate) const LIFETIME: Range =
    Range { what: "a lifetime", min_ms: 1_000, max_ms: TTL_SECONDS_MAX * 1_000 };

impl Range {
    /// Checks a literal of seconds; returns milliseconds.
    pub(crate) fn seconds(self, seconds: u64) -> Result<u64, String> {
        self.check(seconds.checked_mul(1_000), || format!("{seconds} s"))
    }

    /// Parses a text; returns milliseconds.
    pub(crate) fn text(self, text: &str) -> Result<u64, String> {
        let ms = parse(text).ok_or_else(|| {
            let fine = if self.min_ms < 1_000 { "\"500ms\", " } else { "" };
            let what = self.what;
            format!(
                "cannot read {text:?} as {what}: write {fine}\"90s\", \"5m\", \"1h30m\" or \"7d\""
            )
        })?;
        self.check(ms, || text.trim().to_owned())
    }

    /// Checks the range; `ms` is `None` for a time that is too large to count.
    fn check(self, ms: Option<u64>, written: impl Fn() -> String) -> Result<u64, String> {
        match ms {
            Some(ms) if (self.min_ms..=self.max_ms).contains(&ms) => Ok(ms),
            _ => {
                let Range { what, min_ms, max_ms } = self;
                let allowed = match (min_ms % 1_000, min_ms) {
                    (0, 1..) => format!("{} to {} seconds", min_ms / 1_000, max_ms / 1_000),
                    _ => format!("{min_ms} ms to {} s", max_ms / 1_000),
                };
                Err(format!("{what} of {} is out of range: {allowed}", written()))
            }
        }
    }
}

/// Parses `"90"`, `"90s"`, `"5m"`, `"1h30m"`, `"7d"`, `"500ms"` as milliseconds. Returns `None` for other texts,
/// and `Some(None)` for a time that is too large.
#[allow(clippy::option_option)]
fn parse(text: &str) -> Option<Option<u64>> {
    let mut rest = text.trim();
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(rest.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(1_000)));
    }
    let mut total = Some(0_u64);
    // From large to small, each unit once: "5m5m" is more likely a slip than ten minutes.
    let mut smaller = UNITS.iter();
    while !rest.is_empty() {
        let (count, after) = split(rest, |byte| byte.is_ascii_digit());
        let (unit, after) = split(after, |byte| byte.is_ascii_alphabetic());
        if count.is_empty() {
            return None;
        }
        let (_, unit_ms) = smaller.find(|(name, _)| *name == unit)?;
        let ms = count.parse::<u64>().ok().and_then(|count| count.checked_mul(*unit_ms));
        total = total.zip(ms).and_then(|(total, ms)| total.checked_add(ms));
        rest = after;
    }
    (!text.trim().is_empty()).then_some(total)
}

/// Splits off the leading bytes of a kind.
fn split(text: &str, of_kind: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !of_kind(byte)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Range = Range { what: "a time", min_ms: 1, max_ms: 86_400_000 };

    #[test]
    fn reads_every_unit_and_their_sums() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5_400), ("7d", 604_800), (" 1s ", 1)]
        {
            assert_eq!(LIFETIME.text(text), Ok(seconds * 1_000), "{text}");
        }
        assert_eq!(FINE.text("500ms"), Ok(500));
        assert_eq!(FINE.text("1s500ms"), Ok(1_500));
        assert_eq!(FINE.text("2m1ms"), Ok(120_001));
        assert_eq!(FINE.seconds(3), Ok(3_000));
    }

    #[test]
    fn refuses_what_is_not_a_time() {
        for text in [
            "", " ", "m", "5x", "1.5h", "-1s", "30m1h", "5m5m", "1m30", "5 m", "é", "5é", "5ms1s",
            "1msm",
        ] {
            let message = LIFETIME.text(text).expect_err(text);
            assert!(message.starts_with("cannot read"), "{message}");
        }
    }

    #[test]
    fn refuses_what_is_out_of_range() {
        for text in ["0", "0s", "5ms", "999ms", "100000000", "99999999999999999999d"] {
            let message = LIFETIME.text(text).expect_err(text);
            assert!(message.ends_with("is out of range: 1 to 99999999 seconds"), "{message}");
        }
        assert!(LIFETIME.text("99999999").is_ok());
        assert!(LIFETIME.seconds(u64::MAX).is_err());
        assert_eq!(FINE.text("0"), Err("a time of 0 is out of range: 1 ms to 86400 s".to_owned()));
        assert!(FINE.text("2d").is_err());
    }
}
