//! What conversions cost on this machine.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Result;

use super::origin::photograph;
use crate::clock::now;
use crate::convert::{Limits, convert};
use crate::query::{Params, VariantRules};

/// Runs of each conversion, of which the fastest counts.
const RUNS: usize = 5;

const ORIGINALS: [(u32, u32); 2] = [(1_600, 1_200), (4_000, 3_000)];

const VARIANTS: [&str; 5] = [
    "w=250&format=jpeg",
    "w=500&format=jpeg",
    "w=500&format=png",
    "w=500&format=webp",
    "w=1920&format=jpeg",
];

/// Measures conversions one after the other, and returns a table.
///
/// # Errors
/// If a conversion fails.
pub fn costs() -> Result<String> {
    let mut table = format!("{:28}", "variant");
    let mut originals = Vec::new();
    for size in ORIGINALS {
        let bytes = photograph(0, size)?;
        write!(
            table,
            "{:>32}",
            format!("{}x{}, {} KiB: ms, KiB", size.0, size.1, bytes.len() >> 10)
        )?;
        originals.push(bytes);
    }
    for query in VARIANTS {
        write!(table, "\n{query:28}")?;
        let variant = VariantRules::default().variant(&Params::parse(query)?, false)?;
        for original in &originals {
            let (mut least, mut bytes) = (Duration::MAX, 0);
            for _ in 0..RUNS {
                let begin = now();
                bytes = convert(original, &variant, &Limits::default())?.bytes.len();
                least = least.min(now() - begin);
            }
            let cell = format!("{:.1}, {:.1}", least.as_secs_f64() * 1e3, bytes as f64 / 1024.0);
            write!(table, "{cell:>32}")?;
        }
    }
    Ok(table)
}
