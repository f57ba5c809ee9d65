//! Making a masquerade mapping: which SNAT port, and what the two entries of the flow hold.
//!
//! The client's tuple alone decides the first candidate, so a flow that is lost for any reason comes back on the same
//! port, and two CPUs that make one flow at the same time agree. The protocol of insertion (DESIGN §2) is the
//! caller's: reverse entry first, without overwriting; then the forward entry, without overwriting; no byte of the
//! packet is written before both stand.

use core::num::NonZeroU32;

use super::checksum::{address_difference, port_difference};
use crate::flow::{FlowEntry, FlowKey};
use crate::service::ServiceEntry;

/// How many candidates are tried before a flow goes to the userspace path.
pub const PROBES: u32 = 16;

/// Mixes a tuple into 32 well-spread bits (the finalizer of MurmurHash3 over each word, by Austin Appleby).
#[inline(always)]
#[must_use]
pub const fn hash(key: &FlowKey) -> u32 {
    let [s0, s1] = key.sport;
    let [d0, d1] = key.dport;
    let mut h = u32::from_ne_bytes(key.saddr);
    h = mix(h ^ u32::from_ne_bytes(key.daddr));
    h = mix(h ^ u32::from_be_bytes([s0, s1, d0, d1]));
    mix(h ^ key.proto as u32)
}

#[inline(always)]
const fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// The SNAT port (host order) of the `probe`-th candidate for a tuple with this [`hash`].
///
/// Probes step by an odd number that depends on the hash, so that tuples that collide once part ways.
#[inline(always)]
#[must_use]
pub fn candidate(service: &ServiceEntry, hash: u32, probe: u32) -> u16 {
    let count = NonZeroU32::new(service.snat_count.into()).unwrap_or(NonZeroU32::MIN);
    let step = (hash >> 16) | 1;
    let offset = hash.wrapping_add(probe.wrapping_mul(step)) % count;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "offset is below snat_count, a u16"
    )]
    let offset = offset as u16;
    service.snat_first.wrapping_add(offset)
}

/// What a new flow is made of.
#[derive(Clone, Copy, Debug)]
pub struct NewFlow<'a> {
    /// The client's tuple, with the zone that it came in by.
    pub key: &'a FlowKey,
    /// The service that it asks for.
    pub service: &'a ServiceEntry,
    /// The SNAT port, host order.
    pub snat_port: u16,
    /// Whether the client is on the public link itself.
    pub on_link: bool,
    /// `CLOCK_MONOTONIC_COARSE`, nanoseconds.
    pub now: u64,
}

impl NewFlow<'_> {
    /// Where the backend's answers are found: the key in `REPLIES`.
    #[inline(always)]
    #[must_use]
    pub const fn reply_key(&self) -> FlowKey {
        FlowKey {
            saddr: self.service.backend,
            daddr: self.service.snat_address,
            sport: self.service.backend_port.to_be_bytes(),
            dport: self.snat_port.to_be_bytes(),
            proto: self.key.proto,
            zone: self.service.egress_zone,
            pad: [0; 2],
        }
    }

    /// The entry in `FLOWS`: client to home.
    #[inline(always)]
    #[must_use]
    pub const fn forward(&self) -> FlowEntry {
        let reply = self.reply_key();
        rewrite(
            self,
            self.key,
            (reply.daddr, reply.dport),
            (reply.saddr, reply.sport),
            self.service.egress_zone,
            0,
        )
    }

    /// The entry in `REPLIES`: home to client.
    #[inline(always)]
    #[must_use]
    pub const fn reply(&self) -> FlowEntry {
        let flags = if self.on_link { FlowEntry::ON_LINK } else { 0 };
        rewrite(
            self,
            &self.reply_key(),
            (self.key.daddr, self.key.dport),
            (self.key.saddr, self.key.sport),
            self.key.zone,
            flags,
        )
    }
}

/// The entry that turns the tuple `old` into one from `source` to `destination`.
#[inline(always)]
const fn rewrite(
    flow: &NewFlow<'_>,
    old: &FlowKey,
    source: ([u8; 4], [u8; 2]),
    destination: ([u8; 4], [u8; 2]),
    egress_zone: u8,
    flags: u8,
) -> FlowEntry {
    FlowEntry {
        saddr: source.0,
        daddr: destination.0,
        sport: source.1,
        dport: destination.1,
        addr_diff: address_difference([old.saddr, old.daddr], [source.0, destination.0]),
        port_diff: port_difference([old.sport, old.dport], [source.1, destination.1]),
        service: flow.service.index,
        generation: flow.service.generation,
        egress_zone,
        tcp_flags: 0,
        flags,
        pad: 0,
        seen: flow.now,
        packets: 0,
        bytes: 0,
        created: flow.now,
    }
}

