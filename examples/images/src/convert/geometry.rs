//! From the size of an original and a variant to what is cut out, scaled and filled.

use image::metadata::Orientation;

use crate::steps::SIDE_MAX;
use crate::variant::{Fit, Gravity, Variant};

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rect {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// The steps from an upright original to its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The part of the original that is used.
    pub(super) crop: Rect,
    /// The size to which that part is scaled.
    pub(super) size: (u32, u32),
    /// The size of the variant, and where the scaled part is in it, if it is not all.
    pub(super) canvas: Option<((u32, u32), (u32, u32))>,
}

impl Plan {
    /// Plans a variant of an upright original with sides above 0.
    pub(super) fn new(original: (u32, u32), variant: &Variant) -> Self {
        let whole = Rect { x: 0, y: 0, width: original.0, height: original.1 };
        let (Some(width), Some(height)) = (variant.width, variant.height) else {
            let bounds = (variant.width.unwrap_or(SIDE_MAX), variant.height.unwrap_or(SIDE_MAX));
            // A size that nobody named is not a reason to make an image larger.
            let enlarge = variant.enlarge && (variant.width.is_some() || variant.height.is_some());
            return Self { crop: whole, size: inside(original, bounds, enlarge), canvas: None };
        };
        let wanted = (width, height);
        match variant.fit {
            Fit::Inside => {
                Self { crop: whole, size: inside(original, wanted, variant.enlarge), canvas: None }
            }
            Fit::Fill => {
                Self { crop: whole, size: reached(original, wanted, variant.enlarge), canvas: None }
            }
            Fit::Cover => {
                let size = reached(original, wanted, variant.enlarge);
                Self { crop: covering(original, wanted, variant.gravity), size, canvas: None }
            }
            Fit::Pad => {
                let size = inside(original, wanted, variant.enlarge);
                let free = (width - size.0, height - size.1);
                let at = placed(free, variant.gravity);
                let canvas = (size != wanted).then_some((wanted, at));
                Self { crop: whole, size, canvas }
            }
        }
    }
}

/// The largest size inside of bounds in the proportions of the original.
fn inside(original: (u32, u32), bounds: (u32, u32), enlarge: bool) -> (u32, u32) {
    let scale = ratio(bounds.0, original.0).min(ratio(bounds.1, original.1));
    let scale = if enlarge { scale } else { scale.min(1.0) };
    scaled(original, scale, bounds)
}

/// The wanted size, or the largest one in its proportions for which nothing is made larger.
fn reached(original: (u32, u32), wanted: (u32, u32), enlarge: bool) -> (u32, u32) {
    if enlarge {
        return wanted;
    }
    let scale = ratio(original.0, wanted.0).min(ratio(original.1, wanted.1)).min(1.0);
    scaled(wanted, scale, wanted)
}

/// The largest part of the original in the proportions of the wanted size.
fn covering(original: (u32, u32), wanted: (u32, u32), gravity: Gravity) -> Rect {
    let scale = ratio(original.0, wanted.0).min(ratio(original.1, wanted.1));
    let (width, height) = scaled(wanted, scale, original);
    let (x, y) = placed((original.0 - width, original.1 - height), gravity);
    Rect { x, y, width, height }
}

fn placed(free: (u32, u32), gravity: Gravity) -> (u32, u32) {
    let (x, y) = gravity.halves();
    (free.0 * x / 2, free.1 * y / 2)
}

fn ratio(a: u32, b: u32) -> f64 {
    f64::from(a) / f64::from(b)
}

fn scaled(size: (u32, u32), scale: f64, most: (u32, u32)) -> (u32, u32) {
    let side =
        |side: u32, most: u32| ((f64::from(side) * scale).round() as u32).clamp(1, most.max(1));
    (side(size.0, most.0), side(size.1, most.1))
}

/// Whether width and height change places when an image is put upright.
pub(super) fn swaps_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// Returns where a rectangle of the upright image is in the image as it is stored, whose size is `stored`.
pub(super) fn before_rotation(rect: Rect, orientation: Orientation, stored: (u32, u32)) -> Rect {
    let Rect { x, y, width, height } = rect;
    let from_right = |offset: u32, length: u32| stored.0 - offset - length;
    let from_bottom = |offset: u32, length: u32| stored.1 - offset - length;
    let (x, y) = match orientation {
        Orientation::NoTransforms => (x, y),
        Orientation::Rotate90 => (y, from_bottom(x, width)),
        Orientation::Rotate180 => (from_right(x, width), from_bottom(y, height)),
        Orientation::Rotate270 => (from_right(y, height), x),
        Orientation::FlipHorizontal => (from_right(x, width), y),
        Orientation::FlipVertical => (x, from_bottom(y, height)),
        Orientation::Rotate90FlipH => (y, x),
        Orientation::Rotate270FlipH => (from_right(y, height), from_bottom(x, width)),
    };
    let (width, height) = if swaps_sides(orientation) { (height, width) } else { (width, height) };
    Rect { x, y, width, height }
}

