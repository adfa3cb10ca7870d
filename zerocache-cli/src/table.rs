//! Tables of text, each column as wide as its widest cell.

use anstyle::Style;

use crate::style::styled;

/// Returns the lines of a table with a heading.
pub(crate) fn lines(heading: &[&str], rows: &[Vec<String>]) -> String {
    styled_lines(heading, rows, |_, _| Style::new())
}

/// Returns the lines of a table with a heading, and with the codes of the style of each cell, which depends on
/// the number of its column and on its text.
pub(crate) fn styled_lines(
    heading: &[&str],
    rows: &[Vec<String>],
    style: impl Fn(usize, &str) -> Style,
) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let padded = heading.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
    let mut text = format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end());
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            let is_last = column + 1 == row.len();
            let padded = if is_last { cell.clone() } else { format!("{cell:<width$}") };
            match style(column, cell) {
                plain if plain.is_plain() => padded,
                style => styled(style, &padded),
            }
        });
        text += &format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

/// Returns a number of bytes for people: `512 B`, `1.5 MiB`.
pub(crate) fn bytes(number: f64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1_024.0 {
        return format!("{number:.0} B");
    }
    let mut value = number / 1_024.0;
    let mut at = 0;
    while value >= 1_024.0 && at + 1 < UNITS.len() {
        value /= 1_024.0;
        at += 1;
    }
    format!("{value:.1} {}", UNITS[at])
}

/// Returns a time span for people: `250 ms`, `42 s`, `3 h`, `12 d`.
pub(crate) fn span(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    // Two of a unit say more than one of the next.
    let unit = UNITS.into_iter().find(|(unit_ms, _)| ms >= 2 * unit_ms);
    unit.map_or_else(|| format!("{ms} ms"), |(unit_ms, unit)| format!("{} {unit}", ms / unit_ms))
}

/// Returns a duration in microseconds for people: `50µs`, `3.2ms`, `1.6s`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}µs"),
        1_000..1_000_000 => format!("{:.1}ms", us as f64 / 1e3),
        _ => format!("{:.1}s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [vec!["1".to_owned(), "zürich".to_owned()], vec!["22222".to_owned(), String::new()]];
        assert_eq!(lines(&["ID", "REGION"], &rows), "ID     REGION\n1      zürich\n22222\n");
    }

    #[test]
    fn codes_of_styles_do_not_move_columns() {
        let rows = [vec!["1".to_owned(), "good".to_owned(), "x".to_owned()]];
        let style = |column, _: &str| if column == 1 { crate::style::GOOD } else { Style::new() };
        let text = styled_lines(&["ID", "STATE", "Z"], &rows, style);
        assert_eq!(text, "ID  STATE  Z\n1   \u{1b}[32mgood \u{1b}[0m  x\n");
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!(bytes(1_023.0), "1023 B");
        assert_eq!(bytes(1.5 * 1_048_576.0), "1.5 MiB");
        assert_eq!([50, 3_200, 1_638_400].map(micros), ["50µs", "3.2ms", "1.6s"]);
        assert_eq!(span(1_999), "1999 ms");
        assert_eq!(span(119_000), "119 s");
        assert_eq!(span(3 * 86_400_000), "3 d");
    }
}
