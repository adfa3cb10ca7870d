//! Settings of a client's near cache.

use std::time::Duration;

/// The default size in bytes.
const BYTES_DEFAULT: u64 = 64 << 20;

/// The default maximum age.
const AGE_DEFAULT: Duration = Duration::from_secs(5);

/// The longest outage.
pub(crate) const OUTAGE_MAX: Duration = Duration::from_secs(86_400);

/// Size and maximum age of a client's near cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NearSettings {
    /// 0 switches it off.
    pub(crate) bytes_max: u64,
    pub(crate) age_max: Duration,
    /// How long memoized calls serve entries while no node answers, unless they say another time; zero for not at all.
    pub(crate) outage: Duration,
}

impl Default for NearSettings {
    fn default() -> Self {
        Self { bytes_max: BYTES_DEFAULT, age_max: AGE_DEFAULT, outage: Duration::ZERO }
    }
}
