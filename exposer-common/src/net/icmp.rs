//! ICMP errors (RFC 792, RFC 1191, RFC 5508): which ones concern a flow, and the ones that a router owes.
//!
//! An ICMP error quotes the header of the packet that it is about, as that packet looked where the error arose. An
//! error about a packet that we rewrote quotes the rewritten one, so the quote is found in the *other* direction's
//! table, and both headers are rewritten: the outer one for the way on, the inner one to what its sender had sent
//! (RFC 5508 REQ-4, REQ-5).
//!
//! # Checksums of a translated error
//!
//! The inner IPv4 header's checksum makes the header's sum a constant, so rewriting its addresses *and* its checksum
//! changes nothing in the sum over the ICMP message. What does change it are the ports and, where the quote holds a
//! UDP checksum, that checksum. The TCP checksum lies behind the eight bytes that every quote has and is left as it
//! is: no receiver checks it, for quotes may be cut anywhere.
//!
//! # The quoted checksum of an answer
//!
//! A packet of a virtual machine or a container may come in with its transport checksum unfinished
//! (`CHECKSUM_PARTIAL`), and hardware will finish it on the way out, when it is already quoted in our answer: it then
//! writes `~(S + F)` where `F` stood, `S` being the sum of the other quoted transport words, and the ICMP checksum over
//! it would break. [`quoted_checksum`] is the value `F` that this leaves unchanged: `F = ~(S + F)`.

use super::checksum::{fold32, fold64};
use super::parse::IPV4_LEN;

/// Bytes of an ICMP header.
pub const ICMP_LEN: usize = 8;
/// Bytes of a quote that every ICMP error has: an IPv4 header and eight bytes (RFC 792).
pub const QUOTE_LEN: usize = IPV4_LEN + 8;
/// The smallest path MTU that is believed; below it is Linux's own floor (`net.ipv4.route.min_pmtu`).
pub const MIN_PATH_MTU: u16 = 552;

const DESTINATION_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// What an ICMP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// An error about the quoted packet.
    Error,
    /// "Fragmentation needed" with a path MTU that nobody can mean.
    AbsurdMtu,
    /// Anything else: echo, redirects, source quench (deprecated by RFC 6633).
    Other,
}

/// Judges an ICMP header.
#[inline(always)]
#[must_use]
pub const fn message(header: &[u8; ICMP_LEN]) -> Message {
    let [kind, code, _, _, _, _, mtu0, mtu1] = *header;
    match kind {
        DESTINATION_UNREACHABLE if code == FRAGMENTATION_NEEDED => {
            if u16::from_be_bytes([mtu0, mtu1]) < MIN_PATH_MTU {
                Message::AbsurdMtu
            } else {
                Message::Error
            }
        }
        DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => Message::Error,
        _ => Message::Other,
    }
}

/// The tuple of a quoted packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its source address.
    pub saddr: [u8; 4],
    /// Its destination address.
    pub daddr: [u8; 4],
    /// Its source port, network order.
    pub sport: [u8; 2],
    /// Its destination port, network order.
    pub dport: [u8; 2],
    /// Its IANA protocol number.
    pub proto: u8,
}

/// Reads a quote. `None` for what can't be one of ours: another version, IPv4 options, or a later fragment.
#[inline(always)]
#[must_use]
pub const fn quote(bytes: &[u8; QUOTE_LEN]) -> Option<Quote> {
    let [
        version_ihl,
        _,
        _,
        _,
        _,
        _,
        frag0,
        frag1,
        _,
        proto,
        _,
        _,
        s0,
        s1,
        s2,
        s3,
        d0,
        d1,
        d2,
        d3,
        p0,
        p1,
        q0,
        q1,
        _,
        _,
        _,
        _,
    ] = *bytes;
    if version_ihl != 0x45 || frag0 & 0x1f != 0 || frag1 != 0 {
        return None;
    }
    Some(Quote {
        saddr: [s0, s1, s2, s3],
        daddr: [d0, d1, d2, d3],
        sport: [p0, p1],
        dport: [q0, q1],
        proto,
    })
}

/// An error that we send ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The packet does not fit the tunnel, whose MTU this is (RFC 1191 §4).
    TooBig(u16),
    /// The packet's time to live ran out.
    TimeExceeded,
}

impl Answer {
    /// The ICMP header, its checksum zero.
    #[inline(always)]
    #[must_use]
    pub const fn header(self) -> [u8; ICMP_LEN] {
        match self {
            Self::TooBig(mtu) => {
                let [high, low] = mtu.to_be_bytes();
                [
                    DESTINATION_UNREACHABLE,
                    FRAGMENTATION_NEEDED,
                    0,
                    0,
                    0,
                    0,
                    high,
                    low,
                ]
            }
            Self::TimeExceeded => [TIME_EXCEEDED, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

/// The value of a quoted transport checksum that stays what it is when it is finished later; `others` is the sum of
/// the other quoted transport words. See the [module](self).
#[inline(always)]
#[must_use]
pub const fn quoted_checksum(others: u64) -> [u8; 2] {
    let rest = !fold32(fold64(others)) as u32;
    // Half of the complement, in arithmetic modulo 0xffff, where 0x8000 is the inverse of 2.
    let half = (rest.wrapping_mul(0x8000) % 0xffff) as u16;
    half.to_ne_bytes()
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "test code")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_and_others() {
        let of = |kind, code, mtu: u16| {
            let [high, low] = mtu.to_be_bytes();
            message(&[kind, code, 0, 0, 0, 0, high, low])
        };
        assert_eq!(of(3, 3, 0), Message::Error, "port unreachable");
        assert_eq!(of(3, 4, 1400), Message::Error, "fragmentation needed");
        assert_eq!(of(3, 4, 551), Message::AbsurdMtu);
        assert_eq!(of(3, 4, 0), Message::AbsurdMtu, "a router before RFC 1191");
        assert_eq!(of(11, 0, 0), Message::Error, "time exceeded");
        assert_eq!(of(12, 0, 0), Message::Error, "parameter problem");
        for other in [0, 4, 5, 8, 13, 255] {
            assert_eq!(of(other, 0, 0), Message::Other, "type {other}");
        }
    }

    #[test]
    fn quotes_of_ours_only() {
        let mut bytes = [0_u8; QUOTE_LEN];
        bytes[0] = 0x45;
        bytes[9] = 17;
        bytes[12..24].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 0, 10]);
        let expected = Quote {
            saddr: [1, 2, 3, 4],
            daddr: [5, 6, 7, 8],
            sport: [0, 9],
            dport: [0, 10],
            proto: 17,
        };
        assert_eq!(quote(&bytes), Some(expected));
        for (at, value) in [(0, 0x46), (0, 0x65), (6, 0x01), (7, 0x01)] {
            let mut other = bytes;
            other[at] = value;
            assert_eq!(quote(&other), None, "byte {at} = {value:#x}");
        }
        bytes[6] = 0x20;
        assert_eq!(quote(&bytes), Some(expected), "a first fragment has ports");
    }

    proptest! {
        /// Finishing the checksum leaves it as it is (0 and ffff being the same number).
        #[test]
        fn a_fixpoint_under_completion(others in any::<u32>()) {
            let field = quoted_checksum(others.into());
            let finished = !fold32(fold64(u64::from(others) + u64::from(u16::from_ne_bytes(field))));
            let same = |value: u16| if value == 0xffff { 0 } else { value };
            prop_assert_eq!(same(finished), same(u16::from_ne_bytes(field)));
        }
    }
}
