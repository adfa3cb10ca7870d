//! From pixels to a file.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::{DynamicImage, GenericImageView, ImageEncoder, Rgb, RgbImage, imageops};

use super::Kind;
use crate::failure::Failure;
use crate::variant::Format;

/// Returns the format of a variant: photographs become JPEG, and what may have sharp edges or transparent parts
/// stays without loss.
pub(super) fn format(wanted: Format, original: Kind, made: &DynamicImage) -> Kind {
    let lossless = matches!(original, Kind::Png | Kind::Gif) || is_transparent(made);
    match wanted {
        Format::Jpeg => Kind::Jpeg,
        Format::Png => Kind::Png,
        Format::Webp => Kind::Webp,
        Format::Auto if lossless => Kind::Png,
        Format::AutoWebp if lossless => Kind::Webp,
        Format::Auto | Format::AutoWebp => Kind::Jpeg,
    }
}

fn is_transparent(pixels: &DynamicImage) -> bool {
    match pixels {
        DynamicImage::ImageLumaA8(pixels) => pixels.pixels().any(|pixel| pixel.0[1] < 255),
        DynamicImage::ImageRgba8(pixels) => pixels.pixels().any(|pixel| pixel.0[3] < 255),
        _ => false,
    }
}

/// Lays transparent pixels on a colour.
pub(super) fn flatten(pixels: DynamicImage, background: [u8; 3]) -> DynamicImage {
    if !pixels.color().has_alpha() {
        return pixels;
    }
    let over = |top: u8, below: u8, alpha: u8| {
        let (top, below, alpha) = (u32::from(top), u32::from(below), u32::from(alpha));
        // At most 255.
        ((top * alpha + below * (255 - alpha) + 127) / 255) as u8
    };
    let pixels = pixels.into_rgba8();
    let flat = RgbImage::from_fn(pixels.width(), pixels.height(), |x, y| {
        let [red, green, blue, alpha] = pixels.get_pixel(x, y).0;
        let [r, g, b] = background;
        Rgb([over(red, r, alpha), over(green, g, alpha), over(blue, b, alpha)])
    });
    flat.into()
}

/// Places an image on a canvas.
pub(super) fn place(
    pixels: &DynamicImage,
    (width, height): (u32, u32),
    at: (u32, u32),
    background: [u8; 3],
) -> DynamicImage {
    let mut canvas = RgbImage::from_pixel(width, height, Rgb(background));
    imageops::replace(&mut canvas, &pixels.to_rgb8(), at.0.into(), at.1.into());
    canvas.into()
}

/// Writes a file, with the colour profile of the original.
pub(super) fn encode(
    pixels: &DynamicImage,
    format: Kind,
    quality: u8,
    profile: Option<Vec<u8>>,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let written = match format {
        Kind::Jpeg => {
            write(pixels, JpegEncoder::new_with_quality(&mut bytes, quality.max(1)), profile)
        }
        Kind::Png => write(pixels, PngEncoder::new(&mut bytes), profile),
        Kind::Webp => write(pixels, WebPEncoder::new_lossless(&mut bytes), profile),
        // No variant is one.
        Kind::Gif => return Err(Failure::Internal),
    };
    written.map(|()| bytes).map_err(|error| {
        tracing::error!(%error, ?format, "an image cannot be encoded");
        Failure::Internal
    })
}

fn write(
    pixels: &DynamicImage,
    mut encoder: impl ImageEncoder,
    profile: Option<Vec<u8>>,
) -> image::ImageResult<()> {
    if let Some(profile) = profile {
        // A grey image has no use for a profile of colours, and a format may have no place for one.
        let fits = pixels.color().channel_count() >= 3;
        let _no_place = fits.then(|| encoder.set_icc_profile(profile));
    }
    let (width, height) = pixels.dimensions();
    encoder.write_image(pixels.as_bytes(), width, height, pixels.color().into())
}
