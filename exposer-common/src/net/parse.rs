//! Reading headers: from fixed arrays that the caller has bounds-checked to the few facts that decide.

use crate::service::L4Proto;
use crate::verdict::Reason;

/// Bytes of an Ethernet header (IEEE 802.3).
pub const ETH_LEN: usize = 14;
/// The same, as the helpers count.
pub const ETH_LEN_U32: u32 = 14;
/// Bytes of an IPv4 header without options (RFC 791).
pub const IPV4_LEN: usize = 20;
/// Bytes of a TCP header without options (RFC 9293).
pub const TCP_LEN: usize = 20;
/// Bytes of a UDP header (RFC 768).
pub const UDP_LEN: usize = 8;

/// TCP flag FIN (RFC 9293 §3.1).
pub const TCP_FIN: u8 = 0x01;
/// TCP flag SYN.
pub const TCP_SYN: u8 = 0x02;
/// TCP flag RST.
pub const TCP_RST: u8 = 0x04;
/// TCP flag ACK.
pub const TCP_ACK: u8 = 0x10;

/// IANA number of ICMP (RFC 792).
const ICMP: u8 = 1;

/// What an IPv4 packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// TCP or UDP.
    Transport(L4Proto),
    /// ICMP.
    Icmp,
}

/// Which part of a datagram an IPv4 packet is (RFC 791 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment: it has the transport header.
    First,
    /// A later fragment: it has no ports, only the identification that it shares with the first.
    Later,
}

/// What an IPv4 header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address.
    pub saddr: [u8; 4],
    /// Destination address.
    pub daddr: [u8; 4],
    /// What it carries.
    pub upper: Upper,
    /// Time to live.
    pub ttl: u8,
    /// Length of header and payload, in bytes.
    pub total_len: u16,
    /// Identification, the same in all fragments of a datagram.
    pub id: [u8; 2],
    /// Which part of the datagram this is.
    pub part: Part,
    /// Whether "don't fragment" is set.
    pub dont_fragment: bool,
}

/// Judges an IPv4 header. `available` is the number of bytes from its start to the end of the packet.
///
/// # Errors
///
/// The reason why the packet is left to the stack.
#[inline(always)]
pub fn ipv4(header: &[u8; IPV4_LEN], available: u32) -> Result<Ipv4, Reason> {
    let [
        version_ihl,
        _,
        len0,
        len1,
        id0,
        id1,
        frag0,
        frag1,
        ttl,
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
    ] = *header;
    if version_ihl >> 4 != 4 {
        return Err(Reason::Malformed);
    }
    let upper = match (proto, L4Proto::from_number(proto)) {
        (_, Some(proto)) => Upper::Transport(proto),
        (ICMP, None) => Upper::Icmp,
        (_, None) => return Err(Reason::NotTcpUdp),
    };
    match version_ihl & 0x0f {
        5 => {}
        6.. => return Err(Reason::IpOptions),
        _ => return Err(Reason::Malformed),
    }
    let total_len = u16::from_be_bytes([len0, len1]);
    // A GSO super-packet of 64 KiB and more ("BIG TCP") has a total length of 0; it goes the stack's way.
    if total_len < 20 {
        return Err(Reason::Malformed);
    }
    if u32::from(total_len) > available {
        return Err(Reason::Truncated);
    }
    let part = match (frag0 & 0x1f != 0 || frag1 != 0, frag0 & 0x20 != 0) {
        (true, _) => Part::Later,
        (false, true) => Part::First,
        (false, false) => Part::Whole,
    };
    Ok(Ipv4 {
        saddr: [s0, s1, s2, s3],
        daddr: [d0, d1, d2, d3],
        upper,
        ttl,
        total_len,
        id: [id0, id1],
        part,
        dont_fragment: frag0 & 0x40 != 0,
    })
}

/// What a transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Source port, network order.
    pub sport: [u8; 2],
    /// Destination port, network order.
    pub dport: [u8; 2],
    /// TCP flags; 0 for UDP.
    pub tcp_flags: u8,
    /// Bytes of TCP options; 0 for UDP.
    pub options_len: u8,
}

impl Transport {
    /// Whether this opens a connection: SYN, and neither ACK, RST nor FIN.
    #[inline(always)]
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN
    }
}

/// Judges a TCP header. `payload` is the number of bytes that the IP header grants it.
///
/// # Errors
///
/// The reason why the segment is left to the stack.
#[inline(always)]
pub fn tcp(header: &[u8; TCP_LEN], payload: u16) -> Result<Transport, Reason> {
    let [s0, s1, d0, d1, _, _, _, _, _, _, _, _, offset, flags, ..] = *header;
    // The upper nibble counts 32-bit words.
    let len = (offset >> 4).wrapping_mul(4);
    if len < 20 || u16::from(len) > payload {
        return Err(Reason::Malformed);
    }
    Ok(Transport {
        sport: [s0, s1],
        dport: [d0, d1],
        tcp_flags: flags,
        options_len: len.wrapping_sub(20),
    })
}