#[cfg(test)]
mod tests {
    use image::{DynamicImage, RgbImage};

    use super::*;
    use crate::query::{Params, VariantRules};
    use crate::steps::Steps;

    fn plan(original: (u32, u32), query: &str) -> Plan {
        let rules = VariantRules { steps: Steps::exact(), ..VariantRules::default() };
        let params = Params::parse(query).expect("params");
        Plan::new(original, &rules.variant(&params, false).expect("a variant"))
    }

    #[test]
    fn image_stays_inside_in_its_proportions() {
        assert_eq!(plan((1_600, 1_200), "w=400&h=400").size, (400, 300));
        assert_eq!(plan((1_600, 1_200), "w=400").size, (400, 300));
        assert_eq!(plan((1_600, 1_200), "h=300").size, (400, 300));
        assert_eq!(plan((100, 50), "w=400").size, (100, 50));
        assert_eq!(plan((100, 50), "w=400&enlarge=1").size, (400, 200));
        assert_eq!(plan((100, 50), "enlarge=1").size, (100, 50));
        assert_eq!(plan((8_000, 4_000), "").size, (3_840, 1_920));
        assert_eq!(plan((12_000, 1), "w=100").size, (100, 1));
    }

    #[test]
    fn cover_cuts_off_what_is_over() {
        let wide = plan((1_600, 1_200), "w=300&h=300&fit=cover");
        assert_eq!(
            (wide.size, wide.crop),
            ((300, 300), Rect { x: 200, y: 0, width: 1_200, height: 1_200 })
        );
        let west = plan((1_600, 1_200), "w=300&h=300&fit=cover&gravity=west");
        assert_eq!(west.crop.x, 0);
        let south = plan((1_200, 1_600), "w=300&h=300&fit=cover&gravity=southeast");
        assert_eq!(south.crop, Rect { x: 0, y: 400, width: 1_200, height: 1_200 });
        // The proportions count, also when nothing is made larger.
        assert_eq!(plan((100, 100), "w=400&h=200&fit=cover").size, (100, 50));
        assert_eq!(plan((100, 100), "w=400&h=200&fit=cover&enlarge=1").size, (400, 200));
        assert_eq!(plan((12_000, 1), "w=500&h=500&fit=cover&enlarge=1").crop.width, 1);
    }

    #[test]
    fn pad_fills_the_rest() {
        let padded = plan((1_600, 800), "w=400&h=400&fit=pad");
        assert_eq!((padded.size, padded.canvas), ((400, 200), Some(((400, 400), (0, 100)))));
        let north = plan((1_600, 800), "w=400&h=400&fit=pad&gravity=north");
        assert_eq!(north.canvas, Some(((400, 400), (0, 0))));
        assert_eq!(plan((800, 800), "w=400&h=400&fit=pad").canvas, None);
        assert_eq!(plan((1_600, 800), "w=400&h=400&fit=fill").size, (400, 400));
    }

    #[test]
    fn cutting_before_the_rotation_is_the_same_as_after_it() {
        let mut number = 0_u8;
        let pixels = std::iter::repeat_with(|| {
            number += 1;
            number
        });
        let stored = RgbImage::from_vec(7, 5, pixels.take(7 * 5 * 3).collect()).expect("an image");
        let stored = DynamicImage::from(stored);
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).expect("an orientation");
            let mut upright = stored.clone();
            upright.apply_orientation(orientation);
            let rect = Rect { x: 1, y: 2, width: 3, height: 2 };
            let expected = upright.crop_imm(rect.x, rect.y, rect.width, rect.height);
            let before = before_rotation(rect, orientation, (7, 5));
            let mut cut = stored.crop_imm(before.x, before.y, before.width, before.height);
            cut.apply_orientation(orientation);
            assert_eq!(cut, expected, "{orientation:?}");
        }
    }
}
