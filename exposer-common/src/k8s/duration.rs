//! Durations as people write them: `90s`, `5m`, `2h`, `1h30m`.

use thiserror::Error;

use crate::model::shorten;

/// Longest idle timeout, in seconds: a day.
pub const MAX_SECONDS: u32 = 86_400;

/// Why a text is no duration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DurationError {
    /// Not numbers with units.
    #[error("\"{0}\" is no duration: write a number with s, m or h, such as 90s, 5m, 2h or 1h30m")]
    Syntax(String),
    /// Zero, or longer than a day.
    #[error("\"{0}\" is out of range: 1s to 24h")]
    Range(String),
}

/// The duration in seconds, 1 to [`MAX_SECONDS`]. White space around it does not count.
///
/// # Errors
///
/// When `text` is no duration, or out of range.
pub fn parse_seconds(text: &str) -> Result<u32, DurationError> {
    let trimmed = text.trim();
    let syntax = || DurationError::Syntax(shorten(trimmed));
    let range = || DurationError::Range(shorten(trimmed));
    let mut total = 0_u32;
    let mut number: Option<u32> = None;
    let mut last_unit = u32::MAX;
    for character in trimmed.chars() {
        if let Some(digit) = character.to_digit(10) {
            let value = number
                .unwrap_or(0)
                .checked_mul(10)
                .and_then(|value| value.checked_add(digit));
            number = Some(value.ok_or_else(range)?);
            continue;
        }
        let unit = match character {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            _ => return Err(syntax()),
        };
        // Each unit once, from the largest: `5m5m` and `5s1h` are slips, not sums.
        if unit >= last_unit {
            return Err(syntax());
        }
        last_unit = unit;
        let part = number
            .take()
            .ok_or_else(syntax)?
            .checked_mul(unit)
            .ok_or_else(range)?;
        total = total.checked_add(part).ok_or_else(range)?;
    }
    if number.is_some() || last_unit == u32::MAX {
        return Err(syntax());
    }
    if total == 0 || total > MAX_SECONDS {
        return Err(range());
    }
    Ok(total)
}