/// Judges a UDP header. `payload` is the number of bytes that the IP header grants it; in a first fragment the length
/// counts the later ones too, so only `Part::Whole` is held to it.
///
/// # Errors
///
/// The reason why the datagram is left to the stack.
#[inline(always)]
pub fn udp(header: &[u8; UDP_LEN], payload: u16, part: Part) -> Result<Transport, Reason> {
    let [s0, s1, d0, d1, len0, len1, _, _] = *header;
    let len = u16::from_be_bytes([len0, len1]);
    if len < 8 || (len > payload && matches!(part, Part::Whole)) {
        return Err(Reason::Malformed);
    }
    Ok(Transport {
        sport: [s0, s1],
        dport: [d0, d1],
        tcp_flags: 0,
        options_len: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> [u8; 20] {
        [
            0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, 6, 0, 0, 44, 128, 0, 1, 44, 128, 0, 2,
        ]
    }

    #[test]
    fn plain_header_is_read() {
        let ip = ipv4(&header(), 60).unwrap();
        assert_eq!(ip.saddr, [44, 128, 0, 1]);
        assert_eq!(ip.daddr, [44, 128, 0, 2]);
        assert_eq!((ip.upper, ip.ttl), (Upper::Transport(L4Proto::Tcp), 64));
        assert_eq!(
            (ip.total_len, ip.part, ip.dont_fragment, ip.id),
            (60, Part::Whole, true, [0, 1])
        );
    }

    #[test]
    fn each_lie_has_its_reason() {
        let with = |index: usize, value: u8| {
            let mut bytes = header();
            bytes[index] = value;
            bytes
        };
        assert_eq!(ipv4(&with(0, 0x65), 60), Err(Reason::Malformed), "version 6");
        assert_eq!(ipv4(&with(0, 0x44), 60), Err(Reason::Malformed), "IHL 4");
        assert_eq!(ipv4(&with(0, 0x46), 60), Err(Reason::IpOptions), "IHL 6");
        assert_eq!(
            ipv4(&with(3, 19), 60),
            Err(Reason::Malformed),
            "total length below the header"
        );
        assert_eq!(
            ipv4(&with(3, 61), 60),
            Err(Reason::Truncated),
            "total length beyond the packet"
        );
        assert_eq!(ipv4(&with(9, 47), 60), Err(Reason::NotTcpUdp), "GRE");
        assert_eq!(
            ipv4(&with(6, 0x20), 60).unwrap().part,
            Part::First,
            "more fragments"
        );
        assert_eq!(ipv4(&with(7, 1), 60).unwrap().part, Part::Later, "an offset");
        assert_eq!(
            ipv4(&with(6, 0x3f), 60).unwrap().part,
            Part::Later,
            "more fragments and an offset"
        );
        assert_eq!(ipv4(&with(9, 1), 60).unwrap().upper, Upper::Icmp);
        assert!(
            ipv4(&header(), 1500).is_ok(),
            "Ethernet padding behind the packet is no lie"
        );
    }

    #[test]
    fn tcp_lengths() {
        let mut bytes = [0_u8; 20];
        for words in 0..16_u8 {
            bytes[12] = words << 4;
            for payload in 0..70_u16 {
                let ok = words >= 5 && u16::from(words) * 4 <= payload;
                assert_eq!(tcp(&bytes, payload).is_ok(), ok, "{words} words, {payload} bytes");
            }
        }
    }

    #[test]
    fn udp_lengths() {
        for len in 0..40_u16 {
            let [high, low] = len.to_be_bytes();
            for payload in 0..40_u16 {
                let bytes = [0, 1, 0, 2, high, low, 0, 0];
                let fits = len >= 8 && len <= payload;
                assert_eq!(
                    udp(&bytes, payload, Part::Whole).is_ok(),
                    fits,
                    "{len} in {payload}"
                );
                assert_eq!(
                    udp(&bytes, payload, Part::First).is_ok(),
                    len >= 8,
                    "{len} fragmented"
                );
            }
        }
    }

    #[test]
    fn only_a_bare_syn_opens() {
        for flags in 0..=255_u8 {
            let mut bytes = [0_u8; 20];
            bytes[12] = 0x50;
            bytes[13] = flags;
            let syn = flags & TCP_SYN != 0;
            let other = flags & (TCP_ACK | TCP_RST | TCP_FIN) != 0;
            assert_eq!(tcp(&bytes, 20).unwrap().opens(), syn && !other, "{flags:#x}");
        }
    }
}
