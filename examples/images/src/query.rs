//! Parameters of a request: from the text of a query to a variant. Pure, and bounded in all it does.

use std::collections::HashMap;

use url::form_urlencoded;

use crate::failure::Failure;
use crate::steps::{SIDE_MAX, Steps};
use crate::variant::{Fit, Format, Gravity, Variant};

/// The longest query, in bytes: a URL of which each byte is escaped, and the rest.
pub const QUERY_BYTES_MAX: usize = 8_192;

/// The quality of JPEG if none is asked for.
pub const QUALITY_DEFAULT: u8 = 80;

/// The names of all parameters.
const NAMES: [&str; 12] =
    ["url", "w", "h", "fit", "gravity", "q", "format", "bg", "enlarge", "dpr", "preset", "sig"];

/// The parameters of a request, each at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(HashMap<&'static str, String>);

impl Params {
    /// Reads a query.
    ///
    /// # Errors
    /// [`Failure::BadRequest`] for a parameter that is not known or is given twice, and a query that is too long.
    pub fn parse(query: &str) -> Result<Self, Failure> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(Failure::bad(format!(
                "query: at most {QUERY_BYTES_MAX} bytes are allowed"
            )));
        }
        let mut params = HashMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let known = NAMES.iter().find(|known| **known == name);
            let known = known.ok_or_else(|| {
                Failure::bad(format!("a parameter is none of {}", NAMES.join(", ")))
            })?;
            if params.insert(*known, value.into_owned()).is_some() {
                return Err(Failure::bad(format!("{known}: given twice")));
            }
        }
        Ok(Self(params))
    }

    /// Returns a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets the parameters that are part of the path of a request: they must not be in its query.
    ///
    /// # Errors
    /// [`Failure::BadRequest`] when they are.
    pub fn with_path(mut self, size: &str, url: &str) -> Result<Self, Failure> {
        let (width, height) =
            size.split_once('x').ok_or_else(|| Failure::bad("the size is not WIDTHxHEIGHT"))?;
        for (name, value) in [("w", width), ("h", height), ("url", url)] {
            if !value.is_empty() && self.0.insert(name, value.to_owned()).is_some() {
                return Err(Failure::bad(format!("{name}: given twice")));
            }
        }
        Ok(self)
    }
}

/// Presets and steps: what a service makes of parameters.
#[derive(Clone, Debug, Default)]
pub struct VariantRules {
    /// The sizes that are made.
    pub steps: Steps,
    /// Names for sets of parameters.
    pub presets: HashMap<String, Params>,
    /// Whether a preset is the only parameter that is allowed beside the URL.
    pub only_presets: bool,
}

impl VariantRules {
    /// Adds a preset: `thumb:w=250&h=250&fit=cover`.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn add_preset(&mut self, text: &str) -> Result<(), String> {
        let (name, query) = text.split_once(':').ok_or("a preset is NAME:PARAMETERS")?;
        let params = Params::parse(query).map_err(|failure| failure.to_string())?;
        if ["url", "sig", "preset"].into_iter().any(|name| params.get(name).is_some()) {
            return Err(format!("preset {name}: url, sig and preset are no part of one"));
        }
        variant_of(&params, &self.steps, false)
            .map_err(|failure| format!("preset {name}: {failure}"))?;
        self.presets.insert(name.to_owned(), params);
        Ok(())
    }

    /// Returns the variant that a request asks for. `webp`: whether the reader knows WebP.
    ///
    /// # Errors
    /// [`Failure::BadRequest`], which names the parameter and what is allowed.
    pub fn variant(&self, params: &Params, webp: bool) -> Result<Variant, Failure> {
        let own = params.0.keys().any(|name| !matches!(*name, "url" | "sig" | "preset" | "dpr"));
        let preset = match params.get("preset") {
            Some(name) => {
                Some(self.presets.get(name).ok_or_else(|| Failure::bad("preset: not known"))?)
            }
            None if self.only_presets => return Err(Failure::bad("preset: required")),
            None => None,
        };
        if self.only_presets && own {
            return Err(Failure::bad("only url, preset, dpr and sig are allowed"));
        }
        let Some(preset) = preset else { return variant_of(params, &self.steps, webp) };
        // Parameters of the request go before those of the preset.
        let mut all = preset.clone();
        all.0.extend(params.0.iter().map(|(name, value)| (*name, value.clone())));
        variant_of(&all, &self.steps, webp)
    }
}

