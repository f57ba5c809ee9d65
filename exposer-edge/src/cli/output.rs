//! The only place that writes to standard output: answers of commands, for people or for scripts.

use std::io::{self, Write as _};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;

/// A terminal narrower than this is not worth wrapping for.
const NARROWEST: u16 = 40;

/// Writes a line, or several. A reader that went away (`| head`) is no error.
///
/// # Errors
///
/// When standard output can't be written to.
pub fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes one JSON document.
///
/// # Errors
///
/// When standard output can't be written to.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// A table for people: columns with their headings, no lines around, as wide as the terminal allows.
#[must_use]
pub fn table<const N: usize>(headings: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings);
    if let Some(width) = terminal_width() {
        table.set_width(width);
    }
    for row in rows {
        table.add_row(row.map(Cell::new));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.to_string();
    lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Columns of the terminal; none when the output goes elsewhere, so that `grep` finds whole rows.
fn terminal_width() -> Option<u16> {
    let (width, _) = terminal_size::terminal_size_of(io::stdout())?;
    Some(width.0).filter(|width| *width >= NARROWEST)
}

/// A count of bytes as people read it: 999 B, 1.5 KiB, 3.0 GiB.
#[must_use]
pub fn bytes(count: u64) -> String {
    const LARGER: [&str; 4] = ["MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let (mut tenths, mut unit) = (u128::from(count).saturating_mul(10) >> 10_u32, "KiB");
    for larger in LARGER {
        if tenths < 10_240 {
            break;
        }
        tenths >>= 10_u32;
        unit = larger;
    }
    format!("{}.{} {unit}", tenths.wrapping_div(10), tenths.wrapping_rem(10))
}

/// A time as people read it: `2h 3m`, `5s`; the two largest units.
#[must_use]
pub fn duration(time: std::time::Duration) -> String {
    let whole = std::time::Duration::from_secs(time.as_secs());
    let text = humantime::format_duration(whole).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_readable() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1_048_576, "1.0 MiB"),
            (3 << 30, "3.0 GiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(bytes(count), text, "{count}");
        }
    }

    #[test]
    fn durations_keep_two_units() {
        let text = |seconds| duration(std::time::Duration::from_secs(seconds));
        assert_eq!(
            (text(0).as_str(), text(61).as_str(), text(90_061).as_str()),
            ("0s", "1m 1s", "1day 1h")
        );
    }

    #[test]
    fn tables_line_up() {
        let rows = [
            ["a".to_owned(), "1".to_owned()],
            ["long name".to_owned(), "22".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "N"], rows),
            "NAME       N\na          1\nlong name  22"
        );
    }
}
