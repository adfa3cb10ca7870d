//! Sizes snap to steps, so that nobody can have any number of variants made of one original.
//!
//! The longer side becomes the next step. The shorter side keeps its share of the longer one, to a 48th:
//! 1:1, 4:3, 3:2, 16:9 and 2:1 are exact. So an original has at most `steps × 2 × 48 + steps × 2` sizes.

use std::str::FromStr;

/// The largest side of a variant, in pixels.
pub const SIDE_MAX: u32 = 3_840;

/// The parts of the longer side that the shorter one is a multiple of.
const SHARES: u64 = 48;

/// The sides that are made, in pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps(Vec<u32>);

impl Default for Steps {
    /// Those of Wikimedia since 2025.
    fn default() -> Self {
        Self(vec![20, 40, 60, 120, 250, 330, 500, 960, 1280, 1920, SIDE_MAX])
    }
}

impl Steps {
    /// Every size is made: for services that sign their URLs.
    #[must_use]
    pub fn exact() -> Self {
        Self(Vec::new())
    }

    /// Whether every size is made.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the size that is made for a wanted one; a side that is `None` follows from the other.
    #[must_use]
    pub fn snap(&self, width: Option<u32>, height: Option<u32>) -> (Option<u32>, Option<u32>) {
        match (width, height) {
            (Some(width), Some(height)) if width >= height => {
                let (width, height) = self.snap_both(width, height);
                (Some(width), Some(height))
            }
            (Some(width), Some(height)) => {
                let (height, width) = self.snap_both(height, width);
                (Some(width), Some(height))
            }
            (width, height) => {
                (width.map(|side| self.step(side)), height.map(|side| self.step(side)))
            }
        }
    }

    fn snap_both(&self, longer: u32, shorter: u32) -> (u32, u32) {
        let step = self.step(longer);
        if self.is_exact() {
            return (step, shorter.clamp(1, SIDE_MAX));
        }
        let (longer, shorter) = (u64::from(longer.max(1)), u64::from(shorter));
        let share = ((shorter * SHARES + longer / 2) / longer).clamp(1, SHARES);
        // Not above the step, which fits.
        (step, ((u64::from(step) * share + SHARES / 2) / SHARES).max(1) as u32)
    }

    fn step(&self, side: u32) -> u32 {
        let largest = self.0.last().copied().unwrap_or(SIDE_MAX);
        let next = self.0.iter().copied().find(|step| *step >= side);
        next.unwrap_or_else(|| if self.is_exact() { side.clamp(1, SIDE_MAX) } else { largest })
    }
}

impl FromStr for Steps {
    type Err = String;

    /// Reads `20,40,60`, rising, or `exact`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "exact" {
            return Ok(Self::exact());
        }
        let wrong =
            || format!("{text:?}: write rising sides up to {SIDE_MAX} with commas, or exact");
        let steps: Vec<u32> = text
            .split(',')
            .map(|side| side.trim().parse())
            .collect::<Result<_, _>>()
            .map_err(|_| wrong())?;
        let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
        if rising
            && steps.first().is_some_and(|first| *first > 0)
            && steps.last().is_some_and(|last| *last <= SIDE_MAX)
        {
            Ok(Self(steps))
        } else {
            Err(wrong())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_side_becomes_the_next_step() {
        let steps = Steps::default();
        for (side, step) in
            [(1, 20), (20, 20), (21, 40), (300, 330), (3_840, 3_840), (9_000, 3_840)]
        {
            assert_eq!(steps.snap(Some(side), None), (Some(step), None));
            assert_eq!(steps.snap(None, Some(side)), (None, Some(step)));
        }
        assert_eq!(steps.snap(None, None), (None, None));
    }

    #[test]
    fn two_sides_keep_their_proportions() {
        let steps = Steps::default();
        let cases = [
            ((300, 200), (330, 220)),
            ((200, 300), (220, 330)),
            ((250, 250), (250, 250)),
            ((1_600, 900), (1_920, 1_080)),
            ((400, 300), (500, 375)),
            ((960, 1), (960, 20)),
            ((9_000, 4_500), (3_840, 1_920)),
        ];
        for ((width, height), (w, h)) in cases {
            assert_eq!(
                steps.snap(Some(width), Some(height)),
                (Some(w), Some(h)),
                "{width}x{height}"
            );
        }
    }

    #[test]
    fn sizes_of_an_original_are_few() {
        let steps = Steps::default();
        let mut sizes = HashSet::new();
        for width in (1..4_000).step_by(7) {
            for height in (1..4_000).step_by(11) {
                sizes.insert(steps.snap(Some(width), Some(height)));
            }
        }
        assert!(sizes.len() <= 11 * 2 * 48, "{} sizes", sizes.len());
        for size in sizes {
            assert_eq!(steps.snap(size.0, size.1), size, "a made size is made for itself");
        }
    }

    #[test]
    fn exact_sizes_stay_within_the_largest() {
        let steps: Steps = "exact".parse().expect("steps");
        assert_eq!(steps.snap(Some(301), Some(7)), (Some(301), Some(7)));
        assert_eq!(steps.snap(Some(99_999), Some(4_000)), (Some(3_840), Some(3_840)));
        assert_eq!(
            "100, 200".parse::<Steps>().map(|steps| steps.snap(Some(150), None)),
            Ok((Some(200), None))
        );
        for wrong in ["", "0", "5,5", "9,3", "10000", "a"] {
            assert!(wrong.parse::<Steps>().is_err(), "{wrong}");
        }
    }
}
