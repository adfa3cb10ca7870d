//! Names of clusters, regions and zones.

use alloc::string::String;

/// The longest name in bytes. It leaves room for its key in a DNS TXT string.
pub const NAME_BYTES_MAX: usize = 64;

/// A text that is not a valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name; use 1 to {NAME_BYTES_MAX} letters, digits, \"-\", \"_\" or \".\", \
     beginning with a letter or digit"
)]
pub struct InvalidName(String);

/// The reason why a text is not a valid name of a region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRegion {
    /// The text is not a valid name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The name is `v1`. The paths of the Python package begin with the region, the native ones with `v1`.
    #[error("a region must not be called \"v1\": the paths of the HTTP interface begin with it")]
    Reserved,
}

/// Checks the name of a cluster or zone.
///
/// # Errors
/// [`InvalidName`] with the text.
pub fn check(text: &str) -> Result<(), InvalidName> {
    let first_ok = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let all_ok = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if text.len() <= NAME_BYTES_MAX && first_ok && all_ok {
        return Ok(());
    }
    Err(InvalidName(text.chars().take(NAME_BYTES_MAX + 1).collect()))
}

/// Checks the name of a region.
///
/// # Errors
/// [`InvalidRegion`] says which rule is broken.
pub fn check_region(text: &str) -> Result<(), InvalidRegion> {
    check(text)?;
    if text == "v1" { Err(InvalidRegion::Reserved) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "eu-west-1", "9", "a.b_c", "A"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", ".", "..", "-a", "a b", "a/b", "zürich", long.as_str(), "a\n"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(check_region("v1"), Err(InvalidRegion::Reserved));
        assert_eq!(check_region("v2"), Ok(()));
    }
}
