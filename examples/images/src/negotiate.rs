//! The formats that the reader of an image knows.

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
}
