//! `images convert`: converts files as the service would, and says what became of each.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::clock::now;
use crate::convert::{Kind, Limits, convert};
use crate::query::{Params, VariantRules};

/// Converts files, prints a line for each and the sum of them. Returns whether none made a decoder panic.
///
/// # Errors
/// If the parameters are wrong, or a file cannot be read or written.
pub fn convert_all(params: &str, out: Option<&Path>, files: &[PathBuf]) -> Result<bool> {
    let variant = VariantRules::default().variant(&Params::parse(params)?, false)?;
    let mut sums: BTreeMap<(String, &str), usize> = BTreeMap::new();
    let mut panicked = 0;
    for file in files {
        let original = std::fs::read(file).with_context(|| file.display().to_string())?;
        let kind = Kind::of(&original).map_or("no image", Kind::media_type);
        let begin = now();
        let made =
            catch_unwind(AssertUnwindSafe(|| convert(&original, &variant, &Limits::default())));
        let ms = (now() - begin).as_secs_f64() * 1e3;
        let (outcome, text) = match made {
            Err(_) => {
                panicked += 1;
                ("panic", "the decoder panicked".to_owned())
            }
            Ok(Err(failure)) => (failure.code(), failure.code().to_owned()),
            Ok(Ok(made)) => {
                let extension = made.kind.media_type().trim_start_matches("image/");
                if let Some(out) = out {
                    let name = file.file_name().context("a file has a name")?;
                    let path = out.join(name).with_extension(format!("made.{extension}"));
                    std::fs::write(&path, &made.bytes)
                        .with_context(|| path.display().to_string())?;
                }
                (
                    "made",
                    format!(
                        "{extension} {}x{}, {} bytes",
                        made.width,
                        made.height,
                        made.bytes.len()
                    ),
                )
            }
        };
        *sums.entry((kind.to_owned(), outcome)).or_default() += 1;
        println!("{}: {kind}, {} bytes -> {text}, {ms:.1} ms", file.display(), original.len());
    }
    println!();
    for ((kind, outcome), count) in sums {
        println!("{kind:12} {outcome:18} {count}");
    }
    Ok(panicked == 0)
}