fn variant_of(params: &Params, steps: &Steps, webp: bool) -> Result<Variant, Failure> {
    let dpr = params.get("dpr").map_or(Ok(2), dpr_halves)?;
    let side = |name| match params.get(name) {
        None | Some("") => Ok(None),
        Some(text) => {
            let side = number(name, text, 0, 99_999)?;
            // 0 is a free side, as in other services.
            Ok((side > 0).then(|| (side * dpr).div_ceil(2).clamp(1, 2 * SIDE_MAX)))
        }
    };
    let (width, height) = steps.snap(side("w")?, side("h")?);
    let format = word(params, "format", &FORMATS)?.unwrap_or_default();
    let format = if format == Format::Auto && webp { Format::AutoWebp } else { format };
    let fit = word(params, "fit", &FITS)?.unwrap_or_default();
    // Without both sides there is nothing to cut off or to fill.
    let fit = if width.is_some() && height.is_some() { fit } else { Fit::Inside };
    let quality = match params.get("q") {
        None => u32::from(QUALITY_DEFAULT),
        Some(text) => number("q", text, 1, 100)?.div_ceil(5) * 5,
    };
    let gravity = word(params, "gravity", &GRAVITIES)?.unwrap_or_default();
    let background = params.get("bg").map_or(Ok([255; 3]), colour)?;
    let lossless = matches!(format, Format::Png | Format::Webp);
    Ok(Variant {
        width,
        height,
        fit,
        // What has no effect is not part of a variant.
        gravity: if matches!(fit, Fit::Cover | Fit::Pad) { gravity } else { Gravity::Center },
        quality: if lossless { 0 } else { quality as u8 },
        background: if lossless && fit != Fit::Pad { [255; 3] } else { background },
        format,
        enlarge: word(params, "enlarge", &SWITCH)?.unwrap_or(false),
    })
}

const FITS: [(&str, Fit); 4] =
    [("inside", Fit::Inside), ("cover", Fit::Cover), ("pad", Fit::Pad), ("fill", Fit::Fill)];
const FORMATS: [(&str, Format); 5] = [
    ("auto", Format::Auto),
    ("jpeg", Format::Jpeg),
    ("jpg", Format::Jpeg),
    ("png", Format::Png),
    ("webp", Format::Webp),
];
const GRAVITIES: [(&str, Gravity); 9] = [
    ("center", Gravity::Center),
    ("north", Gravity::North),
    ("northeast", Gravity::NorthEast),
    ("east", Gravity::East),
    ("southeast", Gravity::SouthEast),
    ("south", Gravity::South),
    ("southwest", Gravity::SouthWest),
    ("west", Gravity::West),
    ("northwest", Gravity::NorthWest),
];
const SWITCH: [(&str, bool); 2] = [("0", false), ("1", true)];

fn word<T: Copy>(params: &Params, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Failure> {
    let Some(text) = params.get(name) else { return Ok(None) };
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    let allowed = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    found.map(Some).ok_or_else(|| Failure::bad(format!("{name}: one of {} is allowed", allowed())))
}

fn number(name: &str, text: &str, least: u32, most: u32) -> Result<u32, Failure> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && (least..=most).contains(number));
    number
        .ok_or_else(|| Failure::bad(format!("{name}: a number from {least} to {most} is allowed")))
}

/// The pixels per point, in halves.
fn dpr_halves(text: &str) -> Result<u32, Failure> {
    match text {
        "1" | "1.0" => Ok(2),
        "1.5" => Ok(3),
        "2" | "2.0" => Ok(4),
        "3" | "3.0" => Ok(6),
        _ => Err(Failure::bad("dpr: 1, 1.5, 2 or 3 is allowed")),
    }
}

fn colour(text: &str) -> Result<[u8; 3], Failure> {
    let wrong = || Failure::bad("bg: six hexadecimal digits are allowed");
    if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let number = u32::from_str_radix(text, 16).map_err(|_| wrong())?;
    let [_, red, green, blue] = number.to_be_bytes();
    Ok([red, green, blue])
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