/// The key of the other direction's entry: what the far end of `entry` answers.
///
/// For a forward entry that is its key in `REPLIES`, with the entry's egress zone; for a reply entry its key in
/// `FLOWS`.
#[inline(always)]
#[must_use]
pub const fn opposite_key(entry: &FlowEntry, proto: u8) -> FlowKey {
    FlowKey {
        saddr: entry.daddr,
        daddr: entry.saddr,
        sport: entry.dport,
        dport: entry.sport,
        proto,
        zone: entry.egress_zone,
        pad: [0; 2],
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "test code")]
mod tests {
    use super::*;
    use crate::net::checksum::{apply, internet_checksum};
    use crate::service::PortMode;
    use proptest::prelude::*;

    fn service() -> ServiceEntry {
        ServiceEntry {
            backend: [10, 96, 0, 10],
            backend_port: 80,
            mode: PortMode::Masquerade,
            egress_zone: 2,
            snat_address: [10, 0, 0, 1],
            snat_first: 1024,
            snat_count: 28_976,
            index: 7,
            generation: 3,
        }
    }

    fn client(saddr: [u8; 4], sport: u16) -> FlowKey {
        FlowKey {
            saddr,
            daddr: [44, 128, 0, 2],
            sport: sport.to_be_bytes(),
            dport: 25565_u16.to_be_bytes(),
            proto: 6,
            zone: 1,
            pad: [0; 2],
        }
    }

    #[test]
    fn both_entries_name_each_other() {
        let (service, key) = (service(), client([44, 128, 7, 7], 40_000));
        let flow = NewFlow {
            key: &key,
            service: &service,
            snat_port: 2000,
            on_link: false,
            now: 5,
        };
        assert_eq!(opposite_key(&flow.forward(), 6), flow.reply_key());
        assert_eq!(opposite_key(&flow.reply(), 6), key);
        assert_eq!((flow.forward().service, flow.forward().generation), (7, 3));
    }

    #[test]
    fn a_range_of_one_port_has_one_candidate() {
        let one = ServiceEntry {
            snat_first: 65_535,
            snat_count: 1,
            ..service()
        };
        for probe in 0..PROBES {
            assert_eq!(candidate(&one, hash(&client([1, 2, 3, 4], 5)), probe), 65_535);
        }
    }

    #[test]
    fn candidates_are_spread() {
        // 28,976 clients on as many ports: a good hash leaves about 1/e of the ports unused.
        let mut used = std::collections::HashSet::new();
        for number in 0..28_976_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            used.insert(candidate(&service(), hash(&client([44, a, b, c], 40_000)), 0));
        }
        assert!(
            (17_000..20_000).contains(&used.len()),
            "{} of 28,976 ports used",
            used.len()
        );
    }

    proptest! {
        #[test]
        fn candidates_stay_in_the_range(first in 1_u16.., count in 1_u16.., hash in any::<u32>(), probe in 0..PROBES) {
            let count = count.min(u16::MAX - first).max(1);
            let service = ServiceEntry { snat_first: first, snat_count: count, ..service() };
            let port = candidate(&service, hash, probe);
            prop_assert!(u32::from(port) >= u32::from(first));
            prop_assert!(u32::from(port) < u32::from(first) + u32::from(count));
        }

        /// The precomputed differences correct a transport checksum over pseudo header and ports, both ways.
        #[test]
        fn differences_match_the_rewrite(saddr in any::<[u8; 4]>(), sport in any::<u16>(), snat_port in any::<u16>()) {
            let (service, key) = (service(), client(saddr, sport));
            let flow = NewFlow { key: &key, service: &service, snat_port, on_link: true, now: 0 };
            for (old, entry) in [(key, flow.forward()), (flow.reply_key(), flow.reply())] {
                let sum = |s: [u8; 4], d: [u8; 4], sp: [u8; 2], dp: [u8; 2]| {
                    internet_checksum(&[&s[..], &d[..], &sp[..], &dp[..], &[0, 6, 0, 20]].concat())
                };
                let before = sum(old.saddr, old.daddr, old.sport, old.dport);
                let after = sum(entry.saddr, entry.daddr, entry.sport, entry.dport);
                let same = |check: [u8; 2]| if check == [0xff, 0xff] { [0, 0] } else { check };
                prop_assert_eq!(same(apply(before, entry.addr_diff, entry.port_diff)), same(after));
            }
        }
    }
}
