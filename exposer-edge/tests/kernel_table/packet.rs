//! Building and reading packets for the packet-in/packet-out tables. Checksums are computed from scratch here, so that
//! they judge the incremental ones of the programs.

use exposer_common::net::checksum::internet_checksum;

/// TCP flags, as in `exposer_common::net::parse`.
pub const SYN: u8 = 0x02;
/// ACK.
pub const ACK: u8 = 0x10;
/// FIN.
pub const FIN: u8 = 0x01;
/// RST.
pub const RST: u8 = 0x04;

/// An IPv4 packet in an Ethernet frame, to be changed before it is made.
#[derive(Clone, Debug)]
pub struct Frame {
    pub saddr: [u8; 4],
    pub daddr: [u8; 4],
    pub sport: u16,
    pub dport: u16,
    pub ttl: u8,
    /// Flags and fragment offset, as in the header.
    pub fragment: u16,
    pub l4: L4,
    pub payload: Vec<u8>,
}

/// The transport header.
#[derive(Clone, Debug)]
pub enum L4 {
    Tcp { flags: u8, options: Vec<u8> },
    Udp { checksum: bool },
}

impl Frame {
    pub fn tcp(flags: u8) -> Self {
        let options = if flags & SYN == 0 {
            Vec::new()
        } else {
            vec![2, 4, 0x05, 0xb4, 4, 2, 1, 1]
        };
        Self {
            saddr: [44, 128, 7, 7],
            daddr: [44, 128, 0, 2],
            sport: 40_000,
            dport: 25_565,
            ttl: 60,
            fragment: 0x4000,
            l4: L4::Tcp { flags, options },
            payload: Vec::new(),
        }
    }

    pub fn udp(payload: &[u8]) -> Self {
        Self {
            l4: L4::Udp { checksum: true },
            payload: payload.to_vec(),
            ..Self::tcp(0)
        }
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.sport.to_be_bytes());
        bytes.extend(self.dport.to_be_bytes());
        match &self.l4 {
            L4::Tcp { flags, options } => {
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 2]);
                bytes.push(u8::try_from((20 + options.len()) / 4).unwrap() << 4);
                bytes.push(*flags);
                bytes.extend([0x20, 0, 0, 0, 0, 0]);
                bytes.extend(options);
            }
            L4::Udp { .. } => {
                bytes.extend(u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes());
                bytes.extend([0, 0]);
            }
        }
        bytes.extend(&self.payload);
        let check_at = match self.l4 {
            L4::Tcp { .. } => 16,
            L4::Udp { checksum: true } => 6,
            L4::Udp { checksum: false } => return bytes,
        };
        let check = transport_checksum(self.saddr, self.daddr, self.proto(), &bytes);
        bytes[check_at..check_at + 2].copy_from_slice(&check);
        bytes
    }

    fn proto(&self) -> u8 {
        match self.l4 {
            L4::Tcp { .. } => 6,
            L4::Udp { .. } => 17,
        }
    }

    /// The whole frame: Ethernet (to the all-zero address, which `BPF_PROG_TEST_RUN` takes as its own), IPv4, transport.
    pub fn build(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut ip = vec![0x45, 0];
        ip.extend(u16::try_from(20 + transport.len()).unwrap().to_be_bytes());
        ip.extend([0x12, 0x34]);
        ip.extend(self.fragment.to_be_bytes());
        ip.extend([self.ttl, self.proto(), 0, 0]);
        ip.extend(self.saddr);
        ip.extend(self.daddr);
        let check = internet_checksum(&ip);
        ip[10..12].copy_from_slice(&check);
        let mut frame = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 8, 0];
        frame.extend(ip);
        frame.extend(transport);
        frame
    }
}

fn transport_checksum(saddr: [u8; 4], daddr: [u8; 4], proto: u8, transport: &[u8]) -> [u8; 2] {
    let mut bytes = Vec::new();
    bytes.extend(saddr);
    bytes.extend(daddr);
    bytes.extend([0, proto]);
    bytes.extend(u16::try_from(transport.len()).unwrap().to_be_bytes());
    bytes.extend(transport);
    internet_checksum(&bytes)
}

/// What stands in a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub saddr: [u8; 4],
    pub daddr: [u8; 4],
    pub sport: u16,
    pub dport: u16,
    pub ttl: u8,
    /// Whether the IPv4 checksum is right.
    pub ip_ok: bool,
    /// Whether the transport checksum is right, or, for UDP, absent.
    pub l4_ok: bool,
    /// Value of a first MSS option.
    pub mss: Option<u16>,
}

/// Reads an IPv4 packet that begins at `offset`.
pub fn read(bytes: &[u8], offset: usize) -> Seen {
    let ip = &bytes[offset..];
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let l4 = &ip[20..total];
    let (saddr, daddr): ([u8; 4], [u8; 4]) = (ip[12..16].try_into().unwrap(), ip[16..20].try_into().unwrap());
    let zero = |check: [u8; 2]| check == [0, 0] || check == [0xff, 0xff];
    let absent = ip[9] == 17 && l4[6..8] == [0, 0];
    let options = if ip[9] == 6 {
        &l4[20..usize::from(l4[12] >> 4) * 4]
    } else {
        &[]
    };
    let mss = options
        .windows(4)
        .find(|w| w[0] == 2 && w[1] == 4)
        .map(|w| u16::from_be_bytes([w[2], w[3]]));
    Seen {
        saddr,
        daddr,
        sport: u16::from_be_bytes([l4[0], l4[1]]),
        dport: u16::from_be_bytes([l4[2], l4[3]]),
        ttl: ip[8],
        ip_ok: zero(internet_checksum(&ip[..20])),
        l4_ok: absent || zero(transport_checksum(saddr, daddr, ip[9], l4)),
        mss,
    }
}
