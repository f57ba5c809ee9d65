//! A range of ports, both ends included, never empty.

use std::fmt;
use std::str::FromStr;

/// Ports `first` to `last`, both included; `first` ≥ 1 and `first` ≤ `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text or a pair of numbers is no port range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortRangeError {
    /// Not of the form `FIRST-LAST` with two ports.
    #[error("\"{0}\" is not FIRST-LAST with two ports of 1-65535, for example 1024-29999")]
    Form(String),
    /// The first port is larger than the last.
    #[error("the first port {first} is larger than the last port {last}; exchange the two")]
    Reversed {
        /// What was given as the first.
        first: u16,
        /// What was given as the last.
        last: u16,
    },
    /// Port 0.
    #[error("port 0 is not a port; a range begins at 1 or above")]
    Zero,
}

impl PortRange {
    /// The range from `first` to `last`.
    ///
    /// # Errors
    ///
    /// When `first` is 0 or larger than `last`.
    pub const fn new(first: u16, last: u16) -> Result<Self, PortRangeError> {
        if first == 0 {
            return Err(PortRangeError::Zero);
        }
        if first > last {
            return Err(PortRangeError::Reversed { first, last });
        }
        Ok(Self { first, last })
    }

    /// First port of the range.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Last port of the range.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Number of ports, 1–65,535.
    #[must_use]
    pub const fn count(self) -> u16 {
        // `first` is 1 or more, so that the sum is at most 65,535.
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Whether `port` is inside.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// The ports that both ranges have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last)).ok()
    }

    /// Every port, in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = u16> {
        self.first..=self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = PortRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || PortRangeError::Form(exposer_common::model::shorten(text));
        let (first, last) = text.split_once('-').ok_or_else(form)?;
        let first = first.trim().parse().map_err(|_| form())?;
        let last = last.trim().parse().map_err(|_| form())?;
        Self::new(first, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for (text, count) in [
            ("1024-29999", 28_976),
            ("1-65535", 65_535),
            ("80-80", 1),
            (" 5 - 7 ", 3),
        ] {
            let range: PortRange = text.parse().unwrap();
            assert_eq!(range.count(), count, "{text}");
            assert_eq!(range.to_string().replace(' ', ""), text.replace(' ', ""));
            assert_eq!(range.iter().count(), usize::from(count));
        }
    }

    #[test]
    fn refuses_what_is_no_range() {
        for text in ["", "-", "1024", "a-b", "1-65536", "-1-5", "1-2-3", "1–2"] {
            assert!(
                matches!(text.parse::<PortRange>(), Err(PortRangeError::Form(_))),
                "{text}"
            );
        }
        assert_eq!("0-5".parse::<PortRange>(), Err(PortRangeError::Zero));
        assert_eq!(
            "9-5".parse::<PortRange>(),
            Err(PortRangeError::Reversed { first: 9, last: 5 })
        );
    }

    #[test]
    fn intersects() {
        let range = |text: &str| text.parse::<PortRange>().unwrap();
        assert_eq!(range("1-10").intersection(range("10-20")), Some(range("10-10")));
        assert_eq!(range("1-10").intersection(range("11-20")), None);
        assert_eq!(range("1-65535").intersection(range("7-9")), Some(range("7-9")));
    }
}
