//! Map structs of the kernel path's flow table.
//!
//! A masquerade flow is two entries of the same type: one in `FLOWS`, found by what the client sends, and one in
//! `REPLIES`, found by what the backend answers. Each holds the *complete* rewrite of its direction, checksum
//! differences included, so that a packet needs one lookup. Each direction writes only its own entry, without
//! atomics: [`FlowEntry::seen`], [`FlowEntry::tcp_flags`], [`FlowEntry::packets`] and [`FlowEntry::bytes`].
//!
//! Key (16 bytes), the kernel's element header (48) and entry (64) fill exactly two cache lines; 48 and 80 bytes of
//! entry were measured and are slower.

/// Key of `FLOWS`, `REPLIES` and `HANDED`: a tuple as it stands in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// Source address.
    pub saddr: [u8; 4],
    /// Destination address.
    pub daddr: [u8; 4],
    /// Source port, network order.
    pub sport: [u8; 2],
    /// Destination port, network order.
    pub dport: [u8; 2],
    /// IANA protocol number.
    pub proto: u8,
    /// Zone that the packet came in by.
    pub zone: u8,
    /// Always zero.
    pub pad: [u8; 2],
}

/// Value of `FLOWS` and `REPLIES`: the rewrite of one direction, and what was seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FlowEntry {
    /// New source address.
    pub saddr: [u8; 4],
    /// New destination address.
    pub daddr: [u8; 4],
    /// New source port, network order.
    pub sport: [u8; 2],
    /// New destination port, network order.
    pub dport: [u8; 2],
    /// One's complement difference of the addresses: for the IPv4 and the transport checksum.
    pub addr_diff: u32,
    /// One's complement difference of the ports: for the transport checksum.
    pub port_diff: u32,
    /// The service's index.
    pub service: u32,
    /// The service's generation when the flow was made.
    pub generation: u32,
    /// Zone that the packet leaves by: an index of `LINKS`.
    pub egress_zone: u8,
    /// OR of the TCP flags that this direction has sent (RFC 9293 §3.1, low eight bits).
    pub tcp_flags: u8,
    /// See [`FlowEntry::ON_LINK`].
    pub flags: u8,
    /// Always zero.
    pub pad: u8,
    /// When this direction last sent, `CLOCK_MONOTONIC_COARSE` in nanoseconds.
    pub seen: u64,
    /// Packets of this direction.
    pub packets: u64,
    /// Bytes of this direction, layer 3.
    pub bytes: u64,
    /// When the flow was made, `CLOCK_MONOTONIC_COARSE` in nanoseconds.
    pub created: u64,
}

impl FlowEntry {
    /// Flag: the new destination is on the egress link itself, so its neighbour is looked up, not the gateway's.
    pub const ON_LINK: u8 = 1;
}

/// Key of `FRAGMENTS`: what all fragments of a datagram share (RFC 791 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(4))]
pub struct FragmentKey {
    /// Source address.
    pub saddr: [u8; 4],
    /// Destination address.
    pub daddr: [u8; 4],
    /// Identification.
    pub id: [u8; 2],
    /// IANA protocol number.
    pub proto: u8,
    /// Zone that the fragments come in by.
    pub zone: u8,
}

/// Value of `FRAGMENTS`: what only the first fragment knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct FragmentPorts {
    /// When the first fragment was seen, `CLOCK_MONOTONIC_COARSE` in nanoseconds.
    pub seen: u64,
    /// Source port, network order.
    pub sport: [u8; 2],
    /// Destination port, network order.
    pub dport: [u8; 2],
    /// Always zero.
    pub pad: [u8; 4],
}

impl FragmentPorts {
    /// How long later fragments are taken for the same datagram, in nanoseconds: an identification is soon used again,
    /// and hosts hold incomplete datagrams for 30 s at most (`net.ipv4.ipfrag_time`).
    pub const LIFETIME: u64 = 30_000_000_000;
}

/// A token bucket: a cell of `ICMP_BUDGET`, `UNREPLIED` or `SOURCES`. All zero is a full one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Bucket {
    /// Tokens left.
    pub tokens: u64,
    /// When tokens were last added, `CLOCK_MONOTONIC_COARSE` in nanoseconds.
    pub filled: u64,
}

/// How much a [`Bucket`] holds, and how fast it fills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Rate {
    /// Tokens that a full bucket holds.
    pub burst: u64,
    /// Nanoseconds in which one token is added; 0 = no limit.
    pub interval: u64,
}

