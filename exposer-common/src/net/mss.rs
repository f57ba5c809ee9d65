//! Clamping the TCP maximum segment size (RFC 9293 §3.7.1, RFC 6691) to what the tunnel carries.
//!
//! The MSS stands in an option of SYN and SYN-ACK, anywhere in the option list. The caller walks the list: it loads
//! four bytes at an offset and asks [`step`] what they are. The walk is bounded by the caller (40 bytes of options
//! are at most 40 steps), the judgement is here.
//!
//! The option may begin at an odd offset. The checksum adds 16-bit words at *even* offsets, so the two bytes of the
//! value then lie in two words, each in the other half: swapping both old and new value puts them right, because
//! one's complement sums do not mind the byte order ([`super::checksum`]).

/// What stands at one place in the option list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something else; the next option begins so many bytes further.
    Skip(u8),
    /// The MSS option, with this value.
    Mss(u16),
    /// The end of the list, or nonsense that nobody would read beyond.
    End,
}

/// Judges an option from its first four bytes (fewer where the list ends: padded by the caller with zeros).
/// `left` is the number of bytes from its start to the end of the list.
#[inline(always)]
#[must_use]
pub const fn step(bytes: [u8; 4], left: u8) -> Step {
    let [kind, len, high, low] = bytes;
    match kind {
        0 => Step::End,
        1 => Step::Skip(1),
        2 if len == 4 && left >= 4 => Step::Mss(u16::from_be_bytes([high, low])),
        _ if len < 2 || len > left => Step::End,
        _ => Step::Skip(len),
    }
}

/// The arguments `from` and `to` for a two-byte `bpf_l4_csum_replace`, native-endian as loaded from the packet, when
/// the value at `offset` (from the start of the transport header) changes.
#[inline(always)]
#[must_use]
pub const fn checksum_words(old: u16, new: u16, offset: u32) -> (u16, u16) {
    let (old, new) = (
        u16::from_ne_bytes(old.to_be_bytes()),
        u16::from_ne_bytes(new.to_be_bytes()),
    );
    if offset & 1 == 0 {
        (old, new)
    } else {
        (old.swap_bytes(), new.swap_bytes())
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "test code")]
mod tests {
    use super::*;
    use crate::net::checksum::{apply, internet_checksum};
    use proptest::prelude::*;

    /// The walk as the program makes it, over a slice.
    fn find(options: &[u8]) -> Option<(usize, u16)> {
        let mut at = 0;
        for _ in 0..40 {
            if at >= options.len() {
                return None;
            }
            let mut four = [0_u8; 4];
            let end = options.len().min(at + 4);
            four[..end - at].copy_from_slice(&options[at..end]);
            match step(four, u8::try_from(options.len() - at).unwrap()) {
                Step::Skip(len) => at += usize::from(len),
                Step::Mss(value) => return Some((at, value)),
                Step::End => return None,
            }
        }
        None
    }

    #[test]
    fn found_wherever_it_stands() {
        assert_eq!(find(&[2, 4, 5, 180]), Some((0, 1460)));
        assert_eq!(find(&[1, 1, 2, 4, 5, 180]), Some((2, 1460)));
        assert_eq!(find(&[1, 2, 4, 5, 180, 0, 0, 0]), Some((1, 1460)), "odd offset");
        assert_eq!(
            find(&[8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 4, 2, 2, 4, 5, 180]),
            Some((12, 1460))
        );
        let mut last = vec![1_u8; 36];
        last.extend([2, 4, 5, 180]);
        assert_eq!(
            find(&last),
            Some((36, 1460)),
            "the last four bytes of a full list"
        );
    }

    #[test]
    fn nonsense_ends_the_walk() {
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[0, 2, 4, 5, 180]), None, "end of list");
        assert_eq!(find(&[3, 0, 2, 4, 5, 180]), None, "length 0");
        assert_eq!(find(&[3, 1, 2, 4, 5, 180]), None, "length 1");
        assert_eq!(find(&[3, 99, 2, 4]), None, "length beyond the list");
        assert_eq!(
            find(&[2, 3, 5]),
            None,
            "an MSS option of the wrong length is skipped"
        );
        assert_eq!(find(&[2, 4, 5]), None, "an MSS option cut short");
    }

    proptest! {
        #[test]
        fn never_beyond_the_list(options in proptest::collection::vec(any::<u8>(), 0..=40)) {
            if let Some((at, _)) = find(&options) {
                prop_assert!(at + 4 <= options.len());
            }
        }

        /// Old and new value at any offset: the incremental sum equals the full one.
        #[test]
        fn checksum_at_any_offset(mut bytes in proptest::collection::vec(any::<u8>(), 40..=40),
                                  at in 0_usize..38, new in any::<u16>()) {
            let before = internet_checksum(&bytes);
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            let (from, to) = checksum_words(old, new, u32::try_from(at).unwrap());
            let updated = apply(before, u32::from(!from), u32::from(to));
            let same = |check: [u8; 2]| if check == [0xff, 0xff] { [0, 0] } else { check };
            prop_assert_eq!(same(updated), same(internet_checksum(&bytes)));
        }
    }
}
