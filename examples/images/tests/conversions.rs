//! Files of each kind, whole and damaged, and what becomes of them. `tests/files/generate.py` made the files; each
//! shows the same: left half red, right half blue, a green square at the top left corner.

use std::fs;
use std::path::PathBuf;

use image::{DynamicImage, GenericImageView};
use images::convert::{Converted, Kind, Limits, convert};
use images::failure::Failure;
use images::query::{Params, VariantRules};
use images::steps::Steps;
use images::variant::Variant;

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn variant(query: &str, webp: bool) -> Variant {
    let rules = VariantRules { steps: Steps::exact(), ..VariantRules::default() };
    rules.variant(&Params::parse(query).expect("params"), webp).expect("a variant")
}

fn made(bytes: &[u8], query: &str) -> Result<Converted, Failure> {
    convert(bytes, &variant(query, false), &Limits::default())
}

fn decoded(made: &Converted) -> DynamicImage {
    assert_eq!(Kind::of(&made.bytes), Some(made.kind));
    let pixels = image::load_from_memory(&made.bytes).expect("an image");
    assert_eq!(pixels.dimensions(), (made.width, made.height));
    pixels
}

/// The colour at a share of the width and height, by its strongest channel.
fn colour(pixels: &DynamicImage, x: f32, y: f32) -> &'static str {
    let (width, height) = pixels.dimensions();
    let [red, green, blue, alpha] =
        pixels.get_pixel((width as f32 * x) as u32, (height as f32 * y) as u32).0;
    let channels = [(red, "red"), (green, "green"), (blue, "blue")];
    let (most, name) = channels.into_iter().max().expect("a channel");
    let least = red.min(green).min(blue);
    match (alpha, most - least) {
        (..128, _) => "transparent",
        (_, ..60) => "grey",
        _ => name,
    }
}

#[test]
fn every_kind_of_file_is_read_upright_and_in_its_colours() {
    let mut names = vec![
        "plain.png",
        "palette.png",
        "interlaced.png",
        "colour_16_bit.png",
        "progressive.jpg",
        "subsampled_420.jpg",
        "cmyk.jpg",
        "lossy.webp",
        "animated.gif",
        "animated.webp",
        "animated.png",
    ];
    let turned = |kind: &'static str| (1..=8).map(move |number| format!("exif_{number}.{kind}"));
    let turned: Vec<_> = ["jpg", "png", "webp"].into_iter().flat_map(turned).collect();
    names.extend(turned.iter().map(String::as_str));
    for name in names {
        let made = made(&file(name), "w=24").unwrap_or_else(|failure| panic!("{name}: {failure}"));
        let pixels = decoded(&made);
        assert_eq!(pixels.dimensions(), (24, 16), "{name}");
        let seen =
            [(0.1, 0.15), (0.2, 0.8), (0.8, 0.2), (0.8, 0.8)].map(|(x, y)| colour(&pixels, x, y));
        assert_eq!(seen, ["green", "red", "blue", "blue"], "{name}");
    }
}

#[test]
fn upright_image_is_cut_where_it_is_asked_for() {
    for orientation in 1..=8 {
        let original = file(&format!("exif_{orientation}.jpg"));
        let corner = decoded(&made(&original, "w=12&h=32&fit=cover&gravity=west").expect("made"));
        assert_eq!(corner.dimensions(), (12, 32), "{orientation}");
        let seen = [colour(&corner, 0.3, 0.1), colour(&corner, 0.3, 0.8)];
        assert_eq!(seen, ["green", "red"], "{orientation}");
    }
}

#[test]
fn grey_stays_grey_and_keeps_its_course() {
    let pixels = decoded(&made(&file("grey_16_bit.png"), "w=24").expect("made"));
    let left = pixels.get_pixel(2, 8).0[0];
    let right = pixels.get_pixel(21, 8).0[0];
    assert!(left < 40 && right > 215, "{left} to {right}");
    for name in ["grey.jpg", "one_bit.png", "grey_16_bit.png"] {
        assert!(!decoded(&made(&file(name), "w=24").expect("made")).color().has_color(), "{name}");
    }
}

#[test]
fn format_follows_the_original_and_the_reader() {
    let kind = |name: &str, query: &str, webp| {
        let made = convert(&file(name), &variant(query, webp), &Limits::default());
        decoded(made.as_ref().expect("made"));
        made.expect("made").kind
    };
    let table = [
        ("subsampled_420.jpg", "", false, Kind::Jpeg),
        ("subsampled_420.jpg", "", true, Kind::Jpeg),
        ("plain.png", "", false, Kind::Png),
        ("plain.png", "", true, Kind::Webp),
        ("animated.gif", "", false, Kind::Png),
        ("lossy.webp", "", false, Kind::Jpeg),
        ("transparent_lossless.webp", "", false, Kind::Png),
        ("transparent_lossless.webp", "", true, Kind::Webp),
        ("plain.png", "format=jpeg", true, Kind::Jpeg),
        ("subsampled_420.jpg", "format=png", false, Kind::Png),
        ("grey.jpg", "format=webp", false, Kind::Webp),
        ("transparent.png", "format=jpeg", false, Kind::Jpeg),
    ];
    for (name, query, webp, expected) in table {
        assert_eq!(kind(name, query, webp), expected, "{name} {query} {webp}");
    }
}

