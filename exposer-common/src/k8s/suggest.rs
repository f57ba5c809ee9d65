//! "Did you mean": the nearest of a few known words.

use std::fmt;

/// Most edits by which a typed word may differ from the suggested one.
const MAX_EDITS: usize = 3;

/// The known word that is so near to `typed` that it was probably meant.
pub(super) fn nearest(typed: &str, known: &[&'static str]) -> Option<&'static str> {
    let typed = typed.to_ascii_lowercase();
    if typed.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&typed, word), *word))
        .filter(|(edits, word)| *edits <= MAX_EDITS.min(word.len().div_ceil(2)))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, word)| word)
}

/// Prints ` (did you mean "…"?)`, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suggestion(pub(super) Option<&'static str>);

impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(word) => write!(f, " (did you mean \"{word}\"?)"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["subdomain", "ports", "target"];
        assert_eq!(nearest("subdomian", &known), Some("subdomain"));
        assert_eq!(nearest("Ports", &known), Some("ports"));
        assert_eq!(nearest("port", &known), Some("ports"));
        assert_eq!(nearest("replicas", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(nearest(&"x".repeat(10_000), &known), None);
    }
}
