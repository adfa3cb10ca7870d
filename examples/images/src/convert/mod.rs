//! The conversion of an original: decoded within limits, put upright, cut, scaled, encoded. Pure and blocking.

mod encode;
mod geometry;

use std::io::Cursor;

use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::variant::{Fit, Variant};
use geometry::{Plan, before_rotation, swaps_sides};

/// The largest colour profile that is passed on, in bytes.
const PROFILE_BYTES_MAX: usize = 16 << 10;

/// The bytes of memory for each sample of a JPEG: the decoder keeps the 16-bit coefficients of a progressive one until
/// the end, beside the 8 bits of the result. It does not heed the limit of the library.
const JPEG_SAMPLE_BYTES: u64 = 3;

/// What an original may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest side in pixels.
    pub side: u32,
    /// The most pixels.
    pub pixels: u64,
    /// The most memory of its pixels, and of the decoder, in bytes.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { side: 12_000, pixels: 50_000_000, memory: 256 << 20 }
    }
}

/// The type of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Kind {
    Jpeg,
    Png,
    Gif,
    Webp,
}

impl Kind {
    /// Finds the type by the first bytes of an image, whatever its origin calls it.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match image::guess_format(bytes).ok()? {
            ImageFormat::Jpeg => Some(Self::Jpeg),
            ImageFormat::Png => Some(Self::Png),
            ImageFormat::Gif => Some(Self::Gif),
            ImageFormat::WebP => Some(Self::Webp),
            _ => None,
        }
    }

    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
        }
    }

    fn format(self) -> ImageFormat {
        match self {
            Self::Jpeg => ImageFormat::Jpeg,
            Self::Png => ImageFormat::Png,
            Self::Gif => ImageFormat::Gif,
            Self::Webp => ImageFormat::WebP,
        }
    }
}

/// A variant that was made.
#[derive(Clone, Debug)]
pub struct Converted {
    /// Its type.
    pub kind: Kind,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// The file.
    pub bytes: Vec<u8>,
}

/// Makes a variant. Of an animation the first frame is used.
///
/// # Errors
/// [`Failure::NotAnImage`], [`Failure::TooLarge`] before anything is decoded, [`Failure::Undecodable`].
pub fn convert(original: &[u8], variant: &Variant, limits: &Limits) -> Result<Converted, Failure> {
    let kind = Kind::of(original).ok_or(Failure::NotAnImage)?;
    let Decoded { pixels, orientation, profile } = decode(original, kind, limits)?;
    let stored = (pixels.width(), pixels.height());
    let upright = if swaps_sides(orientation) { (stored.1, stored.0) } else { stored };
    let plan = Plan::new(upright, variant);
    let mut made = scale(&pixels, &plan, orientation)?;
    drop(pixels);
    let format = encode::format(variant.format, kind, &made);
    if format == Kind::Jpeg || variant.fit == Fit::Pad {
        made = encode::flatten(made, variant.background);
    }
    if let Some((size, at)) = plan.canvas {
        made = encode::place(&made, size, at, variant.background);
    }
    let bytes = encode::encode(&made, format, variant.quality, profile)?;
    Ok(Converted { kind: format, width: made.width(), height: made.height(), bytes })
}

struct Decoded {
    /// 8 bits per channel.
    pixels: DynamicImage,
    orientation: Orientation,
    profile: Option<Vec<u8>>,
}

/// Reads the header, compares it with the limits, and only then decodes.
fn decode(original: &[u8], kind: Kind, limits: &Limits) -> Result<Decoded, Failure> {
    let mut reader = ImageReader::with_format(Cursor::new(original), kind.format());
    let mut bounds = image::Limits::no_limits();
    bounds.max_image_width = Some(limits.side);
    bounds.max_image_height = Some(limits.side);
    bounds.max_alloc = Some(limits.memory);
    reader.limits(bounds.clone());
    let mut decoder = reader.into_decoder().map_err(failure)?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Failure::Undecodable);
    }
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > limits.side
        || pixels > limits.pixels
        || memory(kind, decoder.total_bytes()) > limits.memory
    {
        return Err(Failure::TooLarge);
    }
    decoder.set_limits(bounds).map_err(failure)?;
    // What is damaged beside the pixels is left out.
    let orientation = decoder.exif_metadata().ok().flatten().and_then(|exif| orientation(&exif));
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    let is_rgb = !matches!(
        decoder.original_color_type(),
        ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16
    );
    let profile = decoder.icc_profile().ok().flatten();
    let profile = profile.filter(|profile| is_rgb && profile.len() <= PROFILE_BYTES_MAX);
    let pixels = DynamicImage::from_decoder(decoder).map_err(failure)?;
    Ok(Decoded { pixels: eight_bits(pixels), orientation, profile })
}

/// Returns what decoding costs, of an image whose result takes `bytes`.
fn memory(kind: Kind, bytes: u64) -> u64 {
    match kind {
        // 8 bits for each sample: the result has as many bytes.
        Kind::Jpeg => bytes.saturating_mul(JPEG_SAMPLE_BYTES),
        // These decoders count what they allocate.
        Kind::Png | Kind::Gif | Kind::Webp => bytes,
    }
}

/// Returns how an image is put upright. WebP files of some programs have a mark before the data, which belongs into
/// JPEG files only.
fn orientation(exif: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
}

fn eight_bits(pixels: DynamicImage) -> DynamicImage {
    match pixels {
        DynamicImage::ImageLuma16(_) => pixels.to_luma8().into(),
        DynamicImage::ImageLumaA16(_) => pixels.to_luma_alpha8().into(),
        DynamicImage::ImageRgb16(_) | DynamicImage::ImageRgb32F(_) => pixels.to_rgb8().into(),
        DynamicImage::ImageRgba16(_) | DynamicImage::ImageRgba32F(_) => pixels.to_rgba8().into(),
        pixels => pixels,
    }
}

/// Cuts and scales, and then puts upright, which is cheaper for the small image.
fn scale(
    pixels: &DynamicImage,
    plan: &Plan,
    orientation: Orientation,
) -> Result<DynamicImage, Failure> {
    let crop = before_rotation(plan.crop, orientation, (pixels.width(), pixels.height()));
    let (width, height) =
        if swaps_sides(orientation) { (plan.size.1, plan.size.0) } else { plan.size };
    let mut made = if (crop.width, crop.height) == (width, height) {
        pixels.crop_imm(crop.x, crop.y, crop.width, crop.height)
    } else {
        let mut made = DynamicImage::new(width, height, pixels.color());
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
            .crop(crop.x.into(), crop.y.into(), crop.width.into(), crop.height.into());
        let scaled = Resizer::new().resize(pixels, &mut made, &options);
        scaled.map_err(|_| Failure::Internal)?;
        made
    };
    made.apply_orientation(orientation);
    Ok(made)
}

fn failure(error: ImageError) -> Failure {
    match error {
        ImageError::Limits(_) => Failure::TooLarge,
        _ => Failure::Undecodable,
    }
}
