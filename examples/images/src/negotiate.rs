//! What the headers of a request ask for: the formats that its reader knows, and whether it has the image
//! already.

/// The most ranges of `Accept` that are looked at.
const RANGES_MAX: usize = 32;

/// Whether a reader asks for WebP by name. `image/*` and `*/*` are also sent by readers that do not know it.
#[must_use]
pub fn accepts_webp(accept: Option<&str>) -> bool {
    accept.unwrap_or_default().split(',').take(RANGES_MAX).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("image/webp"));
        named && !parts.any(is_zero_weight)
    })
}

/// Whether a parameter of a range says that it is not accepted: `q=0`, `q=0.000`.
fn is_zero_weight(parameter: &str) -> bool {
    let weight =
        parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weight.is_some_and(|(_, weight)| weight.trim().parse() == Ok(0.0_f32))
}

/// Whether the reader has the image already: its entity tag is one of `If-None-Match`.
#[must_use]
pub fn is_known(if_none_match: Option<&str>, etag: &str) -> bool {
    let Some(list) = if_none_match else { return false };
    list.trim() == "*"
        || list.split(',').map(str::trim).any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// The part of a file that a `Range` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it: there is no range, or one that is not understood, or several.
    Whole,
    /// From the first to the last byte, both included.
    Bytes(usize, usize),
    /// The range is outside of the file.
    Unsatisfiable,
}

/// Reads a `Range` for a file of `length` bytes.
#[must_use]
pub fn part(range: Option<&str>, length: usize) -> Part {
    let Some((first, last)) =
        range.and_then(|range| range.trim().strip_prefix("bytes=")?.split_once('-'))
    else {
        return Part::Whole;
    };
    let number = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<usize>().ok())
    };
    match (first, last) {
        ("", last) => match number(last).flatten() {
            None => Part::Whole,
            Some(0) => Part::Unsatisfiable,
            Some(_) if length == 0 => Part::Unsatisfiable,
            Some(suffix) => Part::Bytes(length.saturating_sub(suffix), length - 1),
        },
        (first, last) => {
            let Some(first) = number(first).flatten() else { return Part::Whole };
            let last = if last.is_empty() { Some(usize::MAX) } else { number(last).flatten() };
            match last {
                None => Part::Whole,
                Some(last) if last < first => Part::Whole,
                Some(_) if first >= length => Part::Unsatisfiable,
                Some(last) => Part::Bytes(first, last.min(length - 1)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webp_is_sent_to_readers_that_name_it() {
        let chrome = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8";
        let table = [
            (Some(chrome), true),
            (Some("image/webp"), true),
            (Some("IMAGE/WEBP ; q=0.1"), true),
            (Some("image/webp;q=0"), false),
            (Some("image/webp; q=0.000, image/png"), false),
            (Some("image/*"), false),
            (Some("*/*"), false),
            (Some("image/webpx"), false),
            (Some(""), false),
            (None, false),
        ];
        for (accept, expected) in table {
            assert_eq!(accepts_webp(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn known_image_is_not_sent_again() {
        let etag = "\"abc\"";
        for known in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*", " * "] {
            assert!(is_known(Some(known), etag), "{known}");
        }
        for other in ["abc", "\"x\"", "", "\"abc"] {
            assert!(!is_known(Some(other), etag), "{other}");
        }
        assert!(!is_known(None, etag));
    }

    #[test]
    fn range_is_a_part_of_the_file() {
        let table = [
            ("bytes=0-9", Part::Bytes(0, 9)),
            ("bytes=5-", Part::Bytes(5, 99)),
            ("bytes=-10", Part::Bytes(90, 99)),
            ("bytes=-1000", Part::Bytes(0, 99)),
            ("bytes=50-1000", Part::Bytes(50, 99)),
            ("bytes=100-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=9-5", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("lines=0-9", Part::Whole),
            ("bytes=99999999999999999999999-", Part::Whole),
        ];
        for (range, expected) in table {
            assert_eq!(part(Some(range), 100), expected, "{range}");
        }
        assert_eq!(part(None, 100), Part::Whole);
        assert_eq!(part(Some("bytes=0-"), 0), Part::Unsatisfiable);
    }
}