/// ICMP errors of our own: a hundred a second on each CPU, fifty at once (RFC 1812 §4.3.2.8).
pub const ICMP_RATE: Rate = Rate {
    burst: 50,
    interval: 10_000_000,
};

impl Bucket {
    /// Takes a token, if there is one, after adding what has come in since.
    #[inline(always)]
    pub const fn take(&mut self, rate: Rate, now: u64) -> bool {
        let Some(added) = now.saturating_sub(self.filled).checked_div(rate.interval) else {
            return true;
        };
        if added >= rate.burst || self.filled == 0 {
            // Left alone for long enough to be full, or fresh.
            self.tokens = rate.burst;
            self.filled = now;
        } else {
            self.tokens = self.tokens.wrapping_add(added);
            self.filled = self.filled.wrapping_add(added.wrapping_mul(rate.interval));
        }
        if self.tokens > rate.burst {
            self.tokens = rate.burst;
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens = self.tokens.wrapping_sub(1);
        true
    }

    /// Gives a token back; one too many is forgotten at the next [`Bucket::take`].
    #[inline(always)]
    pub const fn give(&mut self) {
        self.tokens = self.tokens.wrapping_add(1);
    }
}

/// Key of `SOURCES`: a client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(4))]
pub struct SourceKey {
    /// The address.
    pub saddr: [u8; 4],
}

/// The daemon's word to the programs: the single cell of the map `CONTROL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Control {
    /// When the daemon last wrote, `CLOCK_MONOTONIC_COARSE` in nanoseconds; 0 = frozen, no new flows.
    pub heartbeat: u64,
    /// Age of the heartbeat, in nanoseconds, beyond which no new flow is made.
    pub max_age: u64,
    /// Flows of one client address (IPv4 /32) that may be made.
    pub per_source: Rate,
    /// Flows of one service that may be unanswered at once: a token comes back with the first answer, or with time.
    pub per_service: Rate,
    /// The same for all services together.
    pub overall: Rate,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 16);
    assert!(size_of::<FlowEntry>() == 64);
    assert!(core::mem::offset_of!(FlowEntry, addr_diff) == 12);
    assert!(core::mem::offset_of!(FlowEntry, seen) == 32);
    assert!(core::mem::offset_of!(FlowEntry, created) == 56);
    assert!(size_of::<Control>() == 64);
    assert!(size_of::<SourceKey>() == 4);
    assert!(size_of::<Rate>() == 16);
    assert!(size_of::<FragmentKey>() == 12);
    assert!(size_of::<FragmentPorts>() == 16);
    assert!(size_of::<Bucket>() == 16);
};

#[cfg(test)]
mod tests {
    use super::{Bucket, ICMP_RATE, Rate};

    #[test]
    fn a_bucket_fills_slowly_and_empties_fast() {
        let mut bucket = Bucket::default();
        let now = 1_000_000_000_000;
        let interval = ICMP_RATE.interval;
        let burst = (0..1000).filter(|_| bucket.take(ICMP_RATE, now)).count();
        assert_eq!(burst, 50, "a fresh bucket is full");
        assert!(!bucket.take(ICMP_RATE, now + interval - 1));
        assert!(bucket.take(ICMP_RATE, now + interval), "one token an interval");
        assert!(!bucket.take(ICMP_RATE, now + interval));
        let second = (1..=1000)
            .filter(|ms| bucket.take(ICMP_RATE, now + interval + ms * 1_000_000))
            .count();
        assert_eq!(second, 100, "a hundred a second");
        assert!(
            !bucket.take(ICMP_RATE, now / 2),
            "a clock that runs backwards adds nothing"
        );
    }

    #[test]
    fn what_is_given_back_counts_and_never_beyond_the_burst() {
        let rate = Rate {
            burst: 2,
            interval: u64::MAX,
        };
        let mut bucket = Bucket::default();
        assert!(bucket.take(rate, 2) && bucket.take(rate, 2) && !bucket.take(rate, 2));
        bucket.give();
        assert!(bucket.take(rate, 2) && !bucket.take(rate, 2));
        (0..9).for_each(|_| bucket.give());
        assert!(bucket.take(rate, 2) && bucket.take(rate, 2) && !bucket.take(rate, 2));
    }

    #[test]
    fn no_interval_is_no_limit() {
        let mut bucket = Bucket::default();
        assert!((0..10_000).all(|_| bucket.take(Rate::default(), 5)));
    }
}
