//! One's complement arithmetic for incremental checksum updates (RFC 1071, RFC 1624).
//!
//! The Internet checksum is the complement of the one's complement sum of 16-bit words. Three of its properties carry
//! this module:
//!
//! 1. *Order does not matter*, so 32-bit words may be added as well as 16-bit ones, and the carries folded in later.
//! 2. *Byte order does not matter*, as long as the sum is stored the way it was loaded: everything here works on
//!    native-endian loads of the packet's bytes, as the kernel does.
//! 3. *A change can be applied without the rest*: `HC' = ~(~HC + ~m + m')` (RFC 1624 eq. 3). The sum `~m + m'` of all
//!    changed words is the **difference**. It depends on the flow alone, so it is computed once, when the flow is
//!    made, and kept in the flow's entry.
//!
//! The kernel's `bpf_l4_csum_replace(skb, offset, 0, difference, flags)` takes exactly that difference. It is called
//! twice for a packet, once with the addresses' difference and `BPF_F_PSEUDO_HDR`, once with the ports' without: on
//! packets whose checksum is still to be completed by hardware (`CHECKSUM_PARTIAL`: veth, GRO, virtio) the field
//! holds the sum of the pseudo header alone, which the ports are no part of. One combined call breaks TCP there.
//!
//! A UDP checksum of zero means that there is none (RFC 768) and stays zero; a computed zero is written as `0xffff`.
//! `BPF_F_MARK_MANGLED_0` makes the helper do both.

/// Folds a 64-bit sum of 32-bit words to 32 bits, carries included.
#[inline(always)]
#[must_use]
pub const fn fold64(sum: u64) -> u32 {
    let once = (sum & 0xffff_ffff).wrapping_add(sum >> 32);
    let twice = (once & 0xffff_ffff).wrapping_add(once >> 32);
    // Two folds leave at most 32 bits.
    twice as u32
}

/// Folds a 32-bit sum to 16 bits, carries included.
#[inline(always)]
#[must_use]
pub const fn fold32(sum: u32) -> u16 {
    let once = (sum & 0xffff).wrapping_add(sum >> 16);
    let twice = (once & 0xffff).wrapping_add(once >> 16);
    // Two folds leave at most 16 bits.
    twice as u16
}

/// The difference that replacing two addresses makes.
#[inline(always)]
#[must_use]
pub const fn address_difference(old: [[u8; 4]; 2], new: [[u8; 4]; 2]) -> u32 {
    let [old_a, old_b] = old;
    let [new_a, new_b] = new;
    fold64(
        (!u32::from_ne_bytes(old_a) as u64)
            .wrapping_add(!u32::from_ne_bytes(old_b) as u64)
            .wrapping_add(u32::from_ne_bytes(new_a) as u64)
            .wrapping_add(u32::from_ne_bytes(new_b) as u64),
    )
}

/// The difference that replacing two ports makes.
#[inline(always)]
#[must_use]
pub const fn port_difference(old: [[u8; 2]; 2], new: [[u8; 2]; 2]) -> u32 {
    let [old_a, old_b] = old;
    let [new_a, new_b] = new;
    (!u16::from_ne_bytes(old_a) as u32)
        .wrapping_add(!u16::from_ne_bytes(old_b) as u32)
        .wrapping_add(u16::from_ne_bytes(new_a) as u32)
        .wrapping_add(u16::from_ne_bytes(new_b) as u32)
}

/// The difference that replacing one 16-bit word makes.
#[inline(always)]
#[must_use]
pub const fn word_difference(old: [u8; 2], new: [u8; 2]) -> u32 {
    (!u16::from_ne_bytes(old) as u32).wrapping_add(u16::from_ne_bytes(new) as u32)
}

/// Applies differences to a checksum field that holds a complete checksum, such as that of an IPv4 header.
#[inline(always)]
#[must_use]
pub const fn apply(check: [u8; 2], first: u32, second: u32) -> [u8; 2] {
    let sum = (!u16::from_ne_bytes(check) as u64)
        .wrapping_add(first as u64)
        .wrapping_add(second as u64);
    (!fold32(fold64(sum))).to_ne_bytes()
}

/// The Internet checksum of `bytes` (RFC 1071), as it stands in a header. For tests and slow paths.
#[must_use]
pub fn internet_checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        let word = match *pair {
            [high, low] => [high, low],
            [high] => [high, 0],
            _ => [0, 0],
        };
        sum = sum.wrapping_add(u64::from(u16::from_ne_bytes(word)));
    }
    (!fold32(fold64(sum))).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1624 §4: the example on which the older formula of RFC 1141 goes wrong.
    #[test]
    fn rfc_1624_example() {
        let check = apply([0xdd, 0x2f], word_difference([0x55, 0x55], [0x32, 0x85]), 0);
        assert_eq!(check, [0x00, 0x00]);
    }

    proptest! {
        /// Whatever is replaced, the updated checksum equals the one computed from scratch (0 and ffff being the same
        /// number in one's complement).
        #[test]
        fn incremental_equals_full(mut bytes in proptest::collection::vec(any::<u8>(), 20..=20),
                                   addresses in any::<[[u8; 4]; 2]>(), ttl in any::<u8>()) {
            bytes[10] = 0;
            bytes[11] = 0;
            let before = internet_checksum(&bytes);
            let old = [bytes[12..16].try_into().unwrap(), bytes[16..20].try_into().unwrap()];
            let old_word = [bytes[8], bytes[9]];
            bytes[8] = ttl;
            bytes[12..16].copy_from_slice(&addresses[0]);
            bytes[16..20].copy_from_slice(&addresses[1]);
            let updated = apply(before, address_difference(old, addresses), word_difference(old_word, [ttl, bytes[9]]));
            let full = internet_checksum(&bytes);
            let same = |check: [u8; 2]| if check == [0xff, 0xff] { [0, 0] } else { check };
            prop_assert_eq!(same(updated), same(full));
        }

        /// Ports and addresses applied one after the other equal the full sum over both.
        #[test]
        fn two_calls_equal_one(check in any::<[u8; 2]>(), old in any::<([[u8; 4]; 2], [[u8; 2]; 2])>(),
                               new in any::<([[u8; 4]; 2], [[u8; 2]; 2])>()) {
            let addresses = address_difference(old.0, new.0);
            let ports = port_difference(old.1, new.1);
            let same = |check: [u8; 2]| if check == [0xff, 0xff] { [0, 0] } else { check };
            prop_assert_eq!(same(apply(apply(check, addresses, 0), ports, 0)), same(apply(check, addresses, ports)));
        }

        /// There and back again changes nothing.
        #[test]
        fn reverse_undoes(check in any::<[u8; 2]>(), old in any::<[[u8; 4]; 2]>(), new in any::<[[u8; 4]; 2]>()) {
            let there = apply(check, address_difference(old, new), 0);
            let back = apply(there, address_difference(new, old), 0);
            let same = |check: [u8; 2]| if check == [0xff, 0xff] { [0, 0] } else { check };
            prop_assert_eq!(same(back), same(check));
        }
    }
}
