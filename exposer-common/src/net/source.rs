//! Which source addresses may speak to a public port (DESIGN §1.6).
//!
//! TC runs before the stack's martian check, so the programs make it themselves. The list is that of the IANA IPv4
//! Special-Purpose Address Registry (RFC 6890 and its updates): every block that is not globally reachable, with
//! multicast (RFC 5771) and class E (RFC 1112) besides. What is refused here is PASS: the stack and the userspace
//! path judge it by their own rules.

/// Whether `address` may be the source of a packet from the internet.
#[inline(always)]
#[must_use]
pub const fn is_global_unicast(address: [u8; 4]) -> bool {
    let [a, b, c, _] = address;
    match a {
        // "This network", private, loopback, multicast and class E.
        0 | 10 | 127 | 224.. => false,
        // Shared address space (RFC 6598).
        100 => b & 0xc0 != 64,
        // Link-local (RFC 3927).
        169 => b != 254,
        // Private.
        172 => b & 0xf0 != 16,
        192 => !(b == 168 || (b == 0 && (c == 0 || c == 2))),
        // Benchmarking (RFC 2544) and TEST-NET-2.
        198 => !(b & 0xfe == 18 || (b == 51 && c == 100)),
        // TEST-NET-3.
        203 => !(b == 0 && c == 113),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::is_global_unicast;

    #[test]
    fn blocks_end_where_the_registry_says() {
        let rows: &[([u8; 4], bool)] = &[
            ([0, 0, 0, 0], false),
            ([0, 255, 255, 255], false),
            ([1, 0, 0, 0], true),
            ([9, 255, 255, 255], true),
            ([10, 0, 0, 0], false),
            ([11, 0, 0, 0], true),
            ([100, 63, 255, 255], true),
            ([100, 64, 0, 0], false),
            ([100, 127, 255, 255], false),
            ([100, 128, 0, 0], true),
            ([127, 0, 0, 1], false),
            ([169, 253, 0, 1], true),
            ([169, 254, 169, 254], false),
            ([172, 15, 255, 255], true),
            ([172, 16, 0, 0], false),
            ([172, 31, 255, 255], false),
            ([172, 32, 0, 0], true),
            ([192, 0, 0, 9], false),
            ([192, 0, 1, 1], true),
            ([192, 0, 2, 1], false),
            ([192, 167, 1, 1], true),
            ([192, 168, 1, 1], false),
            ([198, 17, 255, 255], true),
            ([198, 18, 0, 0], false),
            ([198, 19, 255, 255], false),
            ([198, 20, 0, 0], true),
            ([198, 51, 100, 7], false),
            ([203, 0, 113, 7], false),
            ([203, 0, 114, 7], true),
            ([44, 128, 0, 1], true),
            ([223, 255, 255, 255], true),
            ([224, 0, 0, 1], false),
            ([255, 255, 255, 255], false),
        ];
        for (address, expected) in rows {
            assert_eq!(is_global_unicast(*address), *expected, "{address:?}");
        }
    }
}