#[test]
fn transparent_parts_stay_or_get_the_background() {
    let original = file("transparent.png");
    assert_eq!(colour(&decoded(&made(&original, "w=24").expect("made")), 0.8, 0.2), "transparent");
    let flat = decoded(&made(&original, "w=24&format=jpeg&bg=00ff00").expect("made"));
    assert_eq!((colour(&flat, 0.8, 0.2), colour(&flat, 0.8, 0.8)), ("green", "blue"));
    let padded = decoded(&made(&original, "w=48&h=96&fit=pad&bg=ff0000").expect("made"));
    assert_eq!(padded.dimensions(), (48, 96));
    assert_eq!((colour(&padded, 0.8, 0.1), colour(&padded, 0.1, 0.4)), ("red", "green"));
}

#[test]
fn files_that_are_not_images_are_refused_by_their_bytes() {
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>".to_vec();
    let html = b"<!doctype html><title>an image</title>".to_vec();
    for bytes in
        [svg, html, Vec::new(), b"GIF8".to_vec(), file("bitmap.bmp"), file("tiff.tif"), vec![0; 64]]
    {
        assert_eq!(made(&bytes, "").err(), Some(Failure::NotAnImage));
    }
}

#[test]
fn damaged_files_end_in_an_image_or_a_failure() {
    for name in
        ["plain.png", "interlaced.png", "progressive.jpg", "cmyk.jpg", "lossy.webp", "animated.gif"]
    {
        let whole = file(name);
        for length in 1..whole.len() {
            // Some decoders show what there is, as browsers do.
            if let Err(failure) = made(&whole[..length], "w=20") {
                assert!(
                    matches!(failure, Failure::NotAnImage | Failure::Undecodable),
                    "{name} {length}: {failure}"
                );
            }
        }
        for at in (0..whole.len()).step_by(3) {
            let mut wrong = whole.clone();
            wrong[at] ^= 0xff;
            let _one_or_the_other = made(&wrong, "w=20");
        }
    }
    let half = file("plain.png");
    assert_eq!(made(&half[..half.len() / 2], "w=20").err(), Some(Failure::Undecodable));
}

/// A PNG whose header claims a size, without pixels.
fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut head = b"IHDR".to_vec();
    head.extend(width.to_be_bytes());
    head.extend(height.to_be_bytes());
    head.extend([8, 6, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&head);
    png.extend(crc(&head).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT");
    png.extend(crc(b"IDAT").to_be_bytes());
    png
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[test]
fn bombs_are_refused_by_their_header() {
    for (width, height) in
        [(30_000, 30_000), (12_001, 1), (1, 12_001), (12_000, 12_000), (7_100, 7_100)]
    {
        assert_eq!(
            made(&png_of(width, height), "w=20").err(),
            Some(Failure::TooLarge),
            "{width}x{height}"
        );
    }
    let limits = Limits { memory: 1 << 20, ..Limits::default() };
    let refused = convert(&png_of(1_000, 1_000), &variant("", false), &limits);
    assert_eq!(refused.err(), Some(Failure::TooLarge));
    // A progressive JPEG takes 9 bytes for each pixel while it is decoded, of which 3 are its result.
    let jpeg = file("progressive.jpg");
    let (width, height) = image::load_from_memory(&jpeg).expect("an image").dimensions();
    let pixels = u64::from(width) * u64::from(height);
    for (memory, fits) in [(9 * pixels, true), (9 * pixels - 1, false)] {
        let limits = Limits { memory, ..Limits::default() };
        let converted = convert(&jpeg, &variant("", false), &limits);
        assert_eq!(converted.err(), (!fits).then_some(Failure::TooLarge));
    }
    let frame = [b',', 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 2, 0];
    let gif = [b"GIF89a".as_slice(), &[0xff, 0xff, 0xff, 0xff, 0, 0, 0], &frame, b";"].concat();
    assert_eq!(made(&gif, "").err(), Some(Failure::TooLarge));
}

#[test]
fn image_without_pixels_is_undecodable() {
    assert_eq!(made(&png_of(0, 0), "").err(), Some(Failure::Undecodable));
    assert_eq!(made(&png_of(0, 100), "").err(), Some(Failure::Undecodable));
    let gif = [b"GIF89a".as_slice(), &[0, 0, 0, 0, 0, 0, 0], b";"].concat();
    assert_eq!(made(&gif, "").err(), Some(Failure::Undecodable));
}

#[test]
fn quality_changes_the_size_of_a_jpeg() {
    let noise = image::RgbImage::from_fn(160, 120, |x, y| {
        image::Rgb([(x * 7 % 251) as u8, (y * 13 % 241) as u8, (x * y % 239) as u8])
    });
    let mut png = Vec::new();
    noise.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).expect("written");
    let bytes = |q| made(&png, &format!("format=jpeg&q={q}")).expect("made").bytes.len();
    assert!(bytes(20) * 2 < bytes(80) && bytes(80) < bytes(100));
}
