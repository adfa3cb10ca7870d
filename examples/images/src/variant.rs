//! Variants: what is made of an original, normalised so that equal wishes are one variant.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::steps::SIDE_MAX;

/// How an image comes to its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// All of it, inside of the size, in its proportions.
    #[default]
    Inside,
    /// The size, filled; what is over is cut off.
    Cover,
    /// The size, all of the image inside, the rest in the background colour.
    Pad,
    /// The size, without regard to the proportions.
    Fill,
}

/// The part that is kept when something is cut off, or where the image is when the rest is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Gravity {
    #[default]
    Center,
    North,
    NorthEast,
    East,
    SouthEast,
    South,
    SouthWest,
    West,
    NorthWest,
}

impl Gravity {
    /// The shares of what is over that go to the left and to the top, in halves.
    #[must_use]
    pub fn halves(self) -> (u32, u32) {
        match self {
            Self::NorthWest => (0, 0),
            Self::North => (1, 0),
            Self::NorthEast => (2, 0),
            Self::West => (0, 1),
            Self::Center => (1, 1),
            Self::East => (2, 1),
            Self::SouthWest => (0, 2),
            Self::South => (1, 2),
            Self::SouthEast => (2, 2),
        }
    }
}

/// The format of a variant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// What suits the original: JPEG for photographs, PNG for the rest.
    #[default]
    Auto,
    /// The same for readers that know WebP, which replaces PNG then.
    AutoWebp,
    /// JPEG; transparent parts get the background colour.
    Jpeg,
    /// PNG.
    Png,
    /// WebP without loss: for drawings; photographs become many times larger than as JPEG.
    Webp,
}

/// A variant of an original.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Variant {
    /// The width in pixels; `None`: it follows from the height, or is that of the original.
    pub width: Option<u32>,
    /// The height in pixels; `None`: it follows from the width, or is that of the original.
    pub height: Option<u32>,
    /// How the image comes to that size.
    pub fit: Fit,
    /// The part that is kept, or where the image is.
    pub gravity: Gravity,
    /// The quality of JPEG, 5 to 100 in steps of 5; 0 for formats without one.
    pub quality: u8,
    /// The format.
    pub format: Format,
    /// The colour behind transparent parts and beside the image.
    pub background: [u8; 3],
    /// Whether small originals are made larger.
    pub enlarge: bool,
}

impl Variant {
    /// Accepts what a gateway may have sent.
    ///
    /// # Errors
    /// [`Failure::BadRequest`].
    pub fn check(&self) -> Result<(), Failure> {
        let side = |side: Option<u32>| side.is_none_or(|side| (1..=SIDE_MAX).contains(&side));
        if side(self.width)
            && side(self.height)
            && self.quality <= 100
            && self.quality.is_multiple_of(5)
        {
            Ok(())
        } else {
            Err(Failure::bad("variant: out of range"))
        }
    }
}

impl fmt::Display for Variant {
    /// The text that the key of a variant is made of.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: Option<u32>| side.unwrap_or(0);
        let [r, g, b] = self.background;
        write!(
            out,
            "{}x{} {:?} {:?} q{} {:?} {r:02x}{g:02x}{b:02x} {}",
            side(self.width),
            side(self.height),
            self.fit,
            self.gravity,
            self.quality,
            self.format,
            if self.enlarge { "enlarged" } else { "-" },
        )
    }
}
