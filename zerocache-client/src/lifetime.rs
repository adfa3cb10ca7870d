//! Lifetimes as callers give them: durations, or integers of seconds.

use std::time::Duration;

/// A lifetime of a value: a `Duration`, or an integer of seconds. Sealed.
///
/// Memoized functions do not store a value whose lifetime is zero, negative or a `Duration` under a second,
/// and lower lifetimes above 99,999,999 seconds to that. `put` returns an error for both.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no lifetime",
    label = "expected seconds as an integer, or a `Duration`",
    note = "to compute the lifetime from the value, write a closure: `ttl = |value| …`"
)]
pub trait Lifetime: sealed::Sealed {
    /// Converts the lifetime to a duration; a negative one becomes zero.
    #[doc(hidden)]
    fn into_duration(self) -> Duration;
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for Duration {}

impl Lifetime for Duration {
    fn into_duration(self) -> Duration {
        self
    }
}

macro_rules! seconds {
    ($($ty:ty)*) => {$(
        impl sealed::Sealed for $ty {}
        impl Lifetime for $ty {
            fn into_duration(self) -> Duration {
                // A number that does not fit is negative, or far above the maximum.
                #[allow(unused_comparisons)]
                let negative = self < 0;
                let seconds = if negative { 0 } else { u64::try_from(self).unwrap_or(u64::MAX) };
                Duration::from_secs(seconds)
            }
        }
    )*};
}

seconds!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);
